"""What a campaign is doing now, in words."""

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
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState, plan


def stage(state: CampaignState, settings: CampaignSettings) -> str:
    """The step that is being done or comes next, with how far it is; ``finished`` when none is left."""
    actions = plan(state, settings)
    if not actions:
        return "finished"
    return _describe(actions[0], len(actions), state, settings)


def is_finished(state: CampaignState, settings: CampaignSettings) -> bool:
    """Whether every round is closed."""
    return not plan(state, settings)


def _describe(action: Action, left: int, state: CampaignState, settings: CampaignSettings) -> str:
    match action:
        case Start():
            return "starting: reading the known set"
        case Align():
            return "aligning the oracle's energies with the known set's"
        case Calculate(round=0):
            total = 0 if state.started is None else len(state.started.reference_ids)
            return f"reference relaxations, {total - left} of {total} done"
        case OpenRound(number):
            return f"round {number}, collecting parents and training crystals"
        case TrainMember(number):
            total = settings.ensemble.n_members
            return f"round {number}, training networks, {total - left} of {total} done"
        case AssembleEnsemble(number):
            return f"round {number}, calibrating the ensemble"
        case ScreenShard(number):
            opened = state.round(number).opened
            total = left if opened is None else opened.n_shards
            return f"round {number}, generating and screening candidates, {total - left} of {total} shards done"
        case Select(number):
            return f"round {number}, choosing candidates"
        case Calculate(number):
            selection = state.round(number).selection
            total = left if selection is None else len(selection.choices)
            return f"round {number}, relaxations, {total - left} of {total} done"
        case ProposeCompositions(number):
            return f"round {number}, scoring new compositions"
        case SearchComposition(number):
            compositions = state.round(number).compositions
            total = left if compositions is None else len(compositions.choices)
            return f"round {number}, structure searches, {total - left} of {total} compositions done"
        case CloseRound(number):
            return f"round {number}, measuring hit rates"
