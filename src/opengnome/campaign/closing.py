"""The end of a round: its entries, its hull, what it achieved."""

from opengnome.campaign.context import Context
from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.events import RoundClosed
from opengnome.campaign.knowledge import alignment_of
from opengnome.campaign.metrics import round_metrics
from opengnome.campaign.state import CampaignState


def close_round(context: Context, state: CampaignState, number: int) -> RoundClosed:
    """Measure a round."""
    current = state.round(number)
    if current.selection is None:
        raise ValueError(f"round {number} has no selection: plan() orders Select before CloseRound")
    level = context.knowledge.known.level
    entries = {
        i: entry_of(c, alignment_of(state), level=level) for i, c in current.calculations.items() if has_energy(c)
    }
    metrics = round_metrics(
        current.choices,
        current.calculations,
        entries,
        initial_hull=context.knowledge.initial_hull,
        current_hull=context.knowledge.hull(state, before_round=number + 1),
    )
    context.progress.message(f"round {number} closed: {_brief(metrics)}")
    return RoundClosed(round=number, metrics=metrics)


def _brief(metrics: dict[str, float]) -> str:
    shown = {
        "model.hit_rate_initial": "hit rate {:.0%} against the known hull",
        "model.hit_rate_current": "{:.0%} against the current hull",
        "random_filtered.hit_rate_initial": "random control {:.0%}",
        "random_unfiltered.hit_rate_initial": "random of all {:.0%}",
        "model.mae": "model MAE {:.3f} eV/atom",
    }
    return ", ".join(text.format(metrics[name]) for name, text in shown.items() if name in metrics)
