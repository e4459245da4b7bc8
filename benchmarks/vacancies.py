"""Ordered vacancies among known crystals: how the volume follows, and what the charge rule passes.

    python benchmarks/vacancies.py --data DATA [--systems 4953] [--max-atoms 16] [--json FILE]

Two crystals of a chemical system are a pair when one of the symmetry-unique groupings of the first (in a supercell of
up to four cells), taken out of it, leaves the second by pymatgen's StructureMatcher; at most half of one element's
atoms leave. Systems are looked at in an order drawn by seed. For each pair: volume of the child over that of the parent
without the atoms, against the guesses of the generator with several radii of a vacancy; and whether the charge rule
passes the child.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import read_table
from opengnome.crystals.symmetry import primitive_cell
from opengnome.errors import InvalidCrystalError
from opengnome.generation.parent import IonicParent, ionic_parent
from opengnome.generation.partial import Groupings, expanded_parents, groupings
from opengnome.generation.vacancies import VACANCY_RADIUS, Vacancies, vacancy_length_factors

LARGEST_INDEX = 4
MAX_SUBSETS = 30
RADII = (0.8, 0.85, 0.9, 0.95, 1.0)
MATCHER = StructureMatcher(ltol=0.2, stol=0.2, angle_tol=5)


@dataclass(frozen=True)
class Pair:
    """A parent, and a child that is the parent without some of one ion's atoms."""

    parent_id: str
    child_id: str
    parent_formula: str
    child_formula: str
    has_anions: bool
    volume_ratio: float
    """Volume of the child per atom over that of the parent's cell without the atoms."""
    lost: float
    """Share of the cell's length that goes when a vacancy has no radius (`vacancy_length_factors`)."""
    share: float
    """Share of the atoms that leave."""
    passes: bool
    """Whether the charge rule passes the child."""


def structure(crystal: Crystal) -> Structure:
    """The crystal for pymatgen."""
    return Structure(Lattice(crystal.lattice), crystal.atomic_numbers.tolist(), crystal.frac_coords)


def without(crystal: Crystal, sites: np.ndarray) -> Crystal:
    """The crystal without the atoms at `sites`."""
    kept = np.setdiff1d(np.arange(crystal.n_atoms), sites)
    return Crystal(crystal.lattice, crystal.frac_coords[kept], crystal.atomic_numbers[kept])


