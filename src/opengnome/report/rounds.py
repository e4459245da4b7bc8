"""Rounds as numbers, from the state alone, and as the rows of the table of rounds."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from opengnome.campaign.conversion import has_energy
from opengnome.campaign.events import Calculated
from opengnome.campaign.metrics import DEEP
from opengnome.campaign.selection import (
    ARMS,
    COMPOSITIONAL,
    MODEL,
    RANDOM_COMPOSITIONS,
    RANDOM_FILTERED,
    RANDOM_UNFILTERED,
)
from opengnome.campaign.shards import PARENTS_PREFIX
from opengnome.campaign.state import CampaignState, RoundState
from opengnome.report.numbers import MISSING, Rate, count, fixed, listed, mev, percent

ARM_NAMES = {
    MODEL: "Model's choice",
    RANDOM_FILTERED: "Random from the filtered pool",
    RANDOM_UNFILTERED: "Random from all candidates",
    COMPOSITIONAL: "Compositions: model's choice",
    RANDOM_COMPOSITIONS: "Compositions: random from the plausible ones",
}
"""How the arms are called on the page."""

_PROPOSED = "proposed"
_DEEP_LABEL = f"of these hits more than {1e3 * DEEP:.0f} meV/atom below it"
_AFTER_GENERATION = ("kept", "generated", "predicted", "within_window", "lowest_per_composition", "chosen")


@dataclass(frozen=True)
class ArmSummary:
    """What one arm of a closed round achieved."""

    initial: Rate
    """Hits against the hull of the known set."""
    current: Rate
    """Hits against the hull at the end of the round."""
    metrics: Mapping[str, float]
    """`mae`, `bias`, `coverage_95` ... of predicted against calculated formation energies; eV/atom."""


@dataclass(frozen=True)
class RoundSummary:
    """Everything the tables say about one round; what has not happened yet is None or empty."""

    number: int
    closed: bool
    n_parents: int | None
    n_training: int | None
    held_out_mae: float | None
    """eV/atom."""
    counts: Mapping[str, int]
    """Candidates proposed, rejected by reason, and left after each filter."""
    n_chosen: int | None
    n_calculated: int
    failures: Mapping[str, int]
    """Calculations without an energy, by status."""
    n_relaxations: int
    """Those of the searches each for itself."""
    seconds_per_relaxation: float | None
    arms: Mapping[str, ArmSummary] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return sum(self.failures.values())

    @property
    def rejections(self) -> dict[str, int]:
        """Candidates rejected by the generator, by reason."""
        known = {_PROPOSED, *_AFTER_GENERATION, *(f"chosen_{arm}" for arm in ARMS)}
        return {n: c for n, c in self.counts.items() if n not in known and not n.startswith(PARENTS_PREFIX)}

    @property
    def unusable_parents(self) -> dict[str, int]:
        """Parents that give no candidates, by reason."""
        about_parents = {
            name.removeprefix(PARENTS_PREFIX): n for name, n in self.counts.items() if name.startswith(PARENTS_PREFIX)
        }
        return {name: n for name, n in about_parents.items() if name not in ("parents", "used")}


class Row(NamedTuple):
    """A row of the table of rounds: one quantity, a cell per round."""

    group: str
    label: str
    cells: tuple[str, ...]


def summarise(state: CampaignState) -> list[RoundSummary]:
    """All rounds that have begun, in order."""
    return [_summary(number, state.rounds[number]) for number in sorted(state.rounds)]


def failures_by_status(calculations: Sequence[Calculated]) -> dict[str, int]:
    """Calculations without an energy, counted by how they ended."""
    return dict(Counter(c.status for c in calculations if not has_energy(c)))


def round_rows(summaries: Sequence[RoundSummary], *, window: float) -> list[Row]:
    """The table of rounds without the reasons of rejection; `window` in eV/atom."""
    rows = _candidate_rows(summaries, window) + _model_rows(summaries) + _calculation_rows(summaries)
    for arm in ARMS:
        if any(arm in s.arms for s in summaries):
            rows += _arm_rows(summaries, arm)
    return rows


def rejection_rows(summaries: Sequence[RoundSummary], *, window: float) -> list[Row]:
    """Candidates that were dropped, by reason, in the order of the filters; `window` in eV/atom."""
    reasons = dict.fromkeys(name for s in summaries for name in s.rejections)
    rows = [Row("Generation", name, tuple(_of(s, name, empty=0) for s in summaries)) for name in reasons]
    later = (
        ("not judged (too dense, an atom without neighbours, no minimum in the scan)", "generated", "predicted"),
        (f"predicted more than {1e3 * window:.0f} meV/atom above the hull", "predicted", "within_window"),
        ("not the lowest of its composition", "within_window", "lowest_per_composition"),
    )
    return rows + [
        Row("Selection", label, tuple(_lost(s, before, after) for s in summaries)) for label, before, after in later
    ]


def _summary(number: int, current: RoundState) -> RoundSummary:
    opened, selection, closed = current.opened, current.selection, current.closed
    calculations, searches = list(current.calculations.values()), list(current.searches.values())
    # a search is one calculation, whose seconds are those of all its relaxations
    n_relaxations = len(calculations) - len(searches) + sum(s.n_starts for s in searches)
    return RoundSummary(
        number=number,
        closed=closed is not None,
        n_parents=opened.n_parents if opened else None,
        n_training=opened.n_training if opened else None,
        held_out_mae=current.ensemble.metrics.get("mae") if current.ensemble else None,
        counts=selection.counts if selection else _shard_counts(current),
        n_chosen=len(current.choices) if selection else None,
        n_calculated=len(calculations),
        failures=failures_by_status(calculations),
        n_relaxations=n_relaxations,
        seconds_per_relaxation=sum(c.seconds for c in calculations) / n_relaxations if n_relaxations else None,
        arms=_arms(closed.metrics) if closed else {},
    )


def _shard_counts(current: RoundState) -> dict[str, int]:
    total: Counter[str] = Counter()
    for _, shard in sorted(current.shards.items()):
        total.update(shard.counts)
    return dict(total)


def _arms(metrics: Mapping[str, float]) -> dict[str, ArmSummary]:
    arms = {}
    for arm in ARMS:
        own = {name.removeprefix(f"{arm}."): v for name, v in metrics.items() if name.startswith(f"{arm}.")}
        if "n_calculated" in own:
            total = int(own["n_calculated"])
            arms[arm] = ArmSummary(
                initial=Rate(int(own["hits_initial"]), total),
                current=Rate(int(own["hits_current"]), total),
                metrics=own,
            )
    return arms


def _row(group: str, label: str, summaries: Sequence[RoundSummary], cell: Callable[[RoundSummary], str]) -> Row:
    return Row(group, label, tuple(cell(s) for s in summaries))


def _of(summary: RoundSummary, name: str, *, empty: int | None = None) -> str:
    """A count; `empty` is what a missing one means once anything has been counted."""
    return count(summary.counts.get(name, empty if summary.counts else None))


def _lost(summary: RoundSummary, before: str, after: str) -> str:
    counts = summary.counts
    return count(counts[before] - counts[after]) if before in counts and after in counts else MISSING


def _candidate_rows(summaries: Sequence[RoundSummary], window: float) -> list[Row]:
    named = (
        ("proposed", lambda s: _of(s, _PROPOSED)),
        ("generated (left after the generator's filters)", _generated),
        ("with a predicted energy", lambda s: _of(s, "predicted")),
        (f"within {1e3 * window:.0f} meV/atom of the hull", lambda s: _of(s, "within_window")),
        ("lowest of its composition", lambda s: _of(s, "lowest_per_composition")),
        ("chosen for calculation", lambda s: count(s.n_chosen)),
    )
    parents = _row("Candidates", "parents", summaries, lambda s: count(s.n_parents))
    reasons = dict.fromkeys(reason for s in summaries for reason in s.unusable_parents)
    unusable = [_row("Candidates", f"parents left out: {r}", summaries, _parents_left_out(r)) for r in reasons]
    return [parents, *unusable, *(_row("Candidates", label, summaries, cell) for label, cell in named)]


def _parents_left_out(reason: str) -> Callable[[RoundSummary], str]:
    return lambda summary: count(summary.unusable_parents.get(reason))


def _generated(summary: RoundSummary) -> str:
    return _of(summary, "generated" if "generated" in summary.counts else "kept")


def _model_rows(summaries: Sequence[RoundSummary]) -> list[Row]:
    return [
        _row("Model", "training crystals", summaries, lambda s: count(s.n_training)),
        _row("Model", "held-out MAE, meV/atom", summaries, lambda s: mev(s.held_out_mae)),
    ]


def _calculation_rows(summaries: Sequence[RoundSummary]) -> list[Row]:
    group = "Calculations"
    return [
        _row(group, "calculated", summaries, _calculated),
        _row(group, "failed", summaries, _failed),
        _row(group, "relaxations, those of searches each for itself", summaries, lambda s: count(s.n_relaxations)),
        _row(group, "seconds per relaxation", summaries, lambda s: fixed(s.seconds_per_relaxation, 1)),
    ]


def _calculated(summary: RoundSummary) -> str:
    if summary.n_chosen is None:
        return MISSING
    if summary.n_calculated < summary.n_chosen:
        return f"{summary.n_calculated:,} of {summary.n_chosen:,} so far"
    return count(summary.n_calculated)


def _failed(summary: RoundSummary) -> str:
    if not summary.n_calculated:
        return MISSING
    return f"{summary.n_failed:,} ({listed(dict(summary.failures))})" if summary.failures else "0"


def _deep_hits(arm: ArmSummary) -> str:
    """Hits so deep that a known phase is probably missing from the known set."""
    deep = arm.metrics.get("hits_initial_deep")
    return MISSING if deep is None else count(int(deep))


def _arm_rows(summaries: Sequence[RoundSummary], arm: str) -> list[Row]:
    def cell(of: Callable[[ArmSummary], str]) -> Callable[[RoundSummary], str]:
        return lambda s: of(s.arms[arm]) if arm in s.arms else MISSING

    named: tuple[tuple[str, Callable[[ArmSummary], str]], ...] = (
        ("hit rate against the initial hull", lambda a: str(a.initial)),
        (_DEEP_LABEL, _deep_hits),
        ("hit rate against the current hull", lambda a: str(a.current)),
        ("MAE of the prediction, meV/atom", lambda a: mev(a.metrics.get("mae"))),
        ("bias of the prediction, meV/atom", lambda a: mev(a.metrics.get("bias"))),
        ("calculated within 1.96 standard deviations", lambda a: percent(a.metrics.get("coverage_95"))),
    )
    rows = [_row(ARM_NAMES[arm], label, summaries, cell(of)) for label, of in named]
    # no round of an unfinished campaign, or of one from before they were counted, has deep hits: no row of dashes
    return [row for row in rows if row.label != _DEEP_LABEL or set(row.cells) != {MISSING}]
