"""The known set of the flagship campaign before any calculation: elements, and known compounds as decorated prototypes.

`examples/flagship/known_compounds.csv` names each compound, the AFLOW prototype that comes with the package, and which
element takes the place of which. This writes them as crystals, with volumes from `generation.volume_estimate`, for the
oracle to relax:

    python scripts/flagship_known_set.py runs/flagship/known_inputs.parquet
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from elemental_prototypes import elemental_crystals

from opengnome.crystals import Composition, Crystal, CrystalTable, with_atomic_numbers, with_volume
from opengnome.crystals.elements import SYMBOLS, atomic_number
from opengnome.crystals.io import write_table
from opengnome.crystals.symmetry import primitive_cell
from opengnome.datasets import KnownSetSettings, load_known_set
from opengnome.generation.volume_estimate import volume_estimate

COMPOUNDS = Path(__file__).parents[1] / "examples/flagship/known_compounds.csv"

SMALLER_ELEMENTS = {"Cl": "A_oC8_64_f", "Br": "A_oC8_64_f"}
"""Four atoms (the crystal of iodine, which both have) in place of the 16 of the packaged crystals."""
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
    crystals = {row["formula"]: decorated(packaged[f"aflow-{row['prototype']}"], row) for row in compounds}
    symbols = sorted({SYMBOLS[z] for crystal in crystals.values() for z in crystal.atomic_numbers.tolist()})
    crystals |= {f"element-{symbol}": element(symbol, packaged) for symbol in symbols}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_table(arguments.output, CrystalTable.from_crystals(list(crystals.values()), list(crystals)))
    print(f"{len(compounds)} compounds and {len(symbols)} elements in {arguments.output}")


def packaged_crystals() -> dict[str, Crystal]:
    """The crystals of the embedded known set by id; of several with one label the first, so ids are unique."""
    table = load_known_set(KnownSetSettings()).table
    return dict(zip(reversed(table.ids), reversed(list(table)), strict=True))


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
    if symbol in CHAINS:
        return packaged[CHAINS[symbol]]
    if symbol not in SMALLER_ELEMENTS:
        return packaged[f"element-{symbol}"]
    tried = elemental_crystals([atomic_number(symbol)])
    return next(crystal for _, label, crystal in tried if label == SMALLER_ELEMENTS[symbol])


if __name__ == "__main__":
    main()
