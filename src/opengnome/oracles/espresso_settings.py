"""Settings of the Quantum ESPRESSO oracle."""

import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from opengnome.settings import Settings

NAMELISTS: tuple[str, ...] = ("control", "system", "electrons")
"""Parts of the input of pw.x that `input_data` may add to."""

OWN_KEYWORDS: frozenset[str] = frozenset(
    {
        "calculation", "disk_io", "ecutrho", "ecutwfc", "ibrav", "max_seconds", "nat", "nspin", "ntyp", "occupations",
        "outdir", "prefix", "pseudo_dir", "restart_mode", "smearing", "degauss", "tprnfor", "tstress",
    }
)  # fmt: skip
"""Keywords of pw.x that the oracle sets itself."""

PHYSICAL_KEYWORDS: frozenset[str] = frozenset(
    {
        "tefield", "dipfield", "lelfield", "nberrycyc", "gate", "lfcp", "trism",
        "efield", "efield_cart(1)", "efield_cart(2)", "efield_cart(3)", "efield_phase", "real_space", "tqr",
    }
)  # fmt: skip
"""Keywords of control and electrons that change energies, as all of system do; the others are numerics."""

_NUMBERED = ("efield_cart(", "fixed_magnetization(", "b_field(")
"""Keywords whose number is a direction in space; any other number counts the species of one crystal."""

MACHINE_SETTINGS = frozenset({"command", "pseudo_dir", "folder", "keep"})
"""Where and how it runs, and where the pseudopotentials are: no part of the names of calculations. What the
pseudopotentials are is, by the level of theory."""


class EspressoSettings(Settings):
    """How pw.x of Quantum ESPRESSO is started, with which pseudopotentials, cutoffs and k-points.

    The relaxation (steps, limits, time) is our own, set by `RelaxationSettings`; pw.x computes one geometry at a
    time. The exchange-correlation functional is that of the pseudopotentials, which must all be of one, unless
    ``input_data = {system = {input_dft = ...}}`` names another.
    """

    command: str = "pw.x"
    """How pw.x is started, e.g. "mpirun -n 8 pw.x"; looked for on the PATH."""
    pseudo_dir: Path | None = None
    """Folder of pseudopotentials in the UPF format, for instance an unpacked SSSP library
    (doi:10.1038/s41524-018-0127-2) with its JSON file. Must be given."""
    pseudopotentials: dict[str, str] = Field(default_factory=dict)
    """File name by element symbol, where the folder has several of an element and no SSSP file says which."""
    functional: str | None = None
    """Which functional's files to take from a folder with those of several, e.g. "pbe"; None: all must be of one."""
    family: str | None = None
    """Name of the set of pseudopotentials in the name of the level of theory, which then must mean the same files
    everywhere; None: the name of the folder and a digest of its files, so that another file is another level."""
    ecutwfc_ry: float | None = Field(default=None, gt=0)
    """Cutoff of the wave functions, Rydberg. None: the largest of the SSSP file's for the elements of the crystal.
    One value for all crystals makes errors of the cutoff cancel in formation energies."""
    ecutrho_ry: float | None = Field(default=None, gt=0)
    """Cutoff of the density, Rydberg. None: the SSSP file's, or 8 times `ecutwfc_ry` where that is given
    (ultrasoft and PAW; norm-conserving pseudopotentials need 4 times)."""
    k_spacing: float = Field(default=0.25, gt=0)
    """Largest distance of k-points along a reciprocal vector, 1/Angstrom with 2 pi. The mesh is centred at Gamma
    and stays that of the initial cell during the relaxation."""
    smearing: Literal["cold", "gaussian", "methfessel-paxton"] = "cold"
    """Cold smearing is that of doi:10.1103/PhysRevLett.82.3296."""
    degauss_ry: float = Field(default=0.01, gt=0)
    """Width of the smearing, Rydberg. The energy is the free energy, whose derivatives the forces are."""
    magnetic_elements: tuple[str, ...] = (
        "V", "Cr", "Mn", "Fe", "Co", "Ni", "Mo", "W",
        "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb", "Dy", "Ho", "Er", "Tm", "Yb",
    )  # fmt: skip
    """A crystal with one of these, and one with O2 or superoxide ions, has spin and a ferromagnetic start; the others
    have no spin. Empty: no crystal has."""
    starting_magnetization: float = Field(default=0.5, gt=0, le=1)
    """Of the magnetic elements, as a fraction of the valence electrons."""
    conv_thr_ry_per_atom: float = Field(default=1e-9, gt=0)
    """Electronic convergence, Rydberg per atom."""
    input_data: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Further keywords of pw.x by namelist, e.g. {electrons = {mixing_beta = 0.2}}. Those of system and
    `PHYSICAL_KEYWORDS` are part of the level of theory, the others count as numerics."""
    energy_per_atom_range: tuple[float, float] = (-1e5, 0.0)
    """Outside is EXPLODED, eV/atom. It stands in place of the relaxation's, which must not be set: totals of
    pseudopotentials have their zero at separate electrons and cores, thousands of eV per atom away for heavy
    elements."""
    folder: Path = Path("espresso")
    """Each crystal gets a folder of its own in here, in which a killed calculation is found again."""
    keep: Literal["all", "failed", "none"] = "all"
    """Folders that stay after the calculation. With failed or none, a crystal whose result is lost before it
    is stored is calculated again."""

    @field_validator("command")
    @classmethod
    def _check_command(cls, command: str) -> str:
        if not shlex.split(command):  # whose own error is a ValueError too
            raise ValueError('a command must not be empty; write for instance "mpirun -n 8 pw.x"')
        return command

    @field_validator("input_data")
    @classmethod
    def _check_input_data(cls, input_data: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for namelist, keywords in input_data.items():
            if namelist not in NAMELISTS:
                raise ValueError(f"{namelist!r} is no namelist for input_data; use one of {', '.join(NAMELISTS)}")
            for keyword in keywords:
                if keyword.lower() in OWN_KEYWORDS:
                    raise ValueError(f"{keyword} is decided by the oracle and its settings; take it out of input_data")
                if "(" in keyword and not keyword.lower().startswith(_NUMBERED):
                    raise ValueError(
                        f"{keyword} counts the species, whose numbers differ from crystal to crystal; take it out of "
                        "input_data (moments: magnetic_elements and starting_magnetization; PBE+U: the oracles gpaw "
                        "and vasp)"
                    )
        return input_data
