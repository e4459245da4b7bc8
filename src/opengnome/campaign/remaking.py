"""Which events have to be withdrawn so that `discover` makes lost files again. Pure.

`plan` looks at events alone, so what an event vouches for is never made twice. A file that is lost and will be needed
is made again once its event counts no more; what it is made from is then needed, too. Everything is a pure function
of its inputs, so it comes out as it was, and all that is not lost stays.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opengnome.campaign.events import (
    Calculated,
    EnsembleAssembled,
    Event,
    MemberTrained,
    Selected,
    ShardScreened,
)
from opengnome.campaign.state import CampaignState, RoundState


@dataclass(frozen=True)
class Remaking:
    """What is lost and needed: the events to withdraw."""

    state: CampaignState
    lost: frozenset[str]
    """Keys of events whose files are lost."""

    def withdrawn(self) -> dict[str, tuple[str, ...]]:
        """Keys to withdraw: of each lost event that is needed, itself and the later ones that close over it."""
        waiting = list(self._needed())
        keys: dict[str, tuple[str, ...]] = {}
        while waiting:
            event = waiting.pop()
            if event.key in self.lost and event.key not in keys:
                keys[event.key] = (event.key, *(e.key for e in self._closing(event)))
                waiting += self._inputs(event)
        return keys

    def _needed(self) -> Iterator[Event]:
        """Events whose files are read by what is still to be done, by reports and by those who take results home."""
        yield from self.state.references.values()
        ready = [current.ensemble for _, current in sorted(self.state.rounds.items()) if current.ensemble]
        yield from ready[-1:]  # what `predict --model DIR` takes
        for current in self.state.rounds.values():
            yield from current.calculations.values()
            yield from current.searches.values()
            if current.closed is None:
                yield from _read_next(current)

    def _inputs(self, event: Event) -> Iterable[Event]:
        """Events whose files are read when `event` happens again."""
        match event:
            case Calculated(round=0):
                return _those(self.state.started)
            case Calculated():
                current = self.state.round(event.round)
                return () if event.crystal_id in current.searches else _those(current.selection)
            case MemberTrained():
                return _those(self.state.round(event.round).opened)
            case EnsembleAssembled():
                current = self.state.round(event.round)
                return [*_those(current.opened), *current.members.values()]
            case ShardScreened():
                current = self.state.round(event.round)
                return _those(current.opened, current.ensemble)
            case Selected():
                return self.state.round(event.round).shards.values()
            case _:
                return ()

    def _closing(self, event: Event) -> Iterator[Event]:
        """Events that would keep `plan` from ordering the work of `event` again."""
        if isinstance(event, Calculated) and event.round == 0:
            yield from _those(self.state.alignment)
        number = getattr(event, "round", 0)
        current = self.state.round(number)
        yield from _those(current.closed)
        if isinstance(event, Calculated) and event.crystal_id in current.searches:
            yield current.searches[event.crystal_id]


def _read_next(current: RoundState) -> Iterable[Event]:
    """Events of an open round whose files its next steps read."""
    if current.ensemble is None:
        return [*_those(current.opened), *current.members.values()]
    if current.selection is None:
        return [*_those(current.opened, current.ensemble), *current.shards.values()]
    if any(choice.candidate_id not in current.calculations for choice in current.selection.choices):
        return _those(current.selection)
    return ()


def _those(*events: Event | None) -> list[Event]:
    return [event for event in events if event is not None]


def unfinished(state: CampaignState) -> dict[str, str]:
    """Closed rounds that lack an event they were closed over, by the key of their closing: what is missing."""
    found = {}
    for current in state.rounds.values():
        if current.closed is None:
            continue
        if current.selection is None:
            found[current.closed.key] = "it has no selection"
            continue
        missing = [c.candidate_id for c in current.choices if c.candidate_id not in current.calculations]
        if missing:
            found[current.closed.key] = f"{len(missing)} of its chosen crystals have no calculation ({missing[0]}, ...)"
    return found
