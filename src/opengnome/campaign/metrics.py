"""What a round achieved, from its choices, calculations and two hulls."""

from collections.abc import Mapping, Sequence

import numpy as np

from opengnome.campaign.conversion import has_energy
from opengnome.campaign.events import Calculated, Choice
from opengnome.campaign.selection import ARMS, MODEL
from opengnome.crystals import Composition
from opengnome.hull import STABILITY_TOLERANCE, Entry, Hull

DEEP = 0.2
"""Hits further below the known hull than this are counted apart, eV/atom: a known phase is probably missing there."""


def round_metrics(
    choices: Sequence[Choice],
    calculations: Mapping[str, Calculated],
    entries: Mapping[str, Entry],
    *,
    initial_hull: Hull,
    current_hull: Hull,
) -> dict[str, float]:
    """Counts, hit rates and errors of a round.

    `entries` are those of the converged calculations of this round by candidate id; `current_hull` contains
    them. A hit against the initial hull lies on or below the hull of the known set; a hit against the current
    hull is a vertex of the hull of everything known at the end of the round. Rates divide by all calculations
    of the arm, failed ones included. The arms share one hull and one history: what any arm finds competes with the
    others at the end of the round, and is parent and training row of the next. Errors are
    predicted minus calculated formation energies, eV/atom.
    """
    metrics: dict[str, float] = {}
    for arm in ARMS:
        chosen = [c for c in choices if arm in c.arms]
        if chosen:
            arm_metrics = _arm_metrics(chosen, calculations, entries, initial_hull, current_hull)
            metrics.update({f"{arm}.{name}": value for name, value in arm_metrics.items()})
    metrics.update(_precision_by_elements([c for c in choices if MODEL in c.arms], entries, initial_hull))
    metrics["n_calculated"] = float(len(choices))
    metrics["n_failed"] = float(sum(not has_energy(calculations[c.candidate_id]) for c in choices))
    metrics["seconds_per_calculation"] = float(
        np.mean([calculations[c.candidate_id].seconds for c in choices] or [0.0])
    )
    return metrics


def is_initial_hit(choice: Choice, entry: Entry, initial_hull: Hull) -> bool:
    """Whether a calculated candidate lies on or below the hull of the known set."""
    return _depth(choice, entry, initial_hull) <= STABILITY_TOLERANCE


def _depth(choice: Choice, entry: Entry, initial_hull: Hull) -> float:
    """Distance of a calculated candidate to the hull of the known set, eV/atom; negative below it."""
    formation = initial_hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
    return formation - choice.initial_hull_energy_per_atom


def _arm_metrics(
    chosen: Sequence[Choice],
    calculations: Mapping[str, Calculated],
    entries: Mapping[str, Entry],
    initial_hull: Hull,
    current_hull: Hull,
) -> dict[str, float]:
    computed = [c for c in chosen if c.candidate_id in entries]
    predicted = [c for c in computed if np.isfinite(c.predicted_formation_energy_per_atom)]
    initial_hits = sum(is_initial_hit(c, entries[c.candidate_id], initial_hull) for c in computed)
    current_hits = sum(current_hull.energy_above_hull(entries[c.candidate_id]) <= STABILITY_TOLERANCE for c in computed)
    metrics = {
        "n_calculated": float(len(chosen)),
        "n_converged": float(len(computed)),
        "n_failed": float(sum(not has_energy(calculations[c.candidate_id]) for c in chosen)),
        "hits_initial": float(initial_hits),
        "hits_current": float(current_hits),
        "hits_initial_deep": float(sum(_depth(c, entries[c.candidate_id], initial_hull) < -DEEP for c in computed)),
        "hit_rate_initial": initial_hits / len(chosen),
        "hit_rate_current": current_hits / len(chosen),
    }
    if predicted:
        metrics.update(_error_metrics(predicted, entries, initial_hull))
    return metrics


def _error_metrics(computed: Sequence[Choice], entries: Mapping[str, Entry], hull: Hull) -> dict[str, float]:
    predicted = np.array([c.predicted_formation_energy_per_atom for c in computed])
    std = np.array([c.predicted_std for c in computed])
    calculated = np.array(
        [
            hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
            for entry in (entries[c.candidate_id] for c in computed)
        ]
    )
    error = predicted - calculated
    return {
        "mae": float(np.abs(error).mean()),
        "median_error": float(np.median(np.abs(error))),
        "bias": float(error.mean()),
        "coverage_68": float((np.abs(error) <= std).mean()),
        "coverage_95": float((np.abs(error) <= 1.96 * std).mean()),
    }


def _precision_by_elements(
    chosen: Sequence[Choice], entries: Mapping[str, Entry], initial_hull: Hull
) -> dict[str, float]:
    by_count: dict[int, list[bool]] = {}
    for choice in chosen:
        hit = choice.candidate_id in entries and is_initial_hit(choice, entries[choice.candidate_id], initial_hull)
        by_count.setdefault(Composition.from_formula(choice.reduced_formula).n_elements, []).append(hit)
    metrics = {}
    for n, hits in sorted(by_count.items()):
        metrics[f"{MODEL}.precision_{n}_elements"] = float(np.mean(hits))
        metrics[f"{MODEL}.n_{n}_elements"] = float(len(hits))
    return metrics
