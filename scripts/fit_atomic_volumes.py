"""Fit the tables that random structures start from: atomic volumes, and shortest distances by pair of elements.

    python scripts/fit_atomic_volumes.py --table mp_crystals.parquet [--output FILE]

From the relaxed crystals of the table that are at most 0.1 eV/atom above the hull. Formulas whose hash holds
them out (`opengnome.datasets.splits`) are not fitted; the error of the volumes is measured on them and printed.

Volumes: volume per atom = sum of fraction x volume, non-negative, by iteratively reweighted least squares on
the relative error, which minimises its mean absolute value. An element by itself has the volume of its
most stable crystals, whatever its hash: there is nothing to fit. Distances: of all crystals that hold both
elements, the shortest distance in each; the 10th percentile over the crystals.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.optimize import nnls

from opengnome.crystals import CrystalTable
from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.datasets.splits import held_out_mask
from opengnome.errors import InvalidCrystalError
from opengnome.generation import volume_estimate
from opengnome.generation.ions import species_table
from opengnome.generation.oxidation import assign_ions
from opengnome.generation.radii import COVALENT_RADII

MAX_ABOVE_HULL = 0.1
DEGENERATE = 1e-3
"""eV/atom; crystals of an element this close are equally stable."""
MIN_CRYSTALS = 10
"""Fewer crystals than this do not fit a volume or a distance."""
MAX_ATOMS_OF_DISTANCES = 24
"""Distances are taken from crystals of at most this many atoms, to be done in a minute."""
CUTOFF = 6.0
"""A; pairs that come no closer count as this far apart."""
QUANTILE = 0.1
N_REWEIGHTINGS = 30


def main() -> None:
    """Fit, write, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=volume_estimate.TABLE_FILE)
    arguments = parser.parse_args()
    arrow = pq.read_table(arguments.table)
    table = CrystalTable.from_arrow(arrow)
    table = table.filter(_above_hull(table) <= MAX_ABOVE_HULL)
    held_out = held_out_mask(table.reduced_formulas)
    print(f"{len(table)} crystals, {held_out.sum()} held out")
    tables = {**fit_volumes(table, held_out), **fit_distances(table.filter(~held_out))}
    arguments.output.write_text(json.dumps(tables, indent=0, sort_keys=True) + "\n")
    report_volumes(table.filter(held_out))


def _above_hull(table: CrystalTable) -> np.ndarray:
    """eV/atom, shape (n,); NaN where unknown. The table has none for elements, whose formation energy it is."""
    above_hull = table.arrow["energy_above_hull_est"].to_numpy(zero_copy_only=False)
    formation = table.arrow["formation_energy_per_atom"].to_numpy(zero_copy_only=False)
    is_element = np.array([len(np.unique(numbers)) == 1 for numbers in _numbers(table)])
    return np.where(is_element, formation, above_hull)


# --- Volumes ----------------------------------------------------------------------------------------------


def fit_volumes(table: CrystalTable, held_out: np.ndarray) -> dict[str, dict[str, float]]:
    """The volumes by ion, by element of ionic compounds without neutral ions, and by element of the others."""
    compositions = [Composition.from_atomic_numbers(numbers) for numbers in _numbers(table)]
    volumes = _volumes_per_atom(table)
    ions = [assign_ions(composition) for composition in compositions]
    elements = _fractions(compositions, lambda c, _: c.atomic_numbers, MAX_ATOMIC_NUMBER + 1, ions)
    species = _fractions(compositions, lambda _, assigned: assigned or (), len(species_table()), ions)
    neutral = np.array([assigned is not None for assigned in ions])
    ionic = elements[:, list(volume_estimate.ANION_FORMERS)].sum(axis=1) >= volume_estimate.MIN_ANION_FRACTION
    names = list(SYMBOLS)
    return {
        "species_volumes": _fit(species, volumes, neutral & ~held_out, list(species_table().names)),
        "ionic_volumes": _fit(elements, volumes, ionic & ~held_out, names),
        "metallic_volumes": _fit(elements, volumes, ~ionic & ~held_out, names),
        "elemental_volumes": _of_the_elements(table, compositions, volumes),
    }


def _of_the_elements(table: CrystalTable, compositions: list[Composition], volumes: np.ndarray) -> dict[str, float]:
    """Volume per atom of each element: the median of its crystals within `DEGENERATE` of the lowest."""
    above_hull = _above_hull(table)
    rows: dict[int, list[int]] = {}
    for row, composition in enumerate(compositions):
        if composition.n_elements == 1:
            rows.setdefault(composition.atomic_numbers[0], []).append(row)
    lowest = {z: [r for r in own if above_hull[r] <= above_hull[own].min() + DEGENERATE] for z, own in rows.items()}
    return {SYMBOLS[z]: round(float(np.median(volumes[own])), 2) for z, own in lowest.items()}


