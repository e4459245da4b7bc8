"""Several networks that differ only in their seed: median, spread, calibrated standard deviation.

The median and the inter-quartile range over members follow Merchant et al. 2023
(doi:10.1038/s41586-023-06735-9): single networks are unstable far from their training data.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals import CrystalTable
from opengnome.crystals.replacement import make_folder
from opengnome.errors import CheckpointError, InvalidCrystalError
from opengnome.graphs import OrbitGraph, batch_of, nearest_distances, orbit_graph
from opengnome.models.calibration import MIN_FOR_FIT, Calibration, coverage, fit_calibration
from opengnome.models.checkpoint import copy_checkpoint, data_digest, load_checkpoint, write_json
from opengnome.models.domain import Domain, domain_of
from opengnome.models.manifest import FORMAT_VERSION, MANIFEST, ensemble_digest, member_paths, read_manifest
from opengnome.models.network import StructuralModel
from opengnome.models.numerics import numerics
from opengnome.models.paper import PaperNetwork
from opengnome.models.prediction import Prediction
from opengnome.models.scan import VOLUME_SCALES, check_volume_scales, scan_cutoff, scan_volumes
from opengnome.models.structural import StructuralNetwork

KIND = "structural"
BATCH_ATOMS = 512
"""Atoms evaluated at once: the arrays of a batch should fit the processor's cache."""

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained members with their calibration; read one with `load`, make one with `assemble_ensemble`."""

    members: tuple[StructuralModel, ...]
    calibration: Calibration
    metrics: dict[str, Any]
    """Errors on the held-out crystals and coverage of the intervals; `warnings` lists what is wanting."""
    digest: str
    """SHA-256 over the members' weights and the calibration: the name of this ensemble."""
    domain: Domain | None = None
    """What the members have seen; None for a draft."""

    @classmethod
    def load(cls, directory: Path) -> "Ensemble":
        """Read an ensemble that `assemble_ensemble` wrote.

        Raises `CheckpointError` when files are missing or damaged, or the format is unknown.
        """
        manifest = read_manifest(directory, KIND)
        paths = member_paths(directory)
        try:
            metrics = dict(manifest["metrics"])
            calibration = Calibration.from_dict(manifest["calibration"])
            domain = Domain.from_dict(manifest["domain"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{directory / MANIFEST} is damaged: {error} is missing") from None
        return cls(_load_members(paths), calibration, metrics, ensemble_digest(paths, calibration), domain)

    def predict(
        self,
        table: CrystalTable,
        *,
        volume_scales: Sequence[float] = VOLUME_SCALES,
        batch_atoms: int = BATCH_ATOMS,
        threads: int = 1,
        bfloat16: bool = False,
        progress: Progress | None = None,
    ) -> Prediction:
        """Formation energies of the crystals of `table`.

        A crystal whose graph cannot be built (too dense) gets NaN and a reason; the others are not affected. Where an
        atom has no neighbour within the cutoff, `isolated` says so. Memory is bounded by `batch_atoms`, or by the
        largest single crystal. `bfloat16` is several times faster on processors with instructions for it and moves
        energies by a few meV/atom.
        """
        check_volume_scales(volume_scales)
        cutoff = scan_cutoff(self.members[0].settings.cutoff, volume_scales)
        energies = np.full((len(self.members), len(table)), np.nan)
        volume_scale = np.full(len(table), np.nan)
        isolated = np.zeros(len(table), dtype=bool)
        reach = self.members[0].settings.cutoff / max(volume_scales) ** (1.0 / 3.0)
        reasons = [""] * len(table)
        with numerics(threads=threads):
            for rows in _batches(table.n_atoms, batch_atoms):
                usable = self._usable(table, rows, cutoff, reasons)
                if usable:
                    batch = batch_of(list(usable.values()))
                    minimum = scan_volumes(self.members, batch, volume_scales, bfloat16=bfloat16)
                    energies[:, list(usable)] = minimum.energies
                    volume_scale[list(usable)] = minimum.volume_scale
                    isolated[list(usable)] = [bool((nearest_distances(g) > reach).any()) for g in usable.values()]
                if progress is not None:
                    progress(f"predicted {int(rows[-1]) + 1} of {len(table)} crystals")
        return _summary(energies, volume_scale, reasons, self.calibration, isolated)

    def _usable(
        self, table: CrystalTable, rows: np.ndarray, cutoff: float, reasons: list[str]
    ) -> dict[int, OrbitGraph]:
        """Graphs of the crystals of the batch, by row; the reason of every other is recorded."""
        limit = self.members[0].settings.max_neighbours_per_atom
        usable = {}
        for row in rows.tolist():
            try:
                usable[row] = orbit_graph(table[row], cutoff=cutoff, max_neighbours_per_atom=limit)
            except InvalidCrystalError as error:
                reasons[row] = str(error)
        return usable


def assemble_ensemble(
    member_paths: Sequence[Path],
    directory: Path,
    *,
    table: CrystalTable,
    targets: np.ndarray,
    held_out: np.ndarray,
    progress: Progress | None = None,
) -> Ensemble:
    """Copy trained members into `directory`, fit the calibration on the held-out rows, and load it.

    With fewer than 20 held-out crystals the error of the training rows takes their place, which is too
    small, and `metrics["warnings"]` says so.
    """
    if not member_paths:
        raise CheckpointError("an ensemble needs at least one member, got none")
    make_folder(directory)
    (directory / MANIFEST).unlink(missing_ok=True)  # half a new ensemble must not pass for the old one
    paths = [directory / f"member-{index:02d}.safetensors" for index in range(len(member_paths))]
    for source, target in zip(member_paths, paths, strict=True):
        copy_checkpoint(source, target)
    members = _load_members(paths)
    held_out, targets = np.asarray(held_out, dtype=bool), np.asarray(targets, dtype=float)
    draft = Ensemble(members, Calibration(0.0, 1.0), {}, "")
    answered = _answered(draft, table, targets, held_out, progress) if held_out.sum() >= MIN_FOR_FIT else None
    enough = answered is not None and len(answered[0]) >= MIN_FOR_FIT  # some may have no prediction
    if answered is None or not enough:
        answered = _answered(draft, table, targets, ~held_out, progress)
    judged, prediction, truth = answered
    calibration, metrics = _judge(judged, prediction, truth, held_out=enough)
    write_json(
        directory / MANIFEST,
        {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "members": [path.name for path in paths],
            "calibration": calibration.to_dict(),
            "domain": domain_of(table, np.flatnonzero(~held_out), prediction.spread).to_dict(),
            "metrics": metrics,
            "data_digest": data_digest(table.ids, targets),
            "n_train": int((~held_out).sum()),
            "n_held_out": int(held_out.sum()),
        },
    )
    return Ensemble.load(directory)


def _answered(
    ensemble: Ensemble, table: CrystalTable, targets: np.ndarray, mask: np.ndarray, progress: Progress | None
) -> tuple[CrystalTable, Prediction, np.ndarray]:
    """The crystals of a mask that have a prediction."""
    asked = table.filter(mask)
    prediction = ensemble.predict(asked, volume_scales=(1.0,), progress=progress)
    good = np.isfinite(prediction.formation_energy_per_atom)
    return asked.filter(good), prediction.part(good), targets[mask][good]


def _judge(
    table: CrystalTable, prediction: Prediction, targets: np.ndarray, *, held_out: bool
) -> tuple[Calibration, dict[str, Any]]:
    errors = prediction.formation_energy_per_atom - targets
    metrics: dict[str, Any] = {
        "judged_on": "held-out crystals" if held_out else "training crystals",
        "unit": "eV/atom",
    }
    metrics |= _errors(table, errors)
    if held_out:
        calibration = fit_calibration(errors, prediction.spread)
        warnings = []
        if len(errors) >= 2 * MIN_FOR_FIT:
            metrics["coverage"] = coverage(errors, prediction.spread)
        else:
            warnings.append(f"coverage is not reported: {len(errors)} held-out crystals are too few")
    else:
        calibration = Calibration(float(np.sqrt(np.mean(errors**2))), 1.0)
        warnings = [
            f"fewer than {MIN_FOR_FIT} held-out crystals: errors and standard deviations are those of the "
            "training crystals and too small"
        ]
    return calibration, metrics | {"warnings": warnings}


def _errors(table: CrystalTable, errors: np.ndarray) -> dict[str, Any]:
    n_elements = np.array([len(set(crystal.atomic_numbers.tolist())) for crystal in table])
    by_number = {
        str(n): {"mae": float(np.abs(errors[n_elements == n]).mean()), "n": int((n_elements == n).sum())}
        for n in np.unique(n_elements).tolist()
    }
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "n": len(errors),
        "by_number_of_elements": by_number,
    }


def _summary(
    energies: np.ndarray,
    volume_scale: np.ndarray,
    reasons: list[str],
    calibration: Calibration,
    isolated: np.ndarray,
) -> Prediction:
    lower, median, upper = np.quantile(energies, [0.25, 0.5, 0.75], axis=0)
    spread = upper - lower
    return Prediction(median, spread, calibration.std(spread), volume_scale, tuple(reasons), calibration, isolated)


def _batches(n_atoms: np.ndarray, batch_atoms: int) -> Iterator[np.ndarray]:
    """Consecutive rows with at most `batch_atoms` atoms together, never less than one row."""
    start, total = 0, 0
    for row, count in enumerate(n_atoms.tolist()):
        if row > start and total + count > batch_atoms:
            yield np.arange(start, row)
            start, total = row, 0
        total += count
    if start < len(n_atoms):
        yield np.arange(start, len(n_atoms))


def _load_members(paths: Sequence[Path]) -> tuple[StructuralModel, ...]:
    if not paths:
        raise CheckpointError("the ensemble lists no members")
    members = tuple(_structural(path) for path in paths)
    cutoffs = {member.settings.cutoff for member in members}
    if len(cutoffs) != 1:
        raise CheckpointError(f"the members have different cutoffs {sorted(cutoffs)}; train them alike")
    return members


def _structural(path: Path) -> StructuralModel:
    network = load_checkpoint(path)[0]
    if not isinstance(network, StructuralNetwork | PaperNetwork):
        raise CheckpointError(f"{path} is not a structural network; it judges compositions, not crystals")
    return network
