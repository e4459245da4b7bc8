"""How good a strategy was: hit curves, enrichment over random, area under the curve, with intervals.

A pool of N crystals holds K targets (crystals on the hull of the whole table, or within some distance of it). Of the
first n that a strategy had calculated, h(n) were targets.

    enrichment(n) = h(n) / (n K / N)                          random choice has 1, perfect choice min(1, K/n) N / K
    area          = sum(h - h_random) / sum(h_perfect - h_random)        random choice has 0, perfect choice 1

with h_random = n K / N and h_perfect = min(n, K), sums over n up to the budget. The expectation of random choice is
exact, so an enrichment has the noise of its strategy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, t

from opengnome.campaign.retrospective import RetrospectiveRound, read_campaign
from opengnome.campaign.retrospective_settings import RetrospectiveSettings
from opengnome.campaign.retrospective_table import RetrospectiveTable
from opengnome.errors import CampaignError
from opengnome.hull import STABILITY_TOLERANCE

TARGETS: Mapping[str, float] = {
    "stable": STABILITY_TOLERANCE,
    "within 25 meV/atom": 0.025,
    "within 50 meV/atom": 0.05,
}
"""What counts as found: at most this far above the hull of the whole table, eV/atom."""
BUDGETS = (1000,)
"""Calculations at which the enrichment is told, beside the budget."""
STUDENT, RANGE, BINOMIAL = "Student's t over repeats", "range of two repeats", "binomial"
"""What an interval is."""
_LEVEL = 0.95
_CURVE_POINTS = 100


@dataclass(frozen=True, eq=False)
class HitCurve:
    """The targets that one campaign found, against what there was to find."""

    hits: np.ndarray
    """Whether each calculation, in the order of choice, was a target; shape (n,), bool."""
    n_pool: int
    """N, crystals to choose from."""
    n_targets: int
    """K, targets among them."""

    def found(self, n: int) -> int:
        """h(n)."""
        return int(self.hits[:n].sum())

    def enrichment(self, n: int) -> float:
        """Targets among the first `n` calculations, over those of a random choice of as many."""
        return self.found(n) * self.n_pool / (n * self.n_targets)

    @property
    def area(self) -> float:
        """Area between the curve and that of random choice, as a share of what perfect choice has."""
        n = np.arange(1, len(self.hits) + 1)
        random = n * self.n_targets / self.n_pool
        perfect = np.minimum(n, self.n_targets)
        return float((np.cumsum(self.hits) - random).sum() / (perfect - random).sum())


def hit_curve(
    table: RetrospectiveTable, start: np.ndarray, rounds: Sequence[RetrospectiveRound], *, within: float
) -> HitCurve:
    """The curve of a campaign; a target is at most `within` eV/atom above the hull of the whole table.

    `start` are the rows known at the start. A calculation without an answer is no hit.
    """
    in_pool = table.usable.copy()
    in_pool[start] = False
    is_target = table.energy_above_hull <= within
    hits = [
        energy is not None and bool(is_target[table.row_of_id[identifier]])
        for record in rounds
        for identifier, energy in zip(record.ids, record.energies, strict=True)
    ]
    return HitCurve(np.array(hits, dtype=bool), int(in_pool.sum()), int((is_target & in_pool).sum()))


def binomial_interval(found: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, found of n (Wilson, doi:10.1080/01621459.1927.10502953)."""
    interval = binomtest(found, n).proportion_ci(_LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def repeats_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of a mean over repeats, by Student's t; the range of two values; None for one.

    Not the binomial error of all repeats together: they choose from one table, and largely the same crystals.
    """
    if len(values) < 2:
        return None
    if len(values) == 2:
        return min(values), max(values)
    mean = float(np.mean(values))
    half = float(t.ppf(0.5 + 0.5 * _LEVEL, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean - half, mean + half


def summarise(
    table: RetrospectiveTable,
    settings: RetrospectiveSettings,
    output: Path,
    *,
    reference: str,
    n_rounds: int | None = None,
) -> dict[str, Any]:
    """All finished campaigns in `output` as one JSON object; `reference` is the strategy others are compared with.

    A comparison is paired: strategies of one repeat share their start, so the difference of what they found has less
    noise than either. With `n_rounds` campaigns are judged by their first rounds only, and may be unfinished. Campaigns
    of fewer rounds are counted and left out. What a strategy found is told at the `budgets` that all its repeats
    reached. Raises `CampaignError` when none is left.
    """
    n_rounds = settings.n_rounds if n_rounds is None else n_rounds
    starts: dict[int, np.ndarray] = {}
    campaigns: dict[str, dict[int, list[RetrospectiveRound]]] = {s.name: {} for s in settings.strategies}
    unfinished = 0
    for repeat, folder in _repeats(output):
        starts[repeat] = table.start_rows(settings, repeat)
        for name, of_repeat in campaigns.items():
            rounds = read_campaign(folder / name)
            if len(rounds) >= n_rounds:
                of_repeat[repeat] = rounds[:n_rounds]
            elif rounds:
                unfinished += 1
    if not any(campaigns.values()):
        raise CampaignError(
            f"{output} has no campaign of {n_rounds} rounds yet; run the strategies, or judge fewer rounds"
        )
    whole = sum(settings.budgets[:n_rounds])
    budgets = [*(n for n in BUDGETS if n < whole), whole]
    any_start = next(iter(starts.values()))
    pool = hit_curve(table, any_start, [], within=STABILITY_TOLERANCE)
    strategies = {
        name: _strategy(table, starts, of_repeat, campaigns.get(reference, {}), budgets)
        for name, of_repeat in campaigns.items()
        if of_repeat
    }
    return {
        "table": table.path.name,
        "table_digest": table.known.digest,
        "conditions": settings.model_dump(mode="json"),
        "n_crystals": len(table),
        "n_left_out": len(table.left_out),
        "n_elemental_crystals": int(table.is_element.sum()),
        "n_pool": pool.n_pool,
        "share_of_targets": {
            target: float(np.mean([_base_rate(table, start, within) for start in starts.values()]))
            for target, within in TARGETS.items()
        },
        "share_of_targets_one_per_composition": {
            target: float(np.mean([_share_per_composition(table, start, within) for start in starts.values()]))
            for target, within in TARGETS.items()
        },
        "reference": reference,
        "rounds_judged": n_rounds,
        "budgets": budgets,
        "unfinished_campaigns": unfinished,
        "strategies": strategies,
    }


def _repeats(output: Path) -> list[tuple[int, Path]]:
    return [(int(folder.name.removeprefix("repeat-")), folder) for folder in sorted(output.glob("repeat-*"))]


def _base_rate(table: RetrospectiveTable, start: np.ndarray, within: float) -> float:
    curve = hit_curve(table, start, [], within=within)
    return curve.n_targets / curve.n_pool


def _share_per_composition(table: RetrospectiveTable, start: np.ndarray, within: float) -> float:
    """Expected share of targets in a draw of compositions, one crystal of each: what `random_unfiltered` draws."""
    in_pool = table.usable.copy()
    in_pool[start] = False
    _, composition_of = np.unique(np.array(table.table.reduced_formulas)[in_pool], return_inverse=True)
    of_composition = np.bincount(composition_of, weights=table.energy_above_hull[in_pool] <= within)
    return float((of_composition / np.bincount(composition_of)).mean())


def _strategy(
    table: RetrospectiveTable,
    starts: Mapping[int, np.ndarray],
    campaigns: Mapping[int, list[RetrospectiveRound]],
    reference: Mapping[int, list[RetrospectiveRound]],
    budgets: Sequence[int],
) -> dict[str, Any]:
    repeats = sorted(campaigns)
    result: dict[str, Any] = {"repeats": repeats, "targets": {}}
    for target, within in TARGETS.items():
        curves = {r: hit_curve(table, starts[r], campaigns[r], within=within) for r in repeats}
        paired = {r: hit_curve(table, starts[r], reference[r], within=within) for r in repeats if r in reference}
        result["targets"][target] = _target(curves, paired, budgets)
    stable = table.energy_above_hull <= STABILITY_TOLERANCE
    result["systems_with_a_find"] = [_systems_found(table, campaigns[r], stable) for r in repeats]
    result["rounds"] = [
        _round(table, [campaigns[r][number] for r in repeats]) for number in range(len(campaigns[repeats[0]]))
    ]
    return result


def _target(
    curves: Mapping[int, HitCurve], reference: Mapping[int, HitCurve], budgets: Sequence[int]
) -> dict[str, Any]:
    reached = min(len(curve.hits) for curve in curves.values())
    points = np.unique(np.linspace(1, reached, min(reached, _CURVE_POINTS)).round().astype(int))
    found = np.array([np.cumsum(curve.hits)[points - 1] for curve in curves.values()])
    areas = [curve.area for curve in curves.values()]
    return {
        "area": {"mean": float(np.mean(areas)), "interval": repeats_interval(areas), "values": areas},
        "at": {str(n): _at(curves, reference, n) for n in budgets if n <= reached},
        "curve": {"calculations": points.tolist(), "found": found.mean(axis=0).tolist()},
    }


def _at(curves: Mapping[int, HitCurve], reference: Mapping[int, HitCurve], n: int) -> dict[str, Any]:
    found = [curve.found(n) for curve in curves.values()]
    enrichments = [curve.enrichment(n) for curve in curves.values()]
    interval = repeats_interval(enrichments)
    if interval is None:
        (curve,) = curves.values()
        low, high = binomial_interval(curve.found(n), n)
        interval = low * curve.n_pool / curve.n_targets, high * curve.n_pool / curve.n_targets
    compared = {r: other for r, other in reference.items() if n <= len(other.hits)}
    differences = [float(curves[r].found(n) - other.found(n)) for r, other in compared.items()]
    return {
        "found": found,
        "share": sum(found) / (n * len(found)),
        "enrichment": float(np.mean(enrichments)),
        "interval": interval,
        "interval_kind": {1: BINOMIAL, 2: RANGE}.get(len(found), STUDENT),
        "more_than_reference": float(np.mean(differences)) if differences else None,
        "more_than_reference_interval": repeats_interval(differences),
    }


def _systems_found(table: RetrospectiveTable, rounds: Sequence[RetrospectiveRound], stable: np.ndarray) -> int:
    """Chemical systems in which a stable crystal was found."""
    rows = np.array([table.row_of_id[identifier] for record in rounds for identifier in record.ids], dtype=int)
    return len({table.compositions[row].atomic_numbers for row in rows[stable[rows]].tolist()})


def _round(table: RetrospectiveTable, records: Sequence[RetrospectiveRound]) -> dict[str, float]:
    """Means over the repeats of one round: shares of its calculations, errors of its model in eV/atom."""
    rows = [[table.row_of_id[identifier] for identifier in record.ids] for record in records]
    shares = {
        f"share {target}": float(np.mean(np.concatenate([table.energy_above_hull[r] <= within for r in rows])))
        for target, within in TARGETS.items()
    }
    answers = np.array([e if e is not None else np.nan for record in records for e in record.energies], dtype=float)
    with np.errstate(invalid="ignore"):
        for name, hulls in (
            ("share below the hull at the start of the round", [r.hull_energies for r in records]),
            ("share below the initial hull", [r.initial_hull_energies for r in records]),
        ):
            shares[name] = float((answers - np.concatenate(hulls) <= STABILITY_TOLERANCE).mean())
    names = sorted(set.intersection(*(set(record.metrics) for record in records)))
    predicted = np.array([p if p is not None else np.nan for record in records for p in record.predicted], dtype=float)
    errors = predicted - answers
    errors = errors[np.isfinite(errors)]
    chosen = {"chosen_mae": float(np.abs(errors).mean()), "chosen_bias": float(errors.mean())} if len(errors) else {}
    return shares | chosen | {name: float(np.mean([record.metrics[name] for record in records])) for name in names}
