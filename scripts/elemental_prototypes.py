"""Crystal structures in which elements may crystallise, as starting points for relaxations.

The structures are pymatgen's unary AFLOW prototypes with another element, scaled to its bond length: the
common ones (`COMMON`) for all elements but those of diatomic molecules, and for each element those in which
it or its neighbours in the periodic table are known (`SPECIAL`). The prototypes of the element itself are not
repeated here; they are among the AFLOW crystals.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from opengnome.crystals import Crystal, with_atomic_numbers, with_volume
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.geometry import minimum_distance
from opengnome.crystals.interop import from_pymatgen

COMMON = {
    "A_cF4_225_a": "fcc",
    "A_cI2_229_a": "bcc",
    "A_hP2_194_c": "hcp",
    "A_hP4_194_ac": "dhcp",
    "A_hR3_166_ac": "alpha-Sm",
    "A_cP1_221_a": "simple cubic",
    "A_cF8_227_a": "diamond",
    "A_tI4_141_a": "beta-Sn",
}
"""AFLOW label -> common name."""

SPECIAL = {
    "A_hP4_194_bc": "C",
    "A_hR2_166_c:beta oxygen": "H N O F",
    "A_mC4_12_i": "O F",
    "A_cP8_205_c": "H N O F",
    "A_tP4_136_f": "H N F",
    "A_tP16_138_j": "Cl Br F",
    "A_oC8_64_f:": "H F Cl Br I",
    "A_oC8_64_f:black P": "P As",
    "A_oC8_64_f:alpha": "Ga",
    "A_hR2_166_c:alpha As": "P As Sb Bi",
    "A_hP3_152_a": "S Se Te",
    "A_oF128_70_4h": "S",
    "A_mP32_14_8e": "Se",
    "A_hR12_166_2h": "B",
    "A_cI58_217_ac2g": "Mn",
    "A_cP20_213_cd": "Mn",
    "A_hR1_166_a:alpha": "Hg",
    "A_tI2_139_a:Indium": "In Ga Tl",
    "A_tI2_139_a:Protactinium": "Pa Hg U",
    "A_oC4_63_c": "U Pa Np Pu",
    "A_oP8_62_2c": "Np U",
    "A_tP4_129_ac": "Np Pu",
    "A_oF8_70_a": "Pu",
    "A_mP16_11_8e": "Pu",
}
"""AFLOW label, with ":mineral" where several prototypes share a label -> elements that also get it."""

NEAREST_OF_NOBLE_GASES = {"He": 3.0, "Ne": 3.1, "Ar": 3.75, "Kr": 4.0, "Xe": 4.35}
"""Distance of nearest atoms in the solid, A; covalent radii say nothing about them."""

BOND_OF_MOLECULES = {"H": 0.74, "N": 1.10, "O": 1.21, "F": 1.42, "Cl": 1.99, "Br": 2.28, "I": 2.67}
"""Bond length of the diatomic molecule, A."""

MOLECULAR = {
    "A_hR2_166_c:beta oxygen",
    "A_mC4_12_i",
    "A_cP8_205_c",
    "A_tP4_136_f",
    "A_tP16_138_j",
    "A_oC8_64_f:",
}
"""Prototypes of molecules: bond lengths and packing scale differently, see `_molecular`."""

VOLUME_PER_ATOM_OF_MOLECULES = {"H": 10.0, "N": 20.0, "O": 16.0, "F": 16.0, "Cl": 29.0, "Br": 33.0, "I": 43.0}
"""Volume in the molecular solid near its melting point or below, A^3/atom."""


def elemental_crystals(atomic_numbers: Iterable[int]) -> Iterator[tuple[str, str, Crystal]]:
    """(symbol, AFLOW label, starting crystal) of everything to try for these elements, by atomic number."""
    library = _library()
    for z in sorted(atomic_numbers):
        symbol = SYMBOLS[z]
        keys = [] if symbol in BOND_OF_MOLECULES else list(COMMON)
        keys += [key for key, symbols in SPECIAL.items() if symbol in symbols.split()]
        for key in keys:
            if z not in library[key].atomic_numbers:
                make = _molecular if key in MOLECULAR else _scaled
                yield symbol, key.split(":")[0] + _suffix(key), make(library[key], z)


def _suffix(key: str) -> str:
    mineral = key.partition(":")[2]
    return "-" + mineral.replace(" ", "-") if mineral else ""


def _library() -> dict[str, Crystal]:
    """The first unary AFLOW prototype of each label, and of each label:mineral."""
    from pymatgen.analysis.prototypes._data import AFLOW_PROTOTYPE_LIBRARY

    library: dict[str, Crystal] = {}
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure, tags = entry["snl"].structure, entry["tags"]
        if len(structure.composition) > 1:
            continue
        crystal = from_pymatgen(structure)
        for key in (tags["aflow"], f"{tags['aflow']}:{tags['mineral'] or ''}"):
            library.setdefault(key, crystal)
    return library


def _scaled(crystal: Crystal, z: int) -> Crystal:
    """The prototype with element z, scaled to its bond length."""
    factor = _bond(z) / minimum_distance(crystal)
    return with_atomic_numbers(with_volume(crystal, crystal.volume * factor**3), np.full(crystal.n_atoms, z))


def _bond(z: int) -> float:
    from ase.data import covalent_radii

    return NEAREST_OF_NOBLE_GASES.get(SYMBOLS[z], 2.0 * float(covalent_radii[z]))


def _molecular(crystal: Crystal, z: int) -> Crystal:
    """The molecular prototype with element z: the cell scaled to its volume, then each bond to its length."""
    symbol = SYMBOLS[z]
    volume = VOLUME_PER_ATOM_OF_MOLECULES[symbol] * crystal.n_atoms
    packed = with_volume(with_atomic_numbers(crystal, np.full(crystal.n_atoms, z)), volume)
    return Crystal(packed.lattice, _with_bonds(packed, BOND_OF_MOLECULES[symbol]), packed.atomic_numbers)


def _with_bonds(crystal: Crystal, bond: float) -> np.ndarray:
    """Fractional coordinates with every atom moved along the line to its nearest atom's image."""
    shifts = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    frac_coords = crystal.frac_coords.copy()
    for i in range(crystal.n_atoms):
        vectors = (crystal.frac_coords[None] + shifts[:, None] - crystal.frac_coords[i]).reshape(-1, 3)
        lengths = np.linalg.norm(vectors @ crystal.lattice, axis=1)
        lengths[lengths < 1e-6] = np.inf
        nearest = int(lengths.argmin())
        frac_coords[i] += vectors[nearest] * (1.0 - bond / lengths[nearest]) / 2.0
    return frac_coords
