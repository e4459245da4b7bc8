"""Neighbour lists and graph batches: how fast against pymatgen, and do they find the same pairs.

    python benchmarks/bench_graphs.py
    python benchmarks/bench_graphs.py --table mp_crystals.parquet --crystals 2000

Without --table the crystals are random cells at 15 A^3 per atom. One core, one process.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.crystals import Crystal, CrystalTable
from opengnome.graphs import build_batch, neighbour_list, store_of
from opengnome.graphs.orbits import orbit_graph

CUTOFF = 4.0


def random_crystals(n: int, rng: np.random.Generator) -> list[Crystal]:
    crystals = []
    for _ in range(n):
        n_atoms = int(rng.integers(2, 20))
        shape = np.eye(3) + rng.uniform(-0.3, 0.3, (3, 3))
        lattice = shape * (15.0 * n_atoms / abs(np.linalg.det(shape))) ** (1 / 3)
        crystals.append(Crystal(lattice, rng.uniform(0, 1, (n_atoms, 3)), rng.integers(3, 50, n_atoms)))
    return crystals


def table_crystals(path: Path, n: int, max_atoms: int, rng: np.random.Generator) -> list[Crystal]:
    import pyarrow.parquet as pq

    table = CrystalTable.from_arrow(pq.read_table(path))
    rows = np.flatnonzero(table.n_atoms <= max_atoms)
    return list(table.take(rng.choice(rows, min(n, len(rows)), replace=False)))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def pymatgen_counts(crystals: list[Crystal]) -> list[int]:
    """Directed pairs per crystal by pymatgen's compiled search, arrays in and arrays out."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    periodic = np.array([1, 1, 1], dtype=np.int64)
    counts = []
    for crystal in crystals:
        positions, lattice = np.ascontiguousarray(crystal.positions), np.ascontiguousarray(crystal.lattice)
        found = find_points_in_spheres(positions, positions, CUTOFF, periodic, lattice, 1e-8)
        counts.append(int((found[3] > 1e-8).sum()))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(options.seed)
    if options.table:
        crystals = table_crystals(options.table, options.crystals, options.max_atoms, rng)
    else:
        crystals = random_crystals(options.crystals, rng)
    n = len(crystals)
    n_atoms = sum(crystal.n_atoms for crystal in crystals)
    neighbour_list(crystals[0], CUTOFF)  # the first call loads the library
    lists, neighbours = timed(lambda: [neighbour_list(crystal, CUTOFF) for crystal in crystals])
    expected, pymatgen = timed(lambda: pymatgen_counts(crystals))
    graphs, build = timed(lambda: build_batch(crystals, cutoff=CUTOFF))
    reduced, reducing = timed(lambda: [orbit_graph(crystal, cutoff=CUTOFF) for crystal in crystals])
    store = store_of(reduced, CUTOFF)
    order = rng.permutation(n)
    _, selecting = timed(lambda: [store.batch(order[start : start + 32]) for start in range(0, n, 32)])
    print(f"{n} crystals, {n_atoms / n:.1f} atoms and {graphs.n_edges / n:.0f} edges each, cutoff {CUTOFF} A")
    for name, seconds in (
        ("neighbour_list", neighbours),
        ("pymatgen find_points_in_spheres", pymatgen),
        ("build_batch", build),
        ("orbit_graph", reducing),
        ("GraphStore.batch, batches of 32", selecting),
    ):
        print(f"{name:34s} {1000 * seconds / n:8.4f} ms per crystal {n / seconds:10.0f} /s")
    print(
        f"reduced by symmetry: {store.node_counts.sum() / n_atoms:.3f} of the nodes, "
        f"{store.edge_counts.sum() / graphs.n_edges:.3f} of the edges"
    )
    different = sum(len(pairs[0]) != count for pairs, count in zip(lists, expected, strict=True))
    print(f"crystals with another number of pairs than pymatgen: {different}")
    if different:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
