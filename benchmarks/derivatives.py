"""Does partial substitution make the ordered derivatives that are known? Found and lost, with the reason.

    python benchmarks/derivatives.py --data DATA [--max-atoms 20] [--rows 4000] [--json FILE]

A crystal of the table is an ordered derivative of another when both become the same crystal, by pymatgen's
StructureMatcher, once one of its elements is written as another: Sr2TiZrO6 with Zr as Ti is SrTiO3. All crystals of
four and more elements are looked at, and every pair of their elements; the parent must be in the table. A derivative
is *made* when one of the symmetry-unique groupings of the parent (in the smallest supercell that holds as many atoms),
decorated with the other element, matches it. Before that can be, the substitution model must have the pair above the
threshold, and the charge rule must let it pass; each is counted.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np
from accuracy import n_elements
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.composition import reduced_formula
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table
from opengnome.crystals.symmetry import primitive_cell
from opengnome.errors import InvalidCrystalError
from opengnome.generation import GenerationSettings
from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent, ionic_parent
from opengnome.generation.partial import expanded_parents, groupings

LARGEST_INDEX = 4
MATCHER = StructureMatcher()


@dataclass(frozen=True)
class Derivative:
    """A crystal, its parent, and the element of the parent that partly became another."""

    crystal: Crystal
    crystal_id: str
    parent: Crystal
    parent_id: str
    old: int
    new: int

    @property
    def index(self) -> int:
        """Parent cells in the derivative's cell; both are primitive."""
        return round(self.crystal.n_atoms / self.parent.n_atoms)


def structure(crystal: Crystal) -> Structure:
    """The crystal for pymatgen."""
    return Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)


def derivatives(table: CrystalTable, rows: np.ndarray) -> Iterator[Derivative]:
    """The crystals at `rows` that are ordered derivatives of a crystal of the table, each with its first parent."""
    by_formula: dict[str, list[int]] = {}
    for row, formula in enumerate(table.reduced_formulas):
        by_formula.setdefault(formula, []).append(row)
    for row in rows.tolist():
        crystal = table[row]
        for old, new in permutations(np.unique(crystal.atomic_numbers).tolist(), 2):
            merged = np.where(crystal.atomic_numbers == new, old, crystal.atomic_numbers)
            found = _parent(table, by_formula.get(reduced_formula(merged), ()), crystal, merged)
            if found is None:
                continue
            parent_row, parent = found
            try:
                primitive = primitive_cell(crystal)
            except InvalidCrystalError:
                break
            yield Derivative(primitive, table.ids[row], parent, table.ids[parent_row], old, new)
            break


def _parent(
    table: CrystalTable, rows: list[int] | tuple[()], crystal: Crystal, merged: np.ndarray
) -> tuple[int, Crystal] | None:
    if not rows:
        return None
    wanted = structure(Crystal(crystal.lattice, crystal.frac_coords, merged))
    for row in rows:
        try:
            parent = primitive_cell(table[row])
        except InvalidCrystalError:
            continue
        if parent.n_atoms <= crystal.n_atoms and MATCHER.fit(wanted, structure(parent)):
            return row, parent
    return None


def fate(derivative: Derivative, settings: GenerationSettings) -> str:
    """Whether partial substitution makes a derivative, or why not."""
    parent = ionic_parent(derivative.parent, derivative.parent_id, usual=True)
    table = species_table()
    if parent is None or derivative.new not in table.states:
        return "an element that the substitution model does not know"
    if derivative.index > LARGEST_INDEX:
        return f"a supercell of more than {LARGEST_INDEX} parent cells"
    ion = int(np.flatnonzero(table.atomic_numbers[parent.ions] == derivative.old)[0])
    probabilities = settings.model.conditional_probabilities()[list(table.states[derivative.new]), parent.ions[ion]]
    likely = np.array(table.states[derivative.new])[probabilities > settings.threshold]
    if not len(likely):
        return "pair below the threshold"
    if not _made(derivative, parent, ion):
        return "no grouping matches"
    same_charge = table.charges[likely] == table.charges[parent.ions[ion]]
    suffix = "" if same_charge.any() else ", but not with the charge rule"
    return f"made in {derivative.index} parent cell{'s' if derivative.index > 1 else ''}{suffix}"


def _made(derivative: Derivative, parent: IonicParent, ion: int) -> bool:
    wanted = structure(derivative.crystal)
    count = int((derivative.crystal.atomic_numbers == derivative.new).sum())
    lattice = None
    cells = [parent]
    if derivative.index > 1:
        lattice = parent.crystal.lattice
        larger = expanded_parents(parent, size=derivative.index, max_atoms=10**6, symprec=0.01)
        cells = [c for c in larger if c.crystal.n_atoms == derivative.index * parent.crystal.n_atoms]
    for cell in cells:
        groups = groupings(cell, symprec=0.01, max_subsets=1000, expanded_from=lattice)
        for sites in groups.choose(ion, count):
            numbers = cell.crystal.atomic_numbers.copy()
            numbers[sites] = derivative.new
            if MATCHER.fit(wanted, structure(Crystal(cell.crystal.lattice, cell.crystal.frac_coords, numbers))):
                return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--rows", type=int, help="look at this many crystals, drawn by seed")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = read_table(options.data / "mp_crystals.parquet")
    table = table.filter(table.n_atoms <= options.max_atoms)
    rows = np.flatnonzero(n_elements(table) >= 4)
    if options.rows:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[: options.rows])
    fates: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    settings = GenerationSettings()
    for derivative in derivatives(table, rows):
        name = fate(derivative, settings)
        fates[name] += 1
        text = (
            f"{derivative.crystal.reduced_formula} ({derivative.crystal_id}) from {derivative.parent.reduced_formula} "
            f"({derivative.parent_id}), {SYMBOLS[derivative.old]} -> {SYMBOLS[derivative.new]}"
        )
        examples.setdefault(name, []).append(text)
    n = fates.total()
    made = sum(count for name, count in fates.items() if name.startswith("made"))
    result = {
        "crystals_looked_at": len(rows),
        "ordered_derivatives": n,
        "made": made,
        "share_made": made / max(n, 1),
        "fates": dict(fates.most_common()),
        "examples": {name: texts[:8] for name, texts in examples.items()},
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
