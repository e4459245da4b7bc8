"""The known set of the flagship campaign before any calculation: elements, and known compounds as decorated prototypes.

`examples/flagship/known_compounds.csv` names each compound, its prototype (an AFLOW label of the embedded known set,
or one of `OTHER_PROTOTYPES`), and which element takes the place of which. In it are, by their ids, the compounds of
at most six atoms that the Materials Project (CC BY 4.0, doi:10.1063/1.4812323) marks as made and has within 30
meV/atom of its hull; and without an id others from textbooks, so that every metal has a compound with every anion.
Where the crystal of a compound has more atoms its smallest polymorph stands for it (BaCl2, BaBr2 and SrBr2 as
fluorite, S as rings of six). Superoxides are left out. This writes them as crystals, with volumes from
`generation.volume_estimate`, for the oracle to relax:

    python scripts/flagship_known_set.py runs/flagship/known_inputs.parquet
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from elemental_prototypes import elemental_crystals
from pymatgen.core import Lattice, Structure

from opengnome.crystals import Composition, Crystal, CrystalTable, with_atomic_numbers, with_volume
from opengnome.crystals.elements import SYMBOLS, atomic_number
from opengnome.crystals.interop import from_pymatgen
from opengnome.crystals.io import write_table
from opengnome.crystals.symmetry import primitive_cell
from opengnome.datasets import KnownSetSettings, load_known_set
from opengnome.generation.volume_estimate import volume_estimate

COMPOUNDS = Path(__file__).parents[1] / "examples/flagship/known_compounds.csv"

SMALLER_ELEMENTS = {"Cl": "A_oC8_64_f", "Br": "A_oC8_64_f"}
"""Four atoms (the crystal of iodine, which both have) in place of the 16 of the packaged crystals."""
OTHER_PROTOTYPES = {
    "CdCl2": (166, (3.85, 3.85, 17.5, 90, 90, 120), ("Cd", "Cl"), ((0, 0, 0), (0, 0, 0.255))),
    "S6": (148, (10.77, 10.77, 4.23, 90, 90, 120), ("S",), ((0.145, 0.188, 0.105),)),
    "ZnCl2": (122, (5.40, 5.40, 10.3, 90, 90, 90), ("Zn", "Cl"), ((0, 0, 0), (0.25, 0.25, 0.125))),
}
"""Space group, lengths (A) and angles, elements, coordinates of one atom per orbit: what the packaged set lacks."""
CHAINS = {"Se": "aflow-A_hP3_152_a"}
"""Grey selenium, 3 atoms, in place of the packaged rings of 32."""


def main() -> None:
    """Write the crystals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    with COMPOUNDS.open() as file:
        compounds = list(csv.DictReader(file))
    packaged = packaged_crystals()
    prototypes = packaged | {f"aflow-{name}": other_prototype(name) for name in OTHER_PROTOTYPES}
    crystals = {row["formula"]: decorated(prototypes[f"aflow-{row['prototype']}"], row) for row in compounds}
    symbols = sorted({SYMBOLS[z] for crystal in crystals.values() for z in crystal.atomic_numbers.tolist()})
    crystals |= {f"element-{symbol}": element(symbol, packaged) for symbol in symbols}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_table(arguments.output, CrystalTable.from_crystals(list(crystals.values()), list(crystals)))
    print(f"{len(compounds)} compounds and {len(symbols)} elements in {arguments.output}")


def packaged_crystals() -> dict[str, Crystal]:
    """The crystals of the embedded known set by id; of several with one label the first, so ids are unique."""
    table = load_known_set(KnownSetSettings()).table
    return dict(zip(reversed(table.ids), reversed(list(table)), strict=True))


def other_prototype(name: str) -> Crystal:
    """One of `OTHER_PROTOTYPES`."""
    number, lattice, elements, coordinates = OTHER_PROTOTYPES[name]
    structure = Structure.from_spacegroup(number, Lattice.from_parameters(*lattice), elements, coordinates)
    return from_pymatgen(structure)


def decorated(prototype: Crystal, row: dict[str, str]) -> Crystal:
    """The prototype's primitive cell with the row's elements and the volume their composition is estimated to have."""
    cell = primitive_cell(prototype)
    takes_place = {atomic_number(old): atomic_number(new) for old, new in replacements(row["replacements"])}
    crystal = with_atomic_numbers(cell, np.array([takes_place[z] for z in cell.atomic_numbers.tolist()]))
    if crystal.composition.reduced_formula != Composition.from_formula(row["formula"]).reduced_formula:
        raise ValueError(
            f"{row['formula']}: {row['prototype']} with {row['replacements']} is {crystal.reduced_formula}"
        )
    return with_volume(crystal, volume_estimate(crystal.composition).volume_per_atom * crystal.n_atoms)


def replacements(text: str) -> Iterator[tuple[str, str]]:
    """("Ti", "Mg"), ("Ca", "K") of "Ti=Mg Ca=K"."""
    for pair in text.split():
        old, new = pair.split("=")
        yield old, new


def element(symbol: str, packaged: dict[str, Crystal]) -> Crystal:
    """A small crystal of an element."""
    if symbol == "S":
        return primitive_cell(other_prototype("S6"))
    if symbol in CHAINS:
        return packaged[CHAINS[symbol]]
    if symbol not in SMALLER_ELEMENTS:
        return packaged[f"element-{symbol}"]
    tried = elemental_crystals([atomic_number(symbol)])
    return next(crystal for _, label, crystal in tried if label == SMALLER_ELEMENTS[symbol])


if __name__ == "__main__":
    main()
