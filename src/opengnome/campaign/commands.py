"""The functions behind `predict`, `hull` and `relax`: files in, a row per crystal out."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from opengnome.campaign import work
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.discover import read_state
from opengnome.campaign.execution import Ended, Unit, local_executor
from opengnome.campaign.layout import Layout
from opengnome.campaign.pool import hull_formation_energies
from opengnome.campaign.progress import Progress
from opengnome.campaign.reading import read_all
from opengnome.campaign.selection import Pool
from opengnome.campaign.stability import judge, load_hull
from opengnome.campaign.tables import OK, Row, failure
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.io import write_crystals
from opengnome.datasets import KnownSetSettings, load_known_set
from opengnome.errors import CampaignError, InvalidCrystalError, MissingReferenceError
from opengnome.hull import Hull
from opengnome.hull.references import check_references
from opengnome.models import VOLUME_SCALES, CompositionalEnsemble, Ensemble, shipped_ensemble
from opengnome.oracles import Calculation, OracleSettings, Status, make_oracle, read_calculation

INVALID, NO_PREDICTION = "invalid_crystal", "no_prediction"


def predict_rows(
    paths: Sequence[Path], *, model: Path | None = None, hull: Path | None = None, scan: bool = False
) -> list[Row]:
    """Predicted formation energies of every crystal in `paths`, in the order of reading.

    `model` is the folder of an ensemble or of a campaign; the shipped ensemble when there is none. With a hull also
    energy above it and the probability of being stable. A crystal that cannot be read, or has
    no graph, is a row with status and reason.
    """
    read = read_all(paths)
    good = [(r.id, r.crystal) for r in read if r.crystal is not None]
    rows = {r.id: failure(r.id, INVALID, r.reason) for r in read if r.crystal is None}
    if good:
        ensemble = load_ensemble(model)
        measured_against = None if hull is None else load_hull(hull)
        rows |= _predicted(good, ensemble, measured_against, scan=scan)
    return [rows[r.id] for r in read]


def predict_formula_rows(formulas: Sequence[str], *, model: Path | None = None, hull: Path | None = None) -> list[Row]:
    """Predicted formation energies of the lowest-energy crystals of compositions, a row per formula.

    `model` is the folder of a compositional ensemble; the shipped one when there is none.
    """
    rows: list[Row] = []
    good: list[tuple[int, Composition]] = []
    for index, formula in enumerate(formulas):
        try:
            good.append((index, Composition.from_formula(formula)))
            rows.append({})
        except InvalidCrystalError as error:
            rows.append(failure(formula, INVALID, str(error)))
    ensemble = CompositionalEnsemble.load(shipped_ensemble("compositional") if model is None else model)
    prediction = ensemble.predict([composition for _, composition in good])
    low, high = prediction.interval(0.9)
    measured_against = None if hull is None else load_hull(hull)
    for i, (index, composition) in enumerate(good):
        rows[index] = {
            "id": formulas[index],
            "reduced_formula": composition.reduced_formula,
            "status": OK,
            "reason": "",
            "formation_energy_per_atom": float(prediction.formation_energy_per_atom[i]),
            "formation_energy_std": float(prediction.std[i]),
            "interval_low": float(low[i]),
            "interval_high": float(high[i]),
        }
    if measured_against is not None:
        _add_distances([(rows[index], composition) for index, composition in good], measured_against)
    return rows


def hull_rows(path: Path, *, system: str | None = None) -> list[Row]:
    """Distances and products of every entry of a file or a campaign, a chemical system's only when named.

    A row of the file that is no entry is a row with status and reason. Further questions: `stability.judge`.
    """
    return judge(path, system=system).rows


def relax_rows(
    paths: Sequence[Path],
    *,
    settings: OracleSettings,
    relaxed: Path | None = None,
    keep: Path | None = None,
    workers: int = 0,
    progress: Progress,
) -> list[Row]:
    """Relax every crystal in `paths` on all cores; the relaxed ones are written to `relaxed` when given.

    Full calculations are kept in the folder `keep` when given, and a finished one is never repeated.
    """
    read = read_all(paths)
    rows = {r.id: failure(r.id, INVALID, r.reason) for r in read if r.crystal is None}
    crystals = {r.id: r.crystal for r in read if r.crystal is not None}
    results: dict[str, Crystal] = {}
    with _calculations_folder(keep) as folder:
        units = {identifier: _relax_unit(folder, crystal, settings) for identifier, crystal in crystals.items()}
        distinct = {unit.path: unit for unit in units.values()}  # the same crystal twice is one calculation
        ended_by_path: dict[Path, Ended] = {}
        run = run_with_progress(
            list(distinct.values()), lambda: local_executor(workers), progress=progress, stage="relaxing"
        )
        for ended in run:
            ended_by_path[ended.unit.path] = ended
        elements = _elemental_hull(make_oracle(settings).identity.level)
        for identifier, unit in units.items():
            ended = ended_by_path[unit.path]
            rows[identifier] = _relaxed_row(identifier, crystals[identifier], ended, results, elements)
    if relaxed is not None and results:
        ids = [r.id for r in read if r.id in results]
        write_crystals(relaxed, CrystalTable.from_crystals([results[i] for i in ids], ids))
    return [rows[r.id] for r in read]


def load_ensemble(path: Path | None = None) -> Ensemble:
    """An ensemble from its directory, the latest one of a campaign, or the shipped one when there is no path."""
    if path is None:
        return Ensemble.load(shipped_ensemble())
    if Layout(path).journal.is_file():
        ready = [r.ensemble for _, r in sorted(read_state(path).rounds.items()) if r.ensemble is not None]
        if not ready:
            raise CampaignError(f"the campaign in {path} has no trained ensemble yet")
        return Ensemble.load(path / ready[-1].path)
    return Ensemble.load(path)


def _predicted(
    crystals: Sequence[tuple[str, Crystal]], ensemble: Ensemble, hull: Hull | None, *, scan: bool
) -> dict[str, Row]:
    ids = [identifier for identifier, _ in crystals]
    table = CrystalTable.from_crystals([crystal for _, crystal in crystals], ids)
    prediction = ensemble.predict(table, volume_scales=VOLUME_SCALES if scan else (1.0,))
    low, high = prediction.interval(0.9)
    rows = {}
    for i, (identifier, crystal) in enumerate(crystals):
        if prediction.reasons[i]:
            rows[identifier] = failure(identifier, NO_PREDICTION, prediction.reasons[i])
            continue
        rows[identifier] = {
            "id": identifier,
            "reduced_formula": crystal.reduced_formula,
            "status": OK,
            "reason": "",
            "formation_energy_per_atom": float(prediction.formation_energy_per_atom[i]),
            "formation_energy_std": float(prediction.std[i]),
            "interval_low": float(low[i]),
            "interval_high": float(high[i]),
            "volume_scale": float(prediction.volume_scale[i]),
            "warning": "; ".join(_warnings(ensemble, crystal, float(prediction.spread[i]))),
        }
    if hull is not None:
        judged = zip(crystals, prediction.reasons, strict=True)
        _add_distances([(rows[identifier], c.composition) for (identifier, c), reason in judged if not reason], hull)
    return rows


def _warnings(ensemble: Ensemble, crystal: Crystal, spread: float) -> list[str]:
    return [] if ensemble.domain is None else ensemble.domain.warnings(crystal, spread)


def _add_distances(predicted: Sequence[tuple[Row, Composition]], hull: Hull) -> None:
    """Distance and probability in every row that the hull can answer, all at once; the reason in the others."""
    answerable: list[tuple[Row, Composition]] = []
    for row, composition in predicted:
        try:
            check_references(composition.atomic_numbers, hull.elemental_references, level=hull.level)
            answerable.append((row, composition))
        except MissingReferenceError as error:
            row |= {"status": "no_hull", "reason": str(error)}
    rows = [row for row, _ in answerable]
    on_hull = hull_formation_energies(hull, [composition for _, composition in answerable])
    distances = np.array([row["formation_energy_per_atom"] for row in rows], dtype=float) - on_hull
    stds = np.array([row["formation_energy_std"] for row in rows], dtype=float)
    pool = Pool([row["id"] for row in rows], [row["reduced_formula"] for row in rows], distances, stds)
    for row, distance, probability in zip(rows, distances.tolist(), pool.probability_stable.tolist(), strict=True):
        row |= {"energy_above_hull": distance, "probability_stable": probability}


@contextmanager
def _calculations_folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="opengnome-relax-") as folder:
        yield Path(folder)


def _relax_unit(folder: Path, crystal: Crystal, settings: OracleSettings) -> Unit:
    path = folder / f"{work.calculation_key(crystal, settings)}.parquet"
    return Unit(path, work.calculate, {"path": path, "crystal": crystal, "settings": settings})


def _elemental_hull(level: str) -> Hull | None:
    """The embedded elements as a hull, for formation energies; None when the oracle is of another level."""
    known = load_known_set(KnownSetSettings())
    return Hull([e for e in known.entries if e.composition.n_elements == 1]) if known.level == level else None


def _relaxed_row(
    identifier: str, crystal: Crystal, ended: Ended, results: dict[str, Crystal], elements: Hull | None
) -> Row:
    if ended.lost:
        return failure(identifier, Status.FAILED.value, ended.lost) | {"reduced_formula": crystal.reduced_formula}
    calculation = read_calculation(ended.unit.path)
    if calculation.crystal is not None:
        results[identifier] = calculation.crystal
    return {
        "id": identifier,
        "reduced_formula": calculation.initial.reduced_formula,
        "status": OK if calculation.status == Status.CONVERGED else calculation.status.value,
        "reason": calculation.reason,
        "energy_per_atom": calculation.energy_per_atom,
        "formation_energy_per_atom": _formation_energy(calculation, elements),
        "n_steps": calculation.n_steps,
        "fmax": calculation.fmax,
        "seconds": calculation.seconds,
    }


def _formation_energy(calculation: Calculation, elements: Hull | None) -> float | None:
    if elements is None or calculation.energy_per_atom is None:
        return None
    return elements.formation_energy_per_atom(calculation.initial.composition, calculation.energy_per_atom)
