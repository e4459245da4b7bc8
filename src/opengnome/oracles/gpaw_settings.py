"""Settings of the GPAW oracle."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from opengnome.settings import Settings

MACHINE_SETTINGS = frozenset({"folder", "keep", "ranks", "mpi_command"})
"""Where and how it runs, which changes no result: no part of the names of calculations."""


class GpawSettings(Settings):
    """Functional, basis, mesh, spin and the way a relaxation goes; one core, plane waves, PAW data sets of PBE.

    When a relaxation counts as converged, its time limit, and the limits beyond which it has exploded are those
    of `RelaxationSettings`. Cutoff, meshes and smearing are the Materials Project's (pymatgen's MPRelaxSet and
    MPStaticSet, doi:10.1016/j.commatsci.2012.10.028) as far as another code and other data sets can have them.
    """

    functional: Literal["pbe", "pbe+u", "r2scan"] = "pbe+u"
    """pbe+u: PBE, with the Materials Project's U for V, Cr, Mn, Fe, Co, Ni, Mo, W in oxides and fluorides.
    pbe: PBE for all. r2scan: the first relaxation is PBE+U (as pbe+u has it), the others and the static
    calculation r2SCAN without U (doi:10.1021/acs.jpclett.0c02405)."""
    cutoff: float = Field(default=800.0, ge=100.0)
    """Kinetic energy up to which there are plane waves, eV. The data sets of oxygen and fluorine are harder than
    VASP's: at the 520 eV of the Materials Project the missing plane waves pull MgO together with 14 GPa and its
    energy changes by 4 meV per eV of cutoff, at 800 eV with 0.4 GPa and 0.1 meV, for 1.3 times the time."""
    kpoint_density: float = Field(default=64.0, gt=0)
    """Points per 1/Angstrom^3 of reciprocal space (2 pi included) in relaxations: the Materials Project's 64."""
    static_kpoint_density: float = Field(default=100.0, gt=0)
    """The same in the static calculation."""
    smearing: float = Field(default=0.05, gt=0)
    """Width of the Fermi-Dirac distribution, eV; energies are extrapolated to zero width."""
    spin: Literal["auto", "on", "off"] = "auto"
    """auto: a ferromagnetic start where `gpaw_parameters.starting_moments` sees a reason, else no spin.
    on: always. off: never."""
    n_relaxations: int = Field(default=2, ge=1, le=5)
    """Relaxations in a row, each starting with a basis, a mesh and symmetries made for the cell the last one
    ended with."""
    static: bool = True
    """End with a static calculation on the denser mesh; its energy and its band gap are the result."""
    symprec: float = Field(default=0.01, gt=0)
    """Tolerance of the space group that the relaxation keeps, Angstrom."""
    prerelax: Literal["none", "chgnet"] = "none"
    """chgnet: relax with the embedded potential first and start the first relaxation from what it gives."""
    max_corrections: int = Field(default=4, ge=0)
    """Steps up the ladder of `gpaw_parameters.LADDER` for one crystal before its calculation has failed."""
    ranks: int = Field(default=1, ge=1)
    """MPI processes for one crystal, over which GPAW divides k-points first. 1: no MPI. With a GPAW built without
    ScaLAPACK no more than the crystal has k-points are started."""
    mpi_command: str = "mpiexec"
    """How they are started, followed by ``-n`` and their number."""
    folder: Path = Path("gpaw")
    """Each crystal gets a folder of its own in here, in which a killed calculation is found again."""
    keep: Literal["all", "failed", "none"] = "all"
    """Folders that stay after the calculation. With failed or none, a crystal whose result is lost before it
    is stored is calculated again."""

    @model_validator(mode="after")
    def _check_r2scan(self) -> "GpawSettings":
        if self.functional == "r2scan" and self.n_relaxations < 2:
            raise ValueError("r2scan needs n_relaxations of at least 2: the first relaxation is PBE+U")
        return self
