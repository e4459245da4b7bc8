"""What GPAW is asked to do: the stages of a calculation and the parameters of each.

The Materials Project's settings are those of pymatgen's MPRelaxSet and MPStaticSet
(doi:10.1016/j.commatsci.2012.10.028).
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.symmetry import space_group_number, space_group_symbol
from opengnome.oracles.dioxygen import has_dioxygen
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.hexagonal import is_of_hexagonal_family

HUBBARD_U: dict[str, float] = {
    "V": 3.25, "Cr": 3.7, "Mn": 3.9, "Fe": 5.3, "Co": 3.32, "Ni": 6.2, "Mo": 4.38, "W": 6.2,
}  # fmt: skip
"""U - J of the d shell in oxides and fluorides, eV (MPRelaxSet; fitted to oxidation energies in
doi:10.1103/PhysRevB.84.045115)."""

STARTING_MOMENTS: dict[str, float] = {
    "V": 5.0, "Cr": 5.0, "Mn": 5.0, "Fe": 5.0, "Co": 0.6, "Ni": 5.0, "Mo": 5.0, "W": 5.0,
    "Ce": 5.0, "Pr": 2.0, "Nd": 3.0, "Pm": 4.0, "Sm": 5.0, "Eu": 10.0, "Gd": 7.0, "Tb": 6.0, "Dy": 5.0, "Ho": 4.0,
    "Er": 3.0, "Tm": 2.0, "Yb": 1.0,
}  # fmt: skip
"""Moments of a ferromagnetic start, Bohr magnetons (pymatgen's VASPIncarBase; its values for trivalent ions stand
for lanthanides of any valence)."""

OTHER_MOMENT = 0.6
"""Start of every other atom of a crystal that has spin."""

R2SCAN = "MGGA_X_R2SCAN+MGGA_C_R2SCAN"
"""libxc's names."""


@dataclass(frozen=True)
class Stage:
    """One optimisation, or the static calculation at the end."""

    name: str
    kind: Literal["relax", "static"]
    functional: Literal["pbe", "pbe+u", "r2scan"]
    counts: bool
    """Whether its energies are of the oracle's level: not those of the PBE+U relaxation before r2SCAN."""


@dataclass(frozen=True)
class Correction:
    """One step of the ladder: what changes after a failure, and stays changed for this crystal."""

    name: str
    parameters: dict[str, Any]
    """GPAW parameters that replace those before."""
    max_step_factor: float = 1.0
    """Multiplies the longest move of an atom in a step."""


LADDER: tuple[Correction, ...] = (
    Correction("mixing", {"mixer": {"name": "pulay", "beta": 0.03, "nmaxold": 8, "weight": 100.0}, "maxiter": 500}),
    Correction("bands", {"nbands": "200%", "eigensolver": {"name": "davidson", "niter": 4}}),
    Correction("smearing", {"occupations": {"name": "methfessel-paxton", "order": 1, "width": 0.2}}),
)
"""After each failure of the self-consistent cycle the next one: slower mixing that damps long waves and more
iterations, more empty bands and a solver that does more per iteration, a width at which levels near the Fermi
energy do not swap. That width is of Methfessel and Paxton's smearing (doi:10.1103/PhysRevB.40.3616): of bcc vanadium it
moves the energy by 0.3 meV/atom, where a Fermi-Dirac width of 0.2 eV, extrapolated to zero, moves it by 13."""

SMALLER_STEPS = Correction("smaller steps", {}, max_step_factor=0.25)
"""After a geometry that left physics: the relaxation starts again from where its stage began."""


def plan_stages(settings: GpawSettings, *, max_steps: int) -> tuple[Stage, ...]:
    """What is done for one crystal, in order; without steps (`max_steps` 0) one evaluation of the input geometry."""
    final: Literal["pbe", "pbe+u", "r2scan"] = settings.functional
    static = Stage("static", "static", final, counts=True)
    if max_steps == 0:
        return (static,)
    relaxations = [Stage(f"relax-{i + 1}", "relax", final, counts=True) for i in range(settings.n_relaxations)]
    if final == "r2scan":
        relaxations[0] = Stage("pbe-relax", "relax", "pbe+u", counts=False)
    return (*relaxations, static) if settings.static else tuple(relaxations)


