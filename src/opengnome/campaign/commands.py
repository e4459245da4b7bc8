"""The functions behind `predict` and `hull`: files in, a row per crystal out. That of `relax` is in `relaxing`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from opengnome.campaign.discover import read_state
from opengnome.campaign.judging import hull_formation_energies
from opengnome.campaign.layout import Layout
from opengnome.campaign.reading import read_all
from opengnome.campaign.stability import judge, load_hull
from opengnome.campaign.tables import OK, Row, failure
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.errors import CampaignError, InvalidCrystalError, MissingReferenceError
from opengnome.hull import Hull
from opengnome.hull.references import check_references
from opengnome.models import VOLUME_SCALES, CompositionalEnsemble, Ensemble, Prediction, shipped_ensemble
from opengnome.models.calibration import Calibration
from opengnome.models.manifest import MANIFEST

INVALID, NO_PREDICTION = "invalid_crystal", "no_prediction"


def predict_rows(
    paths: Sequence[Path],
    *,
    model: Path | None = None,
    hull: Path | None = None,
    scan: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Predicted formation energies of every crystal in `paths`, in the order of reading.

    `model` is the folder of an ensemble or of a campaign; the shipped ensemble when there is none. With a hull also
    energy above it and the probability of being stable. A crystal that cannot be read, or has
    no graph, is a row with status and reason. `tell` is told of rows of the hull's file that are no entries.
    """
    read = read_all(paths)
    good = [(r.id, r.crystal) for r in read if r.crystal is not None]
    rows = {r.id: failure(r.id, INVALID, r.reason) for r in read if r.crystal is None}
    if good:
        ensemble = load_ensemble(model)
        measured_against = None if hull is None else load_hull(hull, tell=tell)
        rows |= _predicted(good, ensemble, measured_against, scan=scan)
    return [rows[r.id] for r in read]


def predict_formula_rows(
    formulas: Sequence[str],
    *,
    model: Path | None = None,
    hull: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Predicted formation energies of the lowest-energy crystals of compositions, a row per formula.

    `model` is the folder of a compositional ensemble or a campaign; the shipped one when there is none. `tell` as in
    `predict_rows`.
    """
    rows: list[Row] = []
    good: list[tuple[int, Composition]] = []
    for index, formula in enumerate(formulas):
        try:
            good.append((index, Composition.from_formula(formula)))
            rows.append({})
        except InvalidCrystalError as error:
            rows.append(failure(formula, INVALID, str(error)))
    ensemble = load_compositional_ensemble(model)
    prediction = ensemble.predict([composition for _, composition in good])
    low, high = prediction.interval(0.9)
    measured_against = None if hull is None else load_hull(hull, tell=tell)
    for i, (index, composition) in enumerate(good):
        if prediction.reasons[i]:
            rows[index] = failure(formulas[index], NO_PREDICTION, prediction.reasons[i])
            continue
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
        judged = zip(good, prediction.reasons, strict=True)
        answered = [(rows[index], c) for (index, c), reason in judged if not reason]
        _add_distances(answered, measured_against, prediction.calibration)
    return rows


def hull_rows(path: Path, *, system: str | None = None) -> list[Row]:
    """Distances and products of every entry of a file or a campaign, a chemical system's only when named.

    A row of the file that is no entry is a row with status and reason. Further questions: `stability.judge`.
    """
    return judge(path, system=system).rows


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


def load_compositional_ensemble(path: Path | None = None) -> CompositionalEnsemble:
    """A compositional ensemble from its directory, the latest of a campaign, or the shipped one without a path."""
    if path is None:
        return CompositionalEnsemble.load(shipped_ensemble("compositional"))
    layout = Layout(path)
    if not layout.journal.is_file():
        return CompositionalEnsemble.load(path)
    proposed = [n for n, r in sorted(read_state(path).rounds.items()) if r.compositions is not None]
    trained = [n for n in proposed if (layout.compositional_ensemble(n) / MANIFEST).is_file()]
    if not trained:
        raise CampaignError(
            f"the campaign in {path} has no compositional ensemble of its own; leave it out to use the shipped one"
        )
    return CompositionalEnsemble.load(layout.compositional_ensemble(trained[-1]))


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
            "warning": "; ".join(_warnings(ensemble, crystal, prediction, i)),
        }
    if hull is not None:
        judged = zip(crystals, prediction.reasons, strict=True)
        answered = [(rows[identifier], c.composition) for (identifier, c), reason in judged if not reason]
        _add_distances(answered, hull, prediction.calibration)
    return rows


def _warnings(ensemble: Ensemble, crystal: Crystal, prediction: Prediction, i: int) -> list[str]:
    warnings = [] if ensemble.domain is None else ensemble.domain.warnings(crystal, float(prediction.spread[i]))
    if prediction.isolated[i]:
        cutoff = ensemble.members[0].settings.cutoff
        warnings.append(f"an atom has no neighbour within {cutoff:g} A, the networks' cutoff: the energy is worthless")
    return warnings


def _add_distances(predicted: Sequence[tuple[Row, Composition]], hull: Hull, calibration: Calibration) -> None:
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
    probabilities = calibration.probability_below(distances, stds)
    for row, distance, probability in zip(rows, distances.tolist(), probabilities.tolist(), strict=True):
        row |= {"energy_above_hull": distance, "probability_stable": probability}
