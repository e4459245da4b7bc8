"""Several compositional networks: formation energy of the lowest-energy crystal of a composition, with spread."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.crystals.replacement import make_folder
from opengnome.errors import CheckpointError
from opengnome.models.calibration import MIN_FOR_FIT, Calibration, coverage, fit_calibration
from opengnome.models.checkpoint import card_path, copy_checkpoint, load_checkpoint, write_json
from opengnome.models.compositional import CompositionalModel, CompositionDataset
from opengnome.models.manifest import FORMAT_VERSION, MANIFEST, ensemble_digest, member_paths, read_manifest
from opengnome.models.numerics import numerics
from opengnome.models.prediction import Prediction

KIND = "compositional"
_BATCH = 512


@dataclass(frozen=True, eq=False)
class CompositionalEnsemble:
    """Trained members with their calibration."""

    members: tuple[CompositionalModel, ...]
    calibration: Calibration
    metrics: dict[str, Any]
    digest: str
    """SHA-256 over the members' weights and the calibration."""
    elements: frozenset[int] | None = None
    """Atomic numbers that the members were trained on; None where that is not known."""

    @classmethod
    def load(cls, directory: Path) -> "CompositionalEnsemble":
        """Read an ensemble that `assemble_compositional` wrote; raises `CheckpointError` as `Ensemble.load`."""
        manifest = read_manifest(directory, KIND)
        paths = member_paths(directory)
        try:
            calibration, metrics = Calibration.from_dict(manifest["calibration"]), dict(manifest["metrics"])
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{directory / MANIFEST} is damaged: {error} is missing") from None
        digest, elements = ensemble_digest(paths, calibration), manifest.get("elements")
        known = None if elements is None else frozenset(ATOMIC_NUMBERS[symbol] for symbol in elements)
        return cls(_load_members(paths), calibration, metrics, digest, known)

    def predict(self, compositions: Sequence[Composition], *, threads: int = 1) -> Prediction:
        """Formation energies of the lowest-energy crystals of `compositions`.

        The median over the members, and as `spread` the standard deviation of the mixture of their Laplace
        distributions: what they disagree about, and what each says it does not know. NaN, with the reason, for a
        composition with an element that no member was trained on: what it stands for is random then.
        """
        location, scale = self._distributions(compositions, threads)
        median = np.median(location, axis=0)
        spread = np.sqrt(location.var(axis=0) + 2.0 * np.mean(scale**2, axis=0))
        n = len(compositions)
        reasons = tuple(self._unknown(composition) for composition in compositions)
        answered = np.array([not reason for reason in reasons], dtype=bool)
        median, spread = np.where(answered, median, np.nan), np.where(answered, spread, np.nan)
        return Prediction(
            median,
            spread,
            self.calibration.std(spread),
            np.full(n, np.nan),
            reasons,
            self.calibration,
            np.zeros(n, dtype=bool),
        )

    def _unknown(self, composition: Composition) -> str:
        if self.elements is None or self.elements.issuperset(composition.atomic_numbers):
            return ""
        strange = [SYMBOLS[z] for z in composition.atomic_numbers if z not in self.elements]
        return f"the networks were trained on no composition with {', '.join(strange)}"

    def _distributions(self, compositions: Sequence[Composition], threads: int) -> tuple[np.ndarray, np.ndarray]:
        """Locations and scales of every member, each (n_members, n), eV/atom."""
        location = np.empty((len(self.members), len(compositions)))
        scale = np.empty_like(location)
        if not len(compositions):
            return location, scale
        dataset = CompositionDataset(compositions)
        with numerics(threads=threads), torch.inference_mode():
            for start in range(0, len(dataset), _BATCH):
                rows = np.arange(start, min(start + _BATCH, len(dataset)))
                batch = dataset.batch(rows)
                for index, member in enumerate(self.members):
                    energy, width = member(batch)
                    location[index, rows], scale[index, rows] = energy.numpy(), width.numpy()
        return location, scale


def assemble_compositional(
    paths: Sequence[Path],
    directory: Path,
    *,
    compositions: Sequence[Composition],
    targets: np.ndarray,
    trained_on: Iterable[int] | None = None,
    card: dict[str, Any],
) -> CompositionalEnsemble:
    """Copy trained members into `directory` and fit the calibration on compositions none was trained on.

    `targets` (n,) are the formation energies of `compositions`, eV/atom; `trained_on` the atomic numbers of all
    compositions that members have seen, if that is known; `card` is kept in the manifest. Raises
    `SettingsError` when they are fewer than `MIN_FOR_FIT`; of fewer than twice that many no coverage is reported.
    """
    if not paths:
        raise CheckpointError("an ensemble needs at least one member, got none")
    make_folder(directory)
    (directory / MANIFEST).unlink(missing_ok=True)
    copies = [directory / f"member-{index:02d}.safetensors" for index in range(len(paths))]
    for source, target in zip(paths, copies, strict=True):
        copy_checkpoint(source, target)
    draft = CompositionalEnsemble(_load_members(copies), Calibration(0.0, 1.0), {}, "")
    prediction = draft.predict(compositions)
    errors = prediction.formation_energy_per_atom - np.asarray(targets, dtype=float)
    calibration = fit_calibration(errors, prediction.spread)
    metrics: dict[str, Any] = {
        "unit": "eV/atom",
        "n": len(errors),
        "mae": float(np.abs(errors).mean()),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "warnings": [],
    }
    if len(errors) >= 2 * MIN_FOR_FIT:
        metrics["coverage"] = coverage(errors, prediction.spread)
    else:
        metrics["warnings"] = [f"coverage is not reported: {len(errors)} held-out compositions are too few"]
    write_json(
        directory / MANIFEST,
        {
            "format_version": FORMAT_VERSION,
            "kind": KIND,
            "members": [path.name for path in copies],
            "calibration": calibration.to_dict(),
            "metrics": metrics,
            **({} if trained_on is None else {"elements": [SYMBOLS[z] for z in sorted(set(trained_on))]}),
            "card": card,
        },
    )
    return CompositionalEnsemble.load(directory)


def _load_members(paths: Sequence[Path]) -> tuple[CompositionalModel, ...]:
    members = []
    for path in paths:
        network = load_checkpoint(path)[0]
        if not isinstance(network, CompositionalModel):
            raise CheckpointError(f"{card_path(path)} is not of a compositional network; predict from crystals instead")
        members.append(network)
    return tuple(members)
