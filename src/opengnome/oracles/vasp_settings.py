"""Settings of the VASP oracle."""

import shlex
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from opengnome.settings import Settings

OWN_TAGS: frozenset[str] = frozenset({"IBRION", "ISIF", "METAGGA", "LDAU", "NSW", "SYSTEM"})
"""INCAR tags that the steps themselves decide and `incar` may not."""

NEUTRAL_TAGS: frozenset[str] = frozenset(
    {
        "KPAR", "LPLANE", "LSCALAPACK", "LSCALU", "NCORE", "NPAR", "NSIM",  # how the work is distributed
        "LAECHG", "LCHARG", "LELF", "LORBIT", "LVHAR", "LVTOT", "LWAVE", "NWRITE",  # what is written
        "ALGO", "AMIN", "AMIX", "AMIX_MAG", "BMIX", "BMIX_MAG", "MAXMIX", "NELM", "NELMDL", "NELMIN", "POTIM", "TIME",
    }
)  # fmt: skip
"""INCAR tags that leave the energy alone, the last row as far as it is converged; they are no part of the level of
theory."""

R2SCAN_ENERGY_RANGE: tuple[float, float] = (-1000.0, 100.0)
"""Outside is EXPLODED in the r2SCAN steps, eV/atom, unless `relaxation.energy_per_atom_range` is set. VASP counts
energies from atoms as its potentials have them, which are those of PBE, so that r2SCAN's difference for the cores
stays: tens of eV for heavy elements, beyond the range that holds for PBE."""

MACHINE_SETTINGS = frozenset(
    {"command", "gamma_command", "potcar_dir", "folder", "keep", "poll_s", "monitor_s", "stop_s"}
)
"""Where and how it runs, which changes no result: no part of the names of calculations. Which potentials VASP gets
follows from preset and functional; `potcar_dir` is where those are."""


class VaspSettings(Settings):
    """Which inputs VASP gets, how it is started, and where it runs.

    The time limit of a crystal, the limits beyond which it has exploded (for r2SCAN's energies: `R2SCAN_ENERGY_RANGE`),
    and whether its cell is relaxed are those of `RelaxationSettings`. VASP minimises by itself with the criterion of
    the input set (MPRelaxSet: energy change below ten times EDIFF; MPScanRelaxSet: forces below 0.02 eV/Angstrom;
    another by ``incar = {EDIFFG = ...}``), so `fmax`, `max_steps`, `optimizer` and `max_step` there keep their
    defaults.
    """

    preset: Literal["mp", "gnome"] = "mp"
    """mp: the Materials Project's inputs as pymatgen has them. gnome: the same with newer potentials of Li, Na,
    Mg, Ge and Ga and a Gamma-centred mesh for every crystal of the hexagonal family
    (doi:10.1038/s41586-023-06735-9, Methods)."""
    functional: Literal["pbe", "pbe+u", "r2scan"] = "pbe+u"
    """pbe+u: PBE, with the Materials Project's U for V, Cr, Mn, Fe, Co, Ni, Mo, W in oxides and fluorides.
    pbe: PBE for all. r2scan: one PBE+U relaxation (as pbe+u has it), one r2SCAN relaxation and an r2SCAN
    static calculation without U."""
    command: str = "vasp_std"
    """How VASP is started, e.g. "mpirun -n 16 vasp_std"; looked for on the PATH."""
    gamma_command: str | None = None
    """How the Gamma-only build is started, for meshes of one k-point; None: `command` does these too."""
    potcar_dir: Path | None = None
    """Folder with POT_GGA_PAW_PBE and the like, laid out as pymatgen wants it. None: PMG_VASP_PSP_DIR of
    pymatgen's configuration."""
    folder: Path = Path("vasp")
    """Each crystal gets a folder of its own in here, in which a killed calculation is found again."""
    keep: Literal["all", "failed", "none"] = "all"
    """Folders that stay after the calculation. With failed or none, a crystal whose result is lost before it
    is stored is calculated again."""
    incar: dict[str, Any] = Field(default_factory=dict)
    """Further INCAR tags for every step, e.g. {NCORE = 4}. Tags other than `NEUTRAL_TAGS` are part of the level of
    theory: their energies share no hull with those of the plain input sets."""
    n_relaxations: int = Field(default=2, ge=1, le=5)
    """Relaxations of PBE or PBE+U in a row, each starting with a basis made for the cell the last one ended with.
    r2SCAN has its own two."""
    static: bool = True
    """End with a static calculation on a denser mesh; its energy is the result."""
    max_corrections: int = Field(default=5, ge=0)
    """Corrections by custodian in one step before the step has failed."""
    frozen_s: float = Field(default=21600.0, gt=0)
    """Seconds without output after which VASP counts as hung and is started again with other settings."""
    stop_s: float = Field(default=300.0, ge=0)
    """Seconds that VASP has to end itself after a STOPCAR, at the time limit or before a correction; then it
    is killed."""
    poll_s: float = Field(default=5.0, gt=0)
    """Seconds between two looks whether VASP has ended."""
    monitor_s: float = Field(default=120.0, gt=0)
    """Seconds between two looks at the files of the running VASP for errors, and at the time limit; each reads
    the whole OUTCAR."""

    @field_validator("incar")
    @classmethod
    def _check_incar(cls, incar: dict[str, Any]) -> dict[str, Any]:
        for tag in incar:
            if tag != tag.upper():
                raise ValueError(f"INCAR tags are written in capitals, got {tag!r}; write {tag.upper()!r}")
            if tag in OWN_TAGS:
                raise ValueError(
                    f"{tag} is decided by functional, relax_cell and the step itself; take it out of incar"
                )
        return incar

    @field_validator("command", "gamma_command")
    @classmethod
    def _check_command(cls, command: str | None) -> str | None:
        if command is not None and not shlex.split(command):  # whose own error is a ValueError too
            raise ValueError('a command must not be empty; write for instance "mpirun -n 16 vasp_std"')
        return command

    @property
    def physical_incar(self) -> dict[str, Any]:
        """The tags of `incar` that change energies."""
        return {tag: self.incar[tag] for tag in sorted(self.incar) if tag not in NEUTRAL_TAGS}
