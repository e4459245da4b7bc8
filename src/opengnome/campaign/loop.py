"""The discovery loop on one screen."""

from collections.abc import Callable, Iterable, Sequence

from opengnome.campaign.actions import Action
from opengnome.campaign.events import Event
from opengnome.campaign.journal import Journal
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState, apply, fold, plan

Perform = Callable[[CampaignState, Sequence[Action]], Iterable[Event]]
"""Does actions of one kind and yields what happened, as it happens."""


def run(journal: Journal, settings: CampaignSettings, perform: Perform) -> CampaignState:
    """The one impure function: do what is planned, write what happened, repeat.

    A round, as `plan` orders it:

        OpenRound         parents (known and discovered), known formulas, training rows
        TrainMember x n   the networks of the ensemble
        AssembleEnsemble  their calibration on held-out compositions
        ScreenShard x n   candidates from the parents, energies predicted with a volume scan, distances to the hull
        Select            window, lowest per composition, budget, control arms
        Calculate x n     the oracle relaxes the chosen ones
        ProposeCompositions    the second pipeline, where asked for: new formulas near the hull by composition alone
        SearchComposition x n  the oracle relaxes random crystals of each; the lowest one is its candidate
        CloseRound        new entries, new hull, hit rates

    Killed anywhere, the next run folds the same journal, plans the same actions and finds the result files
    of finished units; so it ends in the same state.
    """
    state = fold(journal)
    while actions := plan(state, settings):
        for event in perform(state, actions):
            journal.append(event)  # durable before it counts
            state = apply(state, event)
    return state
