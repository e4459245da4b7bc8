"""What a crystal is: records, tables, compositions, symmetry, reading and writing."""

from opengnome.crystals.composition import Composition, chemical_system, reduced_formula
from opengnome.crystals.crystal import Crystal, digest, supercell, with_atomic_numbers, with_volume
from opengnome.crystals.table import CrystalTable, concatenate

__all__ = [
    "Composition",
    "Crystal",
    "CrystalTable",
    "chemical_system",
    "concatenate",
    "digest",
    "reduced_formula",
    "supercell",
    "with_atomic_numbers",
    "with_volume",
]
