"""Doing what `plan` orders: each kind of action is one function of a stage."""

from collections.abc import Iterator, Sequence

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
from opengnome.campaign.calculations import calculate
from opengnome.campaign.closing import close_round
from opengnome.campaign.compositions import propose_compositions
from opengnome.campaign.context import Context
from opengnome.campaign.events import Event
from opengnome.campaign.learning import assemble, open_round, train
from opengnome.campaign.pool import select_candidates
from opengnome.campaign.preparation import align, start
from opengnome.campaign.screening import screen
from opengnome.campaign.state import CampaignState
from opengnome.campaign.structure_search import search_compositions


def perform(context: Context, state: CampaignState, actions: Sequence[Action]) -> Iterator[Event]:
    """Do `actions`, all of one kind, and yield events as work ends."""
    match actions[0]:
        case Start():
            yield start(context)
        case Align():
            yield align(context, state)
        case OpenRound(number):
            yield open_round(context, state, number)
        case TrainMember(number):
            yield from train(context, number, [a.member for a in actions if isinstance(a, TrainMember)])
        case AssembleEnsemble(number):
            yield assemble(context, state, number)
        case ScreenShard(number):
            yield from screen(context, state, number, [a.shard for a in actions if isinstance(a, ScreenShard)])
        case Select(number):
            yield select_candidates(context, state, number)
        case ProposeCompositions(number):
            yield propose_compositions(context, state, number)
        case SearchComposition(number):
            ids = [a.candidate_id for a in actions if isinstance(a, SearchComposition)]
            yield from search_compositions(context, state, number, ids)
        case Calculate(number):
            yield from calculate(context, number, [a.crystal_id for a in actions if isinstance(a, Calculate)])
        case CloseRound(number):
            yield close_round(context, state, number)
