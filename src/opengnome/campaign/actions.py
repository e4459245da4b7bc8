"""What a campaign can do next. Actions are names of work, free of data, so that planning stays pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Start:
    """Fix settings, known set and reference crystals."""


@dataclass(frozen=True)
class Align:
    """Fit how oracle energies compare with those of the known set."""


@dataclass(frozen=True)
class OpenRound:
    """Write parents, known formulas and training rows of a round."""

    round: int


@dataclass(frozen=True)
class TrainMember:
    """Train one network."""

    round: int
    member: int


@dataclass(frozen=True)
class AssembleEnsemble:
    """Calibrate the trained networks together."""

    round: int


@dataclass(frozen=True)
class ScreenShard:
    """Generate the candidates of one shard of parents, predict their energies, measure them against the hull."""

    round: int
    shard: int


@dataclass(frozen=True)
class Select:
    """Filter the pool of a round and spend its budget."""

    round: int


@dataclass(frozen=True)
class ProposeCompositions:
    """Retrain the compositional model, score new compositions and choose those to search."""

    round: int


@dataclass(frozen=True)
class SearchComposition:
    """Relax random crystals of one chosen composition until its lowest one keeps coming back."""

    round: int
    candidate_id: str


@dataclass(frozen=True)
class Calculate:
    """Relax one crystal with the oracle; round 0 are reference calculations."""

    round: int
    crystal_id: str


@dataclass(frozen=True)
class CloseRound:
    """Measure the round."""

    round: int


Action = (
    Start
    | Align
    | OpenRound
    | TrainMember
    | AssembleEnsemble
    | ScreenShard
    | Select
    | ProposeCompositions
    | SearchComposition
    | Calculate
    | CloseRound
)