def removal(parent: np.ndarray, child: np.ndarray, max_atoms: int) -> tuple[int, int, int] | None:
    """Parent cells, element and number of its atoms that leave to give the child's stoichiometry, if any do.

    `parent` and `child` hold the numbers of atoms of the same elements in the same order.
    """
    for index in range(1, min(LARGEST_INDEX, max_atoms // int(parent.sum())) + 1):
        for element in range(len(parent)):
            total = index * parent
            others = np.arange(len(parent)) != element
            factor = total[others][0] / child[others][0]
            left = factor * child[element]
            n_gone = round(float(total[element] - left))
            fits = np.allclose(total[others], factor * child[others]) and np.isclose(total[element] - left, n_gone)
            if fits and 0 < n_gone <= total[element] / 2:
                return index, element, n_gone
    return None


def pairs(table: CrystalTable, n_systems: int, max_atoms: int) -> Iterator[Pair]:
    """All pairs of the first `n_systems` chemical systems of two to four elements with more than one crystal."""
    systems: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for row in range(len(table)):
        elements, counts = np.unique(table[row].atomic_numbers, return_counts=True)
        if 2 <= len(elements) <= 4:
            systems.setdefault(tuple(elements.tolist()), []).append((row, counts))
    keys = list(systems)
    np.random.default_rng(1).shuffle(keys)
    for key in keys[:n_systems]:
        members = systems[tuple(int(z) for z in key)]
        for row, counts in members:
            children = [r for r, other in members if r != row and removal(counts, other, max_atoms)]
            if children:
                yield from _children(table, row, children, max_atoms)


def _children(table: CrystalTable, row: int, children: list[int], max_atoms: int) -> Iterator[Pair]:
    try:
        crystal = primitive_cell(table[row])
        parent = ionic_parent(crystal, table.ids[row], usual=True)
        if parent is None:
            return
        cells: dict[int, list[tuple[IonicParent, Groupings]]] = {}
        for child in children:
            found = removal(parent.ion_counts, _counts(table[child]), max_atoms)
            if found is None:
                continue
            index, ion, n_gone = found
            if index not in cells:
                cells[index] = _cells(parent, index, max_atoms)
            pair = _pair(table, row, child, cells[index], ion, n_gone)
            if pair is not None:
                yield pair
    except InvalidCrystalError as error:
        print(f"{table.ids[row]} left out: {error}")


def _counts(crystal: Crystal) -> np.ndarray:
    return np.unique(crystal.atomic_numbers, return_counts=True)[1]


def _cells(parent: IonicParent, index: int, max_atoms: int) -> list[tuple[IonicParent, Groupings]]:
    larger = [parent]
    if index > 1:
        wanted = index * parent.crystal.n_atoms
        expanded = expanded_parents(parent, size=index, max_atoms=max_atoms, symprec=0.01)
        larger = [cell for cell in expanded if cell.crystal.n_atoms == wanted]
    lattice = parent.crystal.lattice if index > 1 else None
    return [(cell, groupings(cell, symprec=0.01, max_subsets=MAX_SUBSETS, expanded_from=lattice)) for cell in larger]


def _pair(
    table: CrystalTable, row: int, child: int, cells: list[tuple[IonicParent, Groupings]], ion: int, n_gone: int
) -> Pair | None:
    wanted = table[child]
    for cell, groups in cells:
        for sites in groups.choose(ion, n_gone):
            left = without(cell.crystal, sites)
            if MATCHER.fit(structure(wanted), structure(left)):
                vacant = np.isin(np.arange(cell.crystal.n_atoms), sites)[None]
                shrinkage = float(1 - vacancy_length_factors(cell, vacant)[0])
                return Pair(
                    table.ids[row],
                    table.ids[child],
                    table.reduced_formulas[row],
                    table.reduced_formulas[child],
                    cell.has_anions,
                    wanted.volume_per_atom / left.volume_per_atom,
                    shrinkage / (1 - VACANCY_RADIUS),
                    float(vacant.mean()),
                    bool(Vacancies(cell, np.array([ion]), np.array([n_gone])).balanced()[0]),
                )
    return None


def report(found: list[Pair], name: str) -> None:
    """Relative error of the volume, median and mean absolute, by radius of a vacancy."""
    if not found:
        return
    ratios, lost = np.array([p.volume_ratio for p in found]), np.array([p.lost for p in found])
    shares = np.array([p.share for p in found])
    guesses = {f"radius {x}": (1 - (1 - x) * lost) ** 3 for x in RADII} | {"volume per atom kept": 1 - shares}
    print(f"{name}: {len(found)} pairs, median volume ratio {np.median(ratios):.3f}")
    for guess, volumes in guesses.items():
        errors = ratios / volumes - 1
        print(f"  {guess}: median {np.median(errors):+.3f}, mean absolute {np.abs(errors).mean():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--systems", type=int, default=4953)
    parser.add_argument("--max-atoms", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    table = read_table(options.data / "mp_crystals.parquet")
    table = table.filter(table.n_atoms <= options.max_atoms)
    found = list(pairs(table, options.systems, options.max_atoms))
    report(found, "all")
    for name, has_anions in (("with anions", True), ("without anions", False)):
        some = [pair for pair in found if pair.has_anions == has_anions]
        report(some, name)
        formulas = {(p.parent_formula, p.child_formula): p.passes for p in some}
        print(f"  the charge rule passes {sum(formulas.values())} of {len(formulas)} pairs of formulas")
    if options.json:
        options.json.write_text(json.dumps([asdict(pair) for pair in found], indent=1))


if __name__ == "__main__":
    main()
