"""Settings of the oracles and of the relaxation."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from opengnome.crystals.geometry import MIN_DISTANCE
from opengnome.oracles import espresso_settings, gpaw_settings, vasp_settings
from opengnome.oracles.espresso_settings import EspressoSettings
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.vasp_settings import VaspSettings
from opengnome.settings import Settings


class RelaxationSettings(Settings):
    """How a crystal is relaxed, and when a relaxation is given up.

    The limits for giving up are wide: they catch what has left physics, not what is merely unstable.
    """

    fmax: float = Field(default=0.05, gt=0)
    """Converged when no force on an atom, and no force on the cell (virial divided by the number of
    atoms), is larger; eV/Angstrom."""
    max_steps: int = Field(default=200, ge=0)
    """Optimizer steps before UNCONVERGED; 0 evaluates the input geometry only."""
    timeout_s: float = Field(default=600.0, gt=0)
    """Wall time in seconds before TIMED_OUT; looked at after every step."""
    relax_cell: bool = True
    """Relax the cell with the positions, else the positions only."""
    optimizer: Literal["bfgs", "fire"] = "bfgs"
    """BFGS takes 17 steps where FIRE takes 30 (12 displaced AFLOW prototypes, `benchmarks/bench_oracle.py`)."""
    max_step: float = Field(default=0.2, gt=0, le=1.0)
    """Longest move of an atom in one step, Angstrom."""
    min_distance: float = Field(default=MIN_DISTANCE, ge=0)
    """Closer atoms are TOO_DENSE, Angstrom (the shortest bond, H2, is 0.74)."""
    min_volume_per_atom: float = Field(default=2.0, ge=0)
    """Less is TOO_DENSE, Angstrom^3/atom. Diamond has 5.7; at 2.0 an atom has 450
    neighbours within 6 Angstrom."""
    min_volume_ratio: float = Field(default=0.3, ge=0)
    """A smaller ratio of the volume to the initial one is EXPLODED."""
    max_volume_ratio: float = Field(default=3.0, gt=1)
    """A larger ratio of the volume to the initial one is EXPLODED."""
    max_force: float = Field(default=500.0, gt=0)
    """A larger force on an atom is EXPLODED, eV/Angstrom."""
    energy_per_atom_range: tuple[float, float] = (-20.0, 20.0)
    """Outside is EXPLODED, eV/atom. PBE energies of solids lie between -13 (tungsten) and about 0; an
    engine with another zero of energy (all-electron totals) needs its own range."""

    @property
    def digest(self) -> str:
        """SHA-256 of these settings as JSON, hexadecimal."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


DFT_ENGINES = ("gpaw", "vasp", "espresso")
"""Oracles with a section of their own, which has their name."""
LEVELS_OF_FILES = frozenset({"espresso"})
"""Oracles whose level of theory does not follow from the settings: it has the functional and the content of files."""
DFT_TIMEOUT_S = 86400.0
"""Wall time in seconds for a crystal where an evaluation takes minutes and not milliseconds."""


def dft_relaxation(relaxation: RelaxationSettings | None = None) -> RelaxationSettings:
    """`relaxation` with the time limit of density-functional oracles, `DFT_TIMEOUT_S`, where it was given none."""
    given = relaxation or RelaxationSettings()
    if "timeout_s" in given.model_fields_set:
        return given
    return given.model_copy(update={"timeout_s": DFT_TIMEOUT_S})


MACHINE_SETTINGS: dict[str, set[str]] = {
    "gpaw": set(gpaw_settings.MACHINE_SETTINGS),
    "vasp": set(vasp_settings.MACHINE_SETTINGS),
    "espresso": set(espresso_settings.MACHINE_SETTINGS),
}
"""What of each engine's section changes no result."""


