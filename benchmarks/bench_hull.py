"""Hull distances: how fast against pymatgen's PhaseDiagram, and do they agree.

    python benchmarks/bench_hull.py
    python benchmarks/bench_hull.py --candidates 10000 --systems 1000 --entries 5000
    python benchmarks/bench_hull.py --table mp_crystals.parquet --candidates 20000 --systems 3000

Without --table the entries are synthetic. pymatgen answers for --pymatgen-systems systems only and its
time is scaled to all of them; both run on the same systems, in this process, on one core.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull

LEVEL = "benchmark"


def synthetic_entries(n_entries: int, n_elements: int, rng: np.random.Generator) -> list[Entry]:
    """Elements at zero and compounds of 2-4 of them with random formation energies."""
    noble_gases = (10, 18, 36, 54)  # pymatgen warns that they have no electronegativity
    elements = [z for z in range(3, 3 + n_elements + len(noble_gases)) if z not in noble_gases][:n_elements]
    entries = []
    for number in range(n_entries):
        system = rng.choice(elements, rng.integers(2, 5), replace=False)
        composition = Composition.from_counts({int(z): int(rng.integers(1, 7)) for z in system})
        entries.append(Entry(f"phase-{number}", composition, rng.normal(-0.6, 0.4), level=LEVEL))
    return entries


def table_entries(path: Path) -> list[Entry]:
    """Entries of a table with `material_id`, `atomic_numbers` and `formation_energy_per_atom`."""
    import pyarrow.parquet as pq

    columns = ["material_id", "atomic_numbers", "formation_energy_per_atom"]
    table = pq.read_table(path, columns=columns).to_pydict()
    return [
        Entry(entry_id, Composition.from_atomic_numbers(numbers), energy, level=LEVEL)
        for entry_id, numbers, energy in zip(*(table[column] for column in columns), strict=True)
    ]


def with_elements(entries: Sequence[Entry]) -> list[Entry]:
    elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})
    pure = [Entry(f"element-{z}", Composition.from_counts({z: 1}), 0.0, level=LEVEL) for z in elements]
    return [*entries, *pure]


def random_candidates(
    entries: Sequence[Entry], n: int, n_systems: int, rng: np.random.Generator
) -> tuple[list[Composition], np.ndarray]:
    systems = sorted({e.composition.atomic_numbers for e in entries if 2 <= e.composition.n_elements <= 5})
    chosen = [systems[i] for i in rng.permutation(len(systems))[:n_systems]]
    compositions = [
        Composition.from_counts({z: int(rng.integers(1, 9)) for z in chosen[row % len(chosen)]}) for row in range(n)
    ]
    return compositions, rng.normal(-0.6, 0.4, n)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def pymatgen_distances(entries: Sequence[Entry], compositions: Sequence[Composition], energies: np.ndarray):
    """Signed distances by a PhaseDiagram per chemical system; the PDEntry objects are made before the clock."""
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    def convert(composition: Composition, energy_per_atom: float) -> PDEntry:
        formula = PymatgenComposition({Element.from_Z(z): count for z, count in composition.counts})
        return PDEntry(formula, energy_per_atom * composition.n_atoms)

    rows_of_system: dict[tuple[int, ...], list[int]] = {}
    for row, composition in enumerate(compositions):
        rows_of_system.setdefault(composition.atomic_numbers, []).append(row)
    elements = [frozenset(entry.composition.atomic_numbers) for entry in entries]
    inside = {
        system: [
            convert(e.composition, e.corrected_energy_per_atom)
            for e, own in zip(entries, elements, strict=True)
            if own <= set(system)
        ]
        for system in rows_of_system
    }
    candidates = [convert(c, e) for c, e in zip(compositions, energies, strict=True)]

    def run() -> np.ndarray:
        distances = np.empty(len(candidates))
        for system, rows in rows_of_system.items():
            diagram = PhaseDiagram(inside[system])
            for row in rows:
                _, distances[row] = diagram.get_decomp_and_e_above_hull(candidates[row], allow_negative=True)
        return distances

    return timed(run)


def subset_of_systems(compositions: Sequence[Composition], n_systems: int) -> np.ndarray:
    """Rows of the candidates in the first `n_systems` systems that occur."""
    systems = list(dict.fromkeys(composition.atomic_numbers for composition in compositions))[:n_systems]
    return np.array([row for row, c in enumerate(compositions) if c.atomic_numbers in set(systems)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--entries", type=int, default=2000)
    parser.add_argument("--elements", type=int, default=40)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--systems", type=int, default=200)
    parser.add_argument("--pymatgen-systems", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    known = table_entries(options.table) if options.table else synthetic_entries(options.entries, options.elements, rng)
    entries = with_elements(known)
    compositions, energies = random_candidates(entries, options.candidates, options.systems, rng)
    n_systems = len({c.atomic_numbers for c in compositions})
    print(f"{len(entries)} entries, {len(compositions)} candidates in {n_systems} chemical systems")

    hull, construct = timed(Hull, entries)
    distances, first = timed(hull.distances_from_hull, compositions, energies)
    _, again = timed(hull.distances_from_hull, compositions, energies)
    rows = subset_of_systems(compositions, options.pymatgen_systems)
    subset = [compositions[row] for row in rows]
    scale = n_systems / len({c.atomic_numbers for c in subset})
    expected, pymatgen_time = pymatgen_distances(entries, subset, energies[rows])
    fresh = Hull(entries)
    ours, ours_time = timed(fresh.distances_from_hull, subset, energies[rows])
    members = [e for e in entries if e.composition.n_elements in (2, 3, 4)][:500]
    _, leave_one_out = timed(lambda: [hull.decomposition_energy(entry) for entry in members])

    print(f"construct the hull                         {construct:9.3f} s")
    print(f"distances, systems built on the way        {first:9.3f} s")
    print(f"distances, systems already built           {again:9.3f} s")
    print(f"the same {len(subset)} candidates: opengnome        {ours_time:9.3f} s")
    print(f"                     pymatgen              {pymatgen_time:9.3f} s, {pymatgen_time / ours_time:.1f} times")
    print(f"pymatgen scaled to all systems             {pymatgen_time * scale:9.1f} s")
    print(f"decomposition energy of {len(members)} entries        {leave_one_out:9.3f} s")
    print(f"largest difference from pymatgen           {np.abs(ours - expected).max():9.1e} eV/atom")
    if not np.array_equal(distances[rows], ours):
        raise SystemExit("distances depend on which candidates were asked about together")


if __name__ == "__main__":
    main()
