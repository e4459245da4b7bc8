"""Predictions set against calculations, and what the ensembles say about themselves."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengnome.campaign import CampaignResults
from opengnome.campaign.events import EnsembleAssembled
from opengnome.campaign.layout import Layout
from opengnome.campaign.selection import COMPOSITIONAL, RANDOM_COMPOSITIONS
from opengnome.models import shipped_ensemble
from opengnome.models.calibration import LEVELS, Calibration
from opengnome.models.ensemble import MANIFEST
from opengnome.report.numbers import Rate


@dataclass(frozen=True)
class Comparison:
    """One candidate, predicted and calculated; eV/atom."""

    round: int
    arms: tuple[str, ...]
    predicted: float
    """Formation energy."""
    std: float
    """Calibrated standard deviation of the prediction."""
    calculated: float
    """Formation energy at the level of the known set."""
    hull_energy: float
    """Formation energy of the hull at the composition, at the start of the round."""

    @property
    def error(self) -> float:
        """Predicted minus calculated; the same for formation and decomposition energy."""
        return self.predicted - self.calculated


@dataclass(frozen=True)
class ModelCard:
    """An ensemble as it judged itself when it was assembled."""

    round: int
    digest: str
    judged_on: str
    n: int | None
    mae: float | None
    """eV/atom."""
    median_error: float | None
    coverage: dict[float, float]
    """Share of held-out errors inside the interval, by nominal level."""
    calibration: Calibration | None
    compositional_calibration: Calibration | None
    """That of the networks of the second pipeline, where it ran."""
    warnings: tuple[str, ...]


def comparisons(results: CampaignResults) -> list[Comparison]:
    """All candidates with a finite prediction and a converged calculation, in the order of round and id."""
    hull = results.knowledge.initial_hull
    found = []
    for calculated in results.chosen_calculations:
        entry = results.entries.get(calculated.crystal_id)
        choice = results.choice_of(calculated)
        if entry is None or not math.isfinite(choice.predicted_formation_energy_per_atom + choice.predicted_std):
            continue
        found.append(
            Comparison(
                round=calculated.round,
                arms=choice.arms,
                predicted=choice.predicted_formation_energy_per_atom,
                std=choice.predicted_std,
                calculated=hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom),
                hull_energy=choice.hull_energy_per_atom,
            )
        )
    return found


def model_cards(results: CampaignResults) -> list[ModelCard]:
    """The ensembles of all rounds, in order."""
    rounds = sorted(results.state.rounds.items())
    return [_card(results, number, r.ensemble) for number, r in rounds if r.ensemble is not None]


def calculated_coverage(compared: Sequence[Comparison], cards: Sequence[ModelCard], *, arm: str) -> dict[float, Rate]:
    """How many calculated energies of an arm lie inside the predicted interval, by nominal level."""
    structural = arm not in (COMPOSITIONAL, RANDOM_COMPOSITIONS)
    calibrations = {
        card.round: (card.calibration if structural else card.compositional_calibration) or Calibration(0.0, 1.0)
        for card in cards
    }
    own = [c for c in compared if arm in c.arms and c.round in calibrations]
    if not own:
        return {}
    ratios = np.array([abs(c.error) / max(c.std, 1e-12) for c in own])
    return {
        level: Rate(int((ratios <= np.array([calibrations[c.round].factor(level) for c in own])).sum()), len(own))
        for level in LEVELS
    }


def _card(results: CampaignResults, number: int, ensemble: EnsembleAssembled) -> ModelCard:
    manifest = _manifest(results, ensemble)
    metrics = {**ensemble.metrics, **manifest.get("metrics", {})}
    calibration = manifest.get("calibration")
    return ModelCard(
        round=number,
        digest=ensemble.digest,
        judged_on=str(metrics.get("judged_on", "held-out crystals")),
        n=metrics.get("n"),
        mae=metrics.get("mae"),
        median_error=metrics.get("median_absolute_error"),
        coverage={float(level): share for level, share in metrics.get("coverage", {}).items()},
        calibration=Calibration.from_dict(calibration) if calibration else None,
        compositional_calibration=_compositional_calibration(results, number),
        warnings=tuple(metrics.get("warnings", ())),
    )


def _compositional_calibration(results: CampaignResults, number: int) -> Calibration | None:
    """Of the round's compositional ensemble; the shipped one served where the round had too few rows for its own."""
    if results.state.round(number).compositions is None:
        return None
    layout = Layout(results.root)
    own = layout.compositional_ensemble(number) / MANIFEST
    if not own.is_file() and layout.compositional(number).is_dir():  # somebody removed the models to save space
        return None
    path = own if own.is_file() else shipped_ensemble("compositional") / MANIFEST
    return Calibration.from_dict(json.loads(path.read_text())["calibration"])


def _manifest(results: CampaignResults, ensemble: EnsembleAssembled) -> dict:
    """The ensemble's own record; empty when somebody removed the models to save space."""
    path = results.root / ensemble.path / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else {}
