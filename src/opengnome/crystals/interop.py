"""To and from the objects of pymatgen and ASE, which are imported only when asked for."""

from typing import TYPE_CHECKING

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.errors import InvalidCrystalError

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Structure


def to_pymatgen(crystal: Crystal) -> "Structure":
    """The crystal as a pymatgen `Structure`, sites in the same order."""
    from pymatgen.core import Lattice, Structure

    return Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)


def from_pymatgen(structure: "Structure") -> Crystal:
    """The crystal of an ordered pymatgen `Structure`; oxidation states and site properties are dropped.

    Raises `InvalidCrystalError` naming the site when it is shared, partly empty, or no element.
    """
    for number, site in enumerate(structure):
        if not site.is_ordered:
            raise InvalidCrystalError(
                f"site {number} is occupied by {site.species_string!r}, every site must be fully "
                "occupied by one element; give an ordered approximant of the disordered crystal"
            )
        if not hasattr(site.specie, "element") and not hasattr(site.specie, "atomic_mass"):
            raise InvalidCrystalError(f"site {number} holds {site.specie}, which is not an element")
    numbers = np.array([site.specie.Z for site in structure])
    return Crystal(structure.lattice.matrix, structure.frac_coords, numbers)


def to_ase(crystal: Crystal) -> "Atoms":
    """The crystal as ASE `Atoms`, periodic in all directions, sites in the same order."""
    from ase import Atoms

    return Atoms(numbers=crystal.atomic_numbers, cell=crystal.lattice, scaled_positions=crystal.frac_coords, pbc=True)


def from_ase(atoms: "Atoms") -> Crystal:
    """The crystal of ASE `Atoms`.

    Raises `InvalidCrystalError` when they are not periodic in all three directions (a molecule, a slab), or
    when their `occupancy` says that a site is shared or partly empty.
    """
    if not atoms.pbc.all():
        raise InvalidCrystalError(
            f"the atoms are periodic along {['no', 'one', 'two'][int(atoms.pbc.sum())]} of the three lattice "
            "vectors, a crystal is periodic along all; give a Lattice and pbc='T T T'"
        )
    for site, occupants in atoms.info.get("occupancy", {}).items():
        if list(occupants.values()) != [1]:
            raise InvalidCrystalError(
                f"site {site} has the occupancy {occupants}, every site must be fully occupied by one "
                "element; give an ordered approximant of the disordered crystal"
            )
    return Crystal(atoms.cell.array, atoms.get_scaled_positions(wrap=False), atoms.numbers)
