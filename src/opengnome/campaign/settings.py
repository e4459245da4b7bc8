"""Settings of a campaign: the settings of its parts, composed."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

from opengnome.campaign.acquisition import AcquisitionRule
from opengnome.campaign.execution_settings import ExecutionSettings
from opengnome.datasets import KnownSetSettings
from opengnome.generation import CompositionSettings, GenerationSettings, RandomStructureSettings
from opengnome.models import COMPOSITIONAL_TRAINING, ModelSettings, StructuralSettings, TrainingSettings
from opengnome.oracles import OracleSettings
from opengnome.oracles.settings import MACHINE_SETTINGS
from opengnome.settings import Settings

FOR_DIGEST = {"for": "digest"}
"""Context in which settings are written to be hashed."""


class ParentSettings(Settings):
    """Which crystals candidates are made from."""

    max_atoms: int = Field(default=20, ge=1)
    """Largest cell of a parent, atoms."""
    max_energy_above_hull: float = Field(default=0.1, ge=0)
    """Known crystals further above the current hull are no parents, eV/atom."""
    max_parents: int | None = Field(default=None, ge=1)
    """Known parents per round, drawn anew each round; all when not set. Calculated crystals as near to the hull
    always are parents."""
    parents_per_shard: int = Field(default=50, ge=1)
    """Parents in one unit of screening work."""


class TrainingSetSettings(Settings):
    """What the models learn from."""

    max_atoms: int = Field(default=20, ge=1)
    """Largest cell, atoms."""
    max_formation_energy_per_atom: float = 2.0
    """Rows above this formation energy are left out, eV/atom: exploded starts teach nothing."""
    frames_per_calculation: int = Field(default=2, ge=0)
    """Unrelaxed frames of each relaxation that are added: the first, and others evenly behind it."""
    strained_crystals: int = Field(default=0, ge=0)
    """Known crystals of which the oracle computes single points at other volumes before the first round."""
    strain_volumes: tuple[Annotated[float, Field(gt=0)], ...] = (0.85, 1.15)
    """Volumes of these, relative to the known one."""
    embedded_frames: bool = True
    """Add the strained and unrelaxed crystals that come with the embedded known set; ignored for other sets."""


class EnsembleSettings(Settings):
    """Size of the ensemble."""

    n_members: int = Field(default=4, ge=2)
    """Networks that differ in their seed only; the paper has 10."""
    initial: Literal["shipped", "none"] = "shipped"
    """Where a member's weights start in every round: `shipped` fine-tunes the members of the shipped ensemble, whose
    network settings `model` must then have; `none` trains from random weights."""


def _as_before(
    settings: Settings, written: dict[str, Any], info: SerializationInfo, unused: Mapping[str, Any]
) -> dict[str, Any]:
    """For the digest of a campaign, without settings whose values are those of the versions that did not have them.

    Campaigns begun by such versions go on, where a default is another one with ``--set``. Files have everything.
    """
    if info.context == FOR_DIGEST:
        for name, value in unused.items():
            if getattr(settings, name) == value:
                written.pop(name, None)
    return written


class ScreeningSettings(Settings):
    """How candidates are judged."""

    n_volume_scales: int = Field(default=20, ge=1)
    """Volumes scanned per candidate; 1 judges the volume as generated."""
    lowest_volume_scale: float = Field(default=0.8, gt=0)
    """Smallest volume of the scan as a share of the generated one."""
    highest_volume_scale: float = Field(default=1.2, gt=0)
    """Largest volume of the scan."""
    minimum_inside: bool = True
    """Choose only candidates whose energy has its minimum inside the scan, if that has three volumes at least. At an
    end of it the energy still falls, and the network is asked about volumes that it never saw: of 64 such choices
    against the Materials Project 27 were hits, of 116 others 91 (`docs/both_pipelines_real.md`)."""
    bfloat16: bool = False
    """Networks in bfloat16: faster on processors with instructions for it (`benchmarks/bench_screening.py`), slower on
    others; energies move by a few meV/atom."""
    window: float = 0.05
    """Keep candidates whose predicted energy is at most this far above the current hull, eV/atom."""

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        return _as_before(self, write(self), info, {"bfloat16": False, "minimum_inside": False})


class RoundSettings(Settings):
    """How many rounds, how many calculations, and which control arms."""

    n_rounds: int = Field(default=3, ge=1)
    """Rounds."""
    budget: int = Field(default=40, ge=1)
    """Calculations per round chosen by the model."""
    random_filtered: int = Field(default=0, ge=0)
    """Control arm: calculations per round drawn at random from the pool that passed the filters."""
    random_unfiltered: int = Field(default=0, ge=0)
    """Control arm: calculations per round drawn at random from all generated candidates."""
    acquisition: AcquisitionRule = "probability_stable"
    """Order of the model's choice (`opengnome.campaign.acquisition` has the formulas): probability of lying on or below
    the hull by the calibrated spread, predicted decomposition energy, expected depth below the hull, lower bound of the
    decomposition energy, or a random draw."""
    exploration: float = Field(default=1.0, ge=0)
    """For lower_bound: standard deviations that are taken off the predicted energy."""
    competitors: Literal["known", "candidates"] = "candidates"
    """What a candidate must lie below when the model chooses: the hull of what is known, or also all other candidates
    as predicted. Where little is known nearly everything lies below the known hull, and the second finds more of what
    stays stable (docs/retrospective.md)."""
    diversity: float = Field(default=0.0, ge=0)
    """Each candidate that is chosen makes the others of its chemical system count as this much higher in energy within
    the round, eV/atom; 0 chooses each by itself."""

    @model_validator(mode="after")
    def _check_diversity(self) -> "RoundSettings":
        if self.acquisition == "random" and self.diversity:
            raise ValueError('diversity has no effect on acquisition = "random"; leave one of them out')
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        return _as_before(self, write(self), info, {"exploration": 1.0, "diversity": 0.0, "competitors": "known"})


class CompositionSearchSettings(Settings):
    """The second pipeline: compositions, random structures of the promising ones, and the oracle."""

    budget: int = Field(default=0, ge=0)
    """Compositions per round chosen by the compositional model and searched for their lowest crystal; 0 leaves the
    pipeline out."""
    random: int = Field(default=0, ge=0)
    """Control arm: compositions per round drawn at random from all plausible ones, and searched alike."""
    n_scored: int = Field(default=20_000, ge=1)
    """New plausible compositions per round whose energies are predicted."""
    window: float = 0.05
    """Search compositions predicted at most this far above the current hull, eV/atom."""
    max_per_system: int = Field(default=1, ge=1)
    """Compositions of one chemical system in one round."""
    proposals: CompositionSettings = CompositionSettings(max_atoms=12)
    """Which compositions are plausible."""
    structures: RandomStructureSettings = RandomStructureSettings(max_atoms=24)
    """Which random crystals a search starts from."""
    n_starts: int = Field(default=100, ge=1)
    """Most random crystals that are relaxed per composition; the paper has 100."""
    min_completed: int = Field(default=10, ge=1)
    """Fewer converged relaxations make no label for the compositional model (the paper: 10), and no early stop."""
    same_minimum: int = Field(default=5, ge=1)
    """A search ends early when its lowest energy has come back this many times."""
    same_energy: float = Field(default=0.002, ge=0)
    """Energies that count as the same, eV/atom."""
    n_members: int = Field(default=2, ge=2)
    """Networks of the compositional ensemble."""
    training: TrainingSettings = COMPOSITIONAL_TRAINING.model_copy(update={"epochs": 6, "learning_rate": 5e-4})
    """Fine-tuning of the shipped compositional networks in every round on the lowest energies known."""

    @model_validator(mode="after")
    def _check_sizes(self) -> "CompositionSearchSettings":
        largest = self.proposals.max_atoms * self.structures.min_formula_units
        if self.n_searched and largest > self.structures.max_atoms:
            raise ValueError(
                f"formulas of proposals.max_atoms={self.proposals.max_atoms} need cells of {largest} atoms, and random "
                f"crystals have at most structures.max_atoms={self.structures.max_atoms}; change one of them"
            )
        return self

    @property
    def n_searched(self) -> int:
        """Compositions searched per round."""
        return self.budget + self.random


class AlignmentSettings(Settings):
    """How oracle energies are brought to the level of the known set."""

    scheme: Literal["none", "per_element"] = "none"
    """`none`: the oracle made the known set's energies. `per_element`: the oracle relaxes known crystals first,
    and one shift per element is fitted to the difference of formation energies."""
    n_crystals: int = Field(default=300, ge=10)
    """Known compounds computed for the fit, beside one crystal per element."""


class CampaignSettings(Settings):
    """Everything a campaign depends on."""

    name: str = "campaign"
    """Shown in the report."""
    seed: int = Field(default=0, ge=0)
    """All randomness follows from it and from the identity of what is drawn."""
    known: KnownSetSettings = KnownSetSettings()
    parents: ParentSettings = ParentSettings()
    generation: GenerationSettings = GenerationSettings()
    training_set: TrainingSetSettings = TrainingSetSettings()
    model: ModelSettings = StructuralSettings()
    training: TrainingSettings = TrainingSettings(epochs=10, learning_rate=5e-4)
    """Fine-tuning by default; from random weights it takes more epochs and 1e-3."""
    ensemble: EnsembleSettings = EnsembleSettings()
    screening: ScreeningSettings = ScreeningSettings()
    rounds: RoundSettings = RoundSettings()
    compositions: CompositionSearchSettings = CompositionSearchSettings()
    oracle: OracleSettings = OracleSettings()
    alignment: AlignmentSettings = AlignmentSettings()
    execution: ExecutionSettings = ExecutionSettings()

    @property
    def digest(self) -> str:
        """Hash of all settings that a round depends on.

        Where the work is done and how many rounds there are is left out, and so is the place of the known set:
        its content has a digest of its own.
        """
        text = self.model_dump_json(
            context=FOR_DIGEST,
            exclude={
                "execution": True,
                "name": True,
                "rounds": {"n_rounds"},
                "known": {"source"},
                "oracle": MACHINE_SETTINGS,
            },
        )
        return hashlib.sha256(text.encode()).hexdigest()[:32]
