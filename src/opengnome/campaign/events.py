"""What can happen in a campaign. Each event is written once, under a key that makes it idempotent."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @property
    def key(self) -> str:
        """Identity of the event: a second event of the same key changes nothing."""
        raise TypeError(f"{type(self).__name__} has no key")


class CampaignStarted(_Event):
    """The campaign exists: its settings and known set are fixed from here on."""

    type: Literal["started"] = "started"
    settings_digest: str
    known_digest: str
    versions: dict[str, str]
    reference_ids: tuple[str, ...]
    """Crystals that the oracle computes before the first round (`references.parquet`); may be none."""
    oracle_level: str = ""
    """The oracle's level of theory; empty in journals of the time when it was not written."""
    oracle_version: str = ""
    """Version of the oracle's code; empty likewise, and where only its calculations tell."""

    @property
    def key(self) -> str:
        return "started"


class Calculated(_Event):
    """The oracle answered for one crystal, or failed on it."""

    type: Literal["calculated"] = "calculated"
    round: int
    """Round of the candidate; 0 for a reference calculation."""
    crystal_id: str
    reduced_formula: str
    status: str
    """How the relaxation ended (`oracles.Status`)."""
    reason: str
    energy_per_atom: float | None
    """The oracle's energy of the relaxed crystal, eV/atom, uncorrected."""
    n_steps: int
    seconds: float
    path: str
    """File of the full calculation, relative to the campaign directory."""

    @property
    def key(self) -> str:
        return f"calculated:{self.round}:{self.crystal_id}"


class Aligned(_Event):
    """How oracle energies are brought to the level of the known set; see `campaign.alignment`."""

    type: Literal["aligned"] = "aligned"
    scheme: str
    references: dict[str, float]
    """Oracle energy of each element's reference crystal, eV/atom, by symbol."""
    shifts: dict[str, float]
    """Fitted shift per element, eV/atom, by symbol."""
    metrics: dict[str, float]

    @property
    def key(self) -> str:
        return "aligned"


class RoundOpened(_Event):
    """Parents, known formulas and training rows of a round are on disk."""

    type: Literal["round_opened"] = "round_opened"
    round: int
    n_parents: int
    n_shards: int
    n_training: int
    hull_digest: str

    @property
    def key(self) -> str:
        return f"round_opened:{self.round}"


class MemberTrained(_Event):
    """One network of the ensemble is trained."""

    type: Literal["member_trained"] = "member_trained"
    round: int
    member: int
    path: str
    metrics: dict[str, float]

    @property
    def key(self) -> str:
        return f"member_trained:{self.round}:{self.member}"


class EnsembleAssembled(_Event):
    """The ensemble of a round is calibrated and ready."""

    type: Literal["ensemble_assembled"] = "ensemble_assembled"
    round: int
    path: str
    digest: str
    metrics: dict[str, float]

    @property
    def key(self) -> str:
        return f"ensemble_assembled:{self.round}"


class ShardScreened(_Event):
    """Candidates of one shard of parents are generated and their energies predicted."""

    type: Literal["shard_screened"] = "shard_screened"
    round: int
    shard: int
    path: str
    counts: dict[str, int]

    @property
    def key(self) -> str:
        return f"shard_screened:{self.round}:{self.shard}"


class Choice(BaseModel):
    """A candidate chosen for calculation, with what was predicted of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    candidate_id: str
    reduced_formula: str
    arms: tuple[str, ...]
    """Who chose it: one or more of `selection.ARMS`."""
    predicted_formation_energy_per_atom: float
    predicted_std: float
    predicted_decomposition_energy: float
    """Against the hull at the start of the round, eV/atom."""
    hull_energy_per_atom: float
    """Formation energy of that hull at the candidate's composition, eV/atom."""
    initial_hull_energy_per_atom: float
    """The same for the hull of the known set, eV/atom."""
    probability_stable: float
    volume_scale: float
    method: str
    parent_ids: tuple[str, ...]
    replaced: str


class Selected(_Event):
    """The pool of a round is filtered and its budget spent."""

    type: Literal["selected"] = "selected"
    round: int
    counts: dict[str, int]
    """Candidates after each filter, in order."""
    choices: tuple[Choice, ...]
    path: str

    @property
    def key(self) -> str:
        return f"selected:{self.round}"


class CompositionsProposed(_Event):
    """New compositions are scored and those to search are chosen."""

    type: Literal["compositions_proposed"] = "compositions_proposed"
    round: int
    counts: dict[str, int]
    """Formulas after each filter, in order."""
    choices: tuple[Choice, ...]
    metrics: dict[str, float]
    """Of the compositional ensemble on compositions that it was not trained on, eV/atom."""
    path: str

    @property
    def key(self) -> str:
        return f"compositions_proposed:{self.round}"


class Searched(_Event):
    """Random crystals of a composition are relaxed; the lowest of them is the candidate's `Calculated`."""

    type: Literal["searched"] = "searched"
    round: int
    candidate_id: str
    reduced_formula: str
    n_starts: int
    """Random crystals that were relaxed."""
    n_completed: int
    """Relaxations that converged."""
    n_lowest: int
    """Of these, how many ended at the lowest energy."""
    seconds: float
    path: str
    """Table of all runs, relative to the campaign directory."""

    @property
    def key(self) -> str:
        return f"searched:{self.round}:{self.candidate_id}"


class RoundClosed(_Event):
    """All calculations of a round have ended; its metrics."""

    type: Literal["round_closed"] = "round_closed"
    round: int
    metrics: dict[str, float]

    @property
    def key(self) -> str:
        return f"round_closed:{self.round}"


Event = (
    CampaignStarted
    | Calculated
    | Aligned
    | RoundOpened
    | MemberTrained
    | EnsembleAssembled
    | ShardScreened
    | Selected
    | CompositionsProposed
    | Searched
    | RoundClosed
)

EVENT_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])
"""Reads an event from its JSON form."""