class OracleSettings(Settings):
    """Which oracle, and how it relaxes."""

    name: Literal["chgnet", "ase", "recorded", "gpaw", "vasp", "espresso"] = "chgnet"
    """chgnet: the embedded potential. ase: any ASE calculator. recorded: answers from a table. gpaw, vasp,
    espresso: density-functional theory."""
    calculator: str | None = None
    """For ase: import path of a callable that gives a calculator, e.g. "ase.calculators.emt:EMT"."""
    calculator_options: dict[str, Any] = Field(default_factory=dict)
    """For ase: keyword arguments of that callable."""
    level: str | None = None
    """For ase and recorded: the name of the level of theory; by default derived from the calculator and
    its options, or from the table's content."""
    table: Path | None = None
    """For recorded: a Parquet file in the crystal schema with a column of energies."""
    energy_column: str = "energy_per_atom"
    """For recorded: the column that holds eV/atom."""
    match: Literal["digest", "formula"] = "digest"
    """For recorded: digest answers only for crystals of the table as they are described there; formula
    answers any other crystal with the lowest entry of its reduced formula."""
    relaxation: RelaxationSettings = RelaxationSettings()
    """For gpaw, vasp and espresso `timeout_s` is a day where it is not given."""
    gpaw: GpawSettings | None = None
    """For gpaw; left out, its defaults."""
    vasp: VaspSettings | None = None
    """For vasp; left out, its defaults."""
    espresso: EspressoSettings | None = None
    """For espresso; `pseudo_dir` has no default."""

    @model_validator(mode="before")
    @classmethod
    def _complete_engine(cls, data: Any) -> Any:
        """A density-functional oracle gets its section and its time limit."""
        if not isinstance(data, Mapping) or data.get("name") not in DFT_ENGINES:
            return data
        completed = dict(data)
        if completed.get(data["name"]) is None:
            completed[data["name"]] = {}
        relaxation = completed.get("relaxation", {})
        if isinstance(relaxation, RelaxationSettings):
            relaxation = relaxation.model_dump(exclude_unset=True)
        if isinstance(relaxation, Mapping):
            completed["relaxation"] = {"timeout_s": DFT_TIMEOUT_S, **relaxation}
        return completed

    @model_validator(mode="after")
    def _check_engine(self) -> "OracleSettings":
        if self.name == "ase" and not self.calculator:
            raise ValueError('the ase oracle needs calculator = "module:callable", e.g. "ase.calculators.emt:EMT"')
        if self.name == "recorded" and self.table is None:
            raise ValueError("the recorded oracle needs table = the path of a Parquet file")
        if self.name != "ase" and (self.calculator or self.calculator_options):
            raise ValueError(f'calculator is a setting of the ase oracle, but name = "{self.name}"')
        if self.name == "chgnet" and self.level is not None:
            raise ValueError("the level of the chgnet oracle is fixed by its weights; leave level out")
        if self.name in DFT_ENGINES and self.level is not None:
            raise ValueError(f"the level of the {self.name} oracle follows from its settings; leave level out")
        for engine in DFT_ENGINES:
            if self.name != engine and getattr(self, engine) is not None:
                raise ValueError(f'{engine} is a section of the {engine} oracle, but name = "{self.name}"')
        return self

    @property
    def physics_json(self) -> str:
        """These settings as JSON without those of the machine: calculations are named by it, and by the level of theory
        where that is one of `LEVELS_OF_FILES`.
        """
        return self.model_dump_json(exclude=MACHINE_SETTINGS)

    @model_serializer(mode="wrap")
    def _without_other_engines(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Sections of engines that are not used are not written: names of calculations are made of this text, and
        those made before an engine was added stay.
        """
        written: dict[str, Any] = write(self)
        return {key: value for key, value in written.items() if key == self.name or key not in DFT_ENGINES}


def engine_digest(section: GpawSettings | VaspSettings | EspressoSettings, relaxation: RelaxationSettings) -> str:
    """SHA-256 of what changes the results of a density-functional engine, hexadecimal."""
    engine = {GpawSettings: "gpaw", VaspSettings: "vasp", EspressoSettings: "espresso"}[type(section)]
    physics = section.model_dump(mode="json", exclude=MACHINE_SETTINGS[engine])
    text = json.dumps([physics, relaxation.model_dump(mode="json")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
