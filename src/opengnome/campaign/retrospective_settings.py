"""Settings of a retrospective campaign: strategies measured against energies that are known already."""

from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from opengnome.campaign.acquisition import AcquisitionRule
from opengnome.campaign.selection import RANDOM_UNFILTERED
from opengnome.campaign.settings import RoundSettings
from opengnome.models import StructuralSettings, TrainingSettings
from opengnome.settings import Settings


class Strategy(Settings):
    """One way of choosing, by name; the model, the budget and the start are those of all strategies."""

    name: str
    """Names the folder and the curve."""
    acquisition: AcquisitionRule | Literal["random_unfiltered"] = "probability_stable"
    """An acquisition rule of a campaign; or `random_unfiltered`, a draw from the whole pool without any model, against
    which all others are measured."""
    exploration: float = Field(default=1.0, ge=0)
    """As in `RoundSettings`."""
    diversity: float = Field(default=0.0, ge=0)
    """As in `RoundSettings`, eV/atom."""
    competitors: Literal["known", "candidates"] = "known"
    """What a candidate is measured against: the hull of what is known, as in a campaign, or also all other candidates
    as predicted (`acquisition.distances_among_candidates`)."""

    @model_serializer(mode="wrap")
    def _without_known_competitors(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not written: strategies begun before it was a setting go on."""
        written: dict[str, Any] = write(self)
        if self.competitors == "known":
            written.pop("competitors", None)
        return written

    @property
    def needs_model(self) -> bool:
        return self.acquisition != RANDOM_UNFILTERED

    def rounds(self, budget: int) -> RoundSettings:
        """The settings of a campaign whose rounds of `budget` calculations choose as this strategy does."""
        if self.acquisition == RANDOM_UNFILTERED:
            return RoundSettings(budget=1, random_unfiltered=budget)
        return RoundSettings(
            budget=budget, acquisition=self.acquisition, exploration=self.exploration, diversity=self.diversity
        )


STRATEGIES = (
    Strategy(name="random", acquisition="random_unfiltered"),
    Strategy(name="probability_stable", acquisition="probability_stable"),
    Strategy(name="decomposition_energy", acquisition="decomposition_energy"),
    Strategy(name="expected_improvement", acquisition="expected_improvement"),
    Strategy(name="lower_bound", acquisition="lower_bound"),
    Strategy(name="probability_stable_spread", acquisition="probability_stable", diversity=0.1),
    Strategy(name="probability_stable_among_candidates", competitors="candidates"),
)
"""The control, all rules of a campaign, the default one spread over chemical systems, and against candidates."""


class RetrospectiveSettings(Settings):
    """What is known at the start, how much may be calculated, and which strategies are compared."""

    energy_column: str = "formation_energy_per_atom"
    """Column of the table with the energy, eV/atom."""
    seed: int = Field(default=0, ge=0)
    """All randomness follows from it and from the identity of what is drawn."""
    n_start: int = Field(default=5000, ge=1)
    """Compounds known at the start, drawn anew in each repeat; all crystals of one element are known in any case."""
    budget: int = Field(default=5000, ge=1)
    """Calculations of one campaign."""
    n_rounds: int = Field(default=6, ge=1)
    """Rounds of about equal size in which they are spent; the model learns between them."""
    window: float = 0.05
    """Candidates predicted further above the current hull are not chosen, eV/atom; one per composition and round."""
    geometry: Literal["estimated_volume", "recorded"] = "estimated_volume"
    """What the model sees of a crystal. The recorded geometry is the relaxed one, which a campaign does not have before
    the calculation, and its volume says much about the energy. `estimated_volume` scales every crystal, known or not,
    to the volume that its composition leads to expect; the shape of the cell and the positions stay those relaxed."""
    n_members: int = Field(default=3, ge=2)
    """Networks of the ensemble."""
    model: StructuralSettings = StructuralSettings(width=64, edge_width=64, layers=2, n_basis=24)
    """Small enough for minutes per round on one core."""
    training: TrainingSettings = TrainingSettings(epochs=16, batch_size=64, learning_rate=3e-3, bfloat16=False)
    """From random weights. Networks this small are faster in full precision."""
    initial: Literal["previous", "none"] = "previous"
    """Where the weights of later rounds start: from those of the round before, with `fine_tuning`, at a quarter of the
    cost; or, as in the paper, at random, with `training`. The first round always starts at random: networks that have
    seen the table know the answers."""
    fine_tuning: TrainingSettings = TrainingSettings(epochs=4, batch_size=64, learning_rate=1e-3, bfloat16=False)
    """From the weights of the round before."""
    max_formation_energy_per_atom: float = 2.0
    """Crystals above are not learnt from, eV/atom, as in a campaign."""
    strategies: tuple[Strategy, ...] = STRATEGIES
    """In the order in which they are run within a repeat."""

    @model_validator(mode="after")
    def _check(self) -> "RetrospectiveSettings":
        names = [strategy.name for strategy in self.strategies]
        if len(set(names)) < len(names) or not all(name and "/" not in name for name in names):
            raise ValueError(f"strategies need different names that can be a folder, got {names}")
        if self.n_rounds > self.budget:
            raise ValueError(f"n_rounds = {self.n_rounds} with a budget of {self.budget}; a round needs a calculation")
        return self

    @property
    def budgets(self) -> list[int]:
        """Calculations of each round; they add up to the budget and differ by at most one."""
        ends = [self.budget * number // self.n_rounds for number in range(self.n_rounds + 1)]
        return [stop - start for start, stop in pairwise(ends)]

    @property
    def conditions(self) -> str:
        """What all results in one folder must share, as JSON: everything but the list of strategies."""
        return self.model_dump_json(exclude={"strategies"})