def level_name(settings: GpawSettings) -> str:
    """The level of theory, e.g. "gpaw-pbe+u-800eV"; energies of different levels never share a hull."""
    parts = ["gpaw", settings.functional, f"{settings.cutoff:g}eV"]
    if not settings.static:
        parts.append("nostatic")
    if settings.spin != "auto":
        parts.append(f"spin-{settings.spin}")
    usual = GpawSettings()
    name = "static_kpoint_density" if settings.static else "kpoint_density"
    if getattr(settings, name) != getattr(usual, name):
        parts.append(f"k{getattr(settings, name):g}")
    if settings.smearing != usual.smearing:
        parts.append(f"smearing{settings.smearing:g}")
    return "-".join(parts)


def gpaw_parameters(
    crystal: Crystal, stage: Stage, settings: GpawSettings, corrections: tuple[Correction, ...] = ()
) -> dict[str, Any]:
    """Keyword arguments of `gpaw.GPAW` for one stage; later corrections replace what earlier ones set."""
    density = settings.static_kpoint_density if stage.kind == "static" else settings.kpoint_density
    size, gamma = kpoint_mesh(crystal, density, symprec=settings.symprec)
    parameters: dict[str, Any] = {
        "mode": {"name": "pw", "ecut": settings.cutoff},
        "xc": R2SCAN if stage.functional == "r2scan" else "PBE",
        "kpts": {"size": size, "gamma": gamma},
        "occupations": {"name": "fermi-dirac", "width": settings.smearing},
        # glides and screws too: wurtzite ZnS has 30 k-points in place of 40, and takes 24 s in place of 35
        "symmetry": {"symmorphic": False},
    }
    moments = starting_moments(crystal, settings)
    if moments is not None:
        parameters["magmoms"] = moments
        parameters["spinpol"] = True
    setups = hubbard_setups(crystal) if stage.functional == "pbe+u" else {}
    if setups:
        parameters["setups"] = setups
    for correction in corrections:
        parameters |= correction.parameters
    return parameters


def kpoint_mesh(crystal: Crystal, density: float, *, symprec: float) -> tuple[tuple[int, int, int], bool]:
    """Divisions along the reciprocal vectors, and whether the mesh has a point at Gamma.

    The rule is pymatgen's `Kpoints.automatic_density_by_vol`: along axis i the integer part of
    ``(density * (2 pi)^3 / V * a b c)^(1/3) / length_i``, at least 1; Gamma-centred for the hexagonal family
    (as GNoME forces it), face-centred crystals and meshes with an odd number, else shifted by half a division.
    """
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    n_points = density * (2 * math.pi) ** 3 / crystal.volume
    scale = (n_points * lengths.prod()) ** (1 / 3)
    # a whole number minus a rounding error must not lose a division
    n1, n2, n3 = (math.floor(max(scale / length, 1.0) + 1e-9) for length in lengths)
    number = space_group_number(crystal, symprec=symprec)
    gamma = (
        any(n % 2 for n in (n1, n2, n3)) or is_of_hexagonal_family(number) or space_group_symbol(number).startswith("F")
    )
    return (n1, n2, n3), gamma


def starting_moments(crystal: Crystal, settings: GpawSettings) -> list[float] | None:
    """Moment of each atom in Bohr magnetons, all positive, or None for a calculation without spin.

    There is a reason for spin when an element of `STARTING_MOMENTS` is there, or two oxygen atoms as close as
    in O2 and superoxide.
    """
    if settings.spin == "off":
        return None
    symbols = [SYMBOLS[z] for z in crystal.atomic_numbers]
    if settings.spin == "auto" and not (STARTING_MOMENTS.keys() & set(symbols) or has_dioxygen(crystal)):
        return None
    return [STARTING_MOMENTS.get(symbol, OTHER_MOMENT) for symbol in symbols]


def hubbard_setups(crystal: Crystal) -> dict[str, str]:
    """GPAW's names of the data sets that carry a U, by element; none unless the anion is oxygen or fluorine.

    As in pymatgen, the anion is the most electronegative element. The occupations are not rescaled to the whole
    shell (the last 0), as VASP does not rescale them either.
    """
    symbols = {SYMBOLS[z] for z in crystal.atomic_numbers}
    if not symbols & {"O", "F"}:  # the two most electronegative elements
        return {}
    return {symbol: f":d,{HUBBARD_U[symbol]:g},0" for symbol in sorted(symbols & HUBBARD_U.keys())}
