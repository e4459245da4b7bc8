"""The state of a campaign as a fold over its events, and what is to be done next. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TypeVar

from opengnome.campaign.actions import (
    Action,
    Align,
    AssembleEnsemble,
    Calculate,
    CloseRound,
    OpenRound,
    ProposeCompositions,
    ScreenShard,
    SearchComposition,
    Select,
    Start,
    TrainMember,
)
from opengnome.campaign.events import (
    Aligned,
    Calculated,
    CampaignStarted,
    Choice,
    CompositionsProposed,
    EnsembleAssembled,
    Event,
    MemberTrained,
    RoundClosed,
    RoundOpened,
    Searched,
    Selected,
    ShardScreened,
)
from opengnome.campaign.settings import CampaignSettings

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class RoundState:
    """What has happened in one round."""

    opened: RoundOpened | None = None
    members: Mapping[int, MemberTrained] = field(default_factory=dict)
    ensemble: EnsembleAssembled | None = None
    shards: Mapping[int, ShardScreened] = field(default_factory=dict)
    selection: Selected | None = None
    compositions: CompositionsProposed | None = None
    searches: Mapping[str, Searched] = field(default_factory=dict)
    calculations: Mapping[str, Calculated] = field(default_factory=dict)
    closed: RoundClosed | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Everything chosen for calculation: crystals, and the lowest crystal of each chosen composition."""
        chosen = () if self.selection is None else self.selection.choices
        return chosen if self.compositions is None else chosen + self.compositions.choices


@dataclass(frozen=True)
class CampaignState:
    """What has happened in a campaign."""

    started: CampaignStarted | None = None
    references: Mapping[str, Calculated] = field(default_factory=dict)
    alignment: Aligned | None = None
    rounds: Mapping[int, RoundState] = field(default_factory=dict)

    def round(self, number: int) -> RoundState:
        """State of a round, empty when nothing has happened in it."""
        return self.rounds.get(number, RoundState())


def fold(events: Iterable[Event]) -> CampaignState:
    """The state after all events."""
    return reduce(apply, events, CampaignState())


def apply(state: CampaignState, event: Event) -> CampaignState:
    """The state after `event`. Pure; the same event twice changes nothing."""
    match event:
        case CampaignStarted():
            return state if state.started else replace(state, started=event)
        case Aligned():
            return state if state.alignment else replace(state, alignment=event)
        case Calculated(round=0):
            return replace(state, references=_with(state.references, event.crystal_id, event))
        case Calculated():
            return _in_round(
                state, event.round, lambda r: replace(r, calculations=_with(r.calculations, event.crystal_id, event))
            )
        case MemberTrained():
            return _in_round(state, event.round, lambda r: replace(r, members=_with(r.members, event.member, event)))
        case ShardScreened():
            return _in_round(state, event.round, lambda r: replace(r, shards=_with(r.shards, event.shard, event)))
        case RoundOpened():
            return _in_round(state, event.round, lambda r: replace(r, opened=r.opened or event))
        case EnsembleAssembled():
            return _in_round(state, event.round, lambda r: replace(r, ensemble=r.ensemble or event))
        case Selected():
            return _in_round(state, event.round, lambda r: replace(r, selection=r.selection or event))
        case CompositionsProposed():
            return _in_round(state, event.round, lambda r: replace(r, compositions=r.compositions or event))
        case Searched():
            return _in_round(
                state, event.round, lambda r: replace(r, searches=_with(r.searches, event.candidate_id, event))
            )
        case RoundClosed():
            return _in_round(state, event.round, lambda r: replace(r, closed=r.closed or event))


def plan(state: CampaignState, settings: CampaignSettings) -> list[Action]:
    """What is to be done next, in no order; empty when the campaign is finished.

    Pure: from the state alone, never from the clock or the order of arrival.
    """
    if state.started is None:
        return [Start()]
    if state.alignment is None:
        missing = [i for i in state.started.reference_ids if i not in state.references]
        return [Calculate(0, i) for i in missing] or [Align()]
    for number in range(1, settings.rounds.n_rounds + 1):
        if actions := _plan_round(number, state.round(number), settings):
            return actions
    return []


def _plan_round(number: int, current: RoundState, settings: CampaignSettings) -> list[Action]:
    if current.closed is not None:
        return []
    if current.opened is None:
        return [OpenRound(number)]
    if current.ensemble is None:
        missing = [m for m in range(settings.ensemble.n_members) if m not in current.members]
        return [TrainMember(number, m) for m in missing] or [AssembleEnsemble(number)]
    if current.selection is None:
        missing = [s for s in range(current.opened.n_shards) if s not in current.shards]
        return [ScreenShard(number, s) for s in missing] or [Select(number)]
    waiting = [c.candidate_id for c in current.selection.choices if c.candidate_id not in current.calculations]
    if waiting:
        return [Calculate(number, i) for i in waiting]
    if settings.compositions.n_searched and current.compositions is None:
        return [ProposeCompositions(number)]
    composed = () if current.compositions is None else current.compositions.choices
    unsearched = [c.candidate_id for c in composed if c.candidate_id not in current.searches]
    return [SearchComposition(number, i) for i in unsearched] or [CloseRound(number)]


def _with(mapping: Mapping[K, V], key: K, event: V) -> Mapping[K, V]:
    """The mapping with one more event, or as it is when the key is there already."""
    return mapping if key in mapping else {**mapping, key: event}


def _in_round(state: CampaignState, number: int, change: Callable[[RoundState], RoundState]) -> CampaignState:
    return replace(state, rounds={**state.rounds, number: change(state.round(number))})