def _fractions(
    compositions: list[Composition],
    columns: Callable[[Composition, tuple[int, ...] | None], tuple[int, ...]],
    n_columns: int,
    ions: list[tuple[int, ...] | None],
) -> np.ndarray:
    fractions = np.zeros((len(compositions), n_columns))
    for row, (composition, assigned) in enumerate(zip(compositions, ions, strict=True)):
        own = columns(composition, assigned)
        if own:
            fractions[row, list(own)] = list(composition.fractions.values())
    return fractions


def _fit(fractions: np.ndarray, volumes: np.ndarray, rows: np.ndarray, names: list[str]) -> dict[str, float]:
    fractions, volumes = fractions[rows], volumes[rows]
    columns = np.flatnonzero((fractions > 0).sum(axis=0) >= MIN_CRYSTALS)
    complete = np.isclose(fractions[:, columns].sum(axis=1), 1.0)
    relative = fractions[complete][:, columns] / volumes[complete, None]
    weights = np.ones(len(relative))
    for _ in range(N_REWEIGHTINGS):
        weighted = relative * weights[:, None]
        normal = weighted.T @ weighted
        factor = np.linalg.cholesky(normal + 1e-9 * np.trace(normal) / len(normal) * np.eye(len(normal)))
        fitted, _ = nnls(factor.T, np.linalg.solve(factor, weighted.T @ weights))
        weights = 1 / np.sqrt(np.maximum(np.abs(relative @ fitted - 1), 1e-3))
    return {names[c]: round(float(v), 2) for c, v in zip(columns, fitted, strict=True)}


def report_volumes(table: CrystalTable) -> None:
    """Print the error of `volume_estimate` on compounds that were not fitted."""
    volume_estimate.read_tables.cache_clear()
    ratios: dict[str, list[float]] = {}
    without = []
    for numbers, volume in zip(_numbers(table), _volumes_per_atom(table), strict=True):
        composition = Composition.from_atomic_numbers(numbers)
        if composition.n_elements == 1:
            continue
        try:
            estimate = volume_estimate.volume_estimate(composition)
        except InvalidCrystalError:
            without.append(composition.reduced_formula)
            continue
        for group in ("all", estimate.source):
            ratios.setdefault(group, []).append(estimate.volume_per_atom / volume)
    print(f"{len(without)} held-out compounds have no estimate: {sorted(set(without))}")
    for group, values in ratios.items():
        errors = np.abs(np.array(values) - 1)
        print(
            f"{group}: {len(errors)} held-out compounds, relative error median {np.median(errors):.3f}, mean "
            f"{errors.mean():.3f}, 90 % below {np.quantile(errors, 0.9):.3f}; median ratio {np.median(values):.3f}"
        )


def _volumes_per_atom(table: CrystalTable) -> np.ndarray:
    return np.abs(np.linalg.det(table.lattices)) / table.n_atoms


def _numbers(table: CrystalTable) -> list[np.ndarray]:
    return np.split(table.flat_atomic_numbers, table.offsets[1:-1])


# --- Distances --------------------------------------------------------------------------------------------


def fit_distances(table: CrystalTable) -> dict[str, object]:
    """Low quantile of the shortest distance of each pair of elements, and the ratio for pairs without data."""
    from vesin import NeighborList

    table = table.filter(table.n_atoms <= MAX_ATOMS_OF_DISTANCES)
    neighbours = NeighborList(cutoff=CUTOFF, full_list=False)
    shortest: dict[tuple[int, int], list[float]] = {}
    for crystal in table:
        i, j, distances = neighbours.compute(
            points=crystal.positions, box=crystal.lattice, periodic=True, quantities="ijd"
        )
        pairs = np.sort(np.stack([crystal.atomic_numbers[i], crystal.atomic_numbers[j]]), axis=0)
        found = np.full((MAX_ATOMIC_NUMBER + 1, MAX_ATOMIC_NUMBER + 1), CUTOFF)
        np.minimum.at(found, (pairs[0], pairs[1]), distances)
        present = crystal.composition.atomic_numbers
        for a, first in enumerate(present):
            for second in present[a:]:
                shortest.setdefault((first, second), []).append(found[first, second])
    distances = {
        pair: float(np.quantile(values, QUANTILE)) for pair, values in shortest.items() if len(values) >= MIN_CRYSTALS
    }
    ratio = float(
        np.quantile([d / (COVALENT_RADII[a] + COVALENT_RADII[b]) for (a, b), d in distances.items()], QUANTILE)
    )
    print(f"{len(table)} crystals give {len(distances)} pairs; ratio to covalent radii {ratio:.3f}")
    return {
        "pair_distances": {f"{SYMBOLS[a]}-{SYMBOLS[b]}": round(d, 2) for (a, b), d in distances.items()},
        "pair_ratio_without_data": round(ratio, 3),
    }


if __name__ == "__main__":
    main()
