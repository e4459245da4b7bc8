"""Duplicates planted among decorated crystals: how many are found, and how fast, beside pymatgen's matcher.

    python benchmarks/bench_dedup.py [--crystals 100000] [--peer-crystals 1000] [--workers 1] [--data FOLDER]

Originals are drawn by seed from `mp_crystals.parquet`; in each, every element is replaced by one of its group of the
periodic table, at random. 30 % of the table are copies of randomly chosen originals: permuted, shifted, rotated, as a
supercell, with every atom moved by 0.01 A (normal, per component), or all of these at once.

Recall: planted pairs (copy, original) that end in one cluster. Precision: of all pairs in one cluster, those that
descend from one original. Two originals may happen to be one crystal (the decoration of one polymorph is another
entry); so pairs of different originals are put to `StructureMatcher.fit`, both ways, and counted apart.
"""

import argparse
import os
import time
import warnings
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pymatgen.core import Element
from pymatgen.core.structure_matcher import StructureMatcher

from opengnome.crystals import Crystal, CrystalTable, supercell, with_atomic_numbers
from opengnome.crystals.deduplication import deduplicate, rank_polymorphs
from opengnome.crystals.interop import to_pymatgen

KINDS = ("permuted", "shifted", "rotated", "supercell", "noise", "all")
SHARE = 0.3
NOISE = 0.01
MAX_JUDGED = 2000


def main() -> None:
    warnings.simplefilter("ignore")
    default_data = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=100_000)
    parser.add_argument("--peer-crystals", type=int, default=1000)
    parser.add_argument("--max-atoms", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OPENGNOME_DATA", default_data)))
    arguments = parser.parse_args()
    source = CrystalTable.from_arrow(pq.read_table(arguments.data / "mp_crystals.parquet"))
    source = source.filter(source.n_atoms <= arguments.max_atoms)
    table, original, kinds = planted(source, arguments.crystals, arguments.seed)
    sizes = Counter(Counter(table.reduced_formulas).values())
    alone = sizes[1] / len(table)
    print(f"{len(table)} crystals, {table.n_atoms.mean():.1f} atoms on average, {alone:.0%} alone in their formula")
    deduplicate(table.slice(0, 100))  # imports
    wall = time.perf_counter()
    seconds, found = _timed(lambda: deduplicate(table, workers=arguments.workers))
    wall = time.perf_counter() - wall
    print(f"deduplicate: {wall:.1f} s wall with {arguments.workers} process(es), {len(table) / wall:.0f} crystals/s")
    if arguments.workers == 1:
        print(f"  {seconds:.1f} s CPU, {len(table) / seconds:.0f} crystals per CPU second")
    print(f"  {dict(Counter(found.step))}, {dict(Counter(found.status))}")
    _report_recall(found.cluster, original, kinds)
    _report_precision(table, found.cluster, original)
    _beside_pymatgen(table, original, arguments.peer_crystals)
    _beside_pymatgen_polymorphs(source, arguments.peer_crystals // 4)


def planted(source: CrystalTable, n_crystals: int, seed: int) -> tuple[CrystalTable, np.ndarray, list[str]]:
    """The table, for each row the number of its original, and what was done to it; in random order."""
    rng = np.random.default_rng(seed)
    n_originals = round(n_crystals * (1 - SHARE))
    rows = rng.choice(len(source), n_originals, replace=n_originals > len(source))
    groups = _groups(np.unique(source.flat_atomic_numbers).tolist())
    crystals = [_decorated(source[int(row)], groups, rng) for row in rows]
    original, kinds = list(range(n_originals)), ["original"] * n_originals
    for copy in range(n_crystals - n_originals):
        parent = int(rng.integers(n_originals))
        kinds.append(KINDS[copy % len(KINDS)])
        original.append(parent)
        crystals.append(_copied(crystals[parent], kinds[-1], rng))
    order = rng.permutation(n_crystals)
    table = CrystalTable.from_crystals([crystals[i] for i in order])
    return table, np.array(original)[order], [kinds[i] for i in order]


def _groups(elements: list[int]) -> dict[int, list[int]]:
    """For each element those of its group of the periodic table; the lanthanides and the actinides are groups."""

    def name(z: int) -> str:
        element = Element.from_Z(z)
        return "f" if element.is_lanthanoid else "g" if element.is_actinoid else str(element.group)

    return {z: [other for other in elements if name(other) == name(z)] for z in elements}


def _decorated(crystal: Crystal, groups: dict[int, list[int]], rng: np.random.Generator) -> Crystal:
    """Each element replaced by one of its group, different ones by different ones."""
    elements = np.unique(crystal.atomic_numbers)
    taken: dict[int, int] = {}
    for z in elements.tolist():
        free = [other for other in groups[z] if other not in taken.values()]
        taken[z] = int(rng.choice(free))
    return with_atomic_numbers(crystal, [taken[z] for z in crystal.atomic_numbers.tolist()])


def _copied(crystal: Crystal, kind: str, rng: np.random.Generator) -> Crystal:
    lattice, frac_coords, numbers = crystal.lattice, crystal.frac_coords, crystal.atomic_numbers
    if kind in ("supercell", "all"):
        repeats = ((2, 1, 1), (1, 2, 1), (1, 1, 3), (2, 2, 1))[int(rng.integers(4))]
        big = supercell(crystal, repeats)
        lattice, frac_coords, numbers = big.lattice, big.frac_coords, big.atomic_numbers
    if kind in ("noise", "all"):
        frac_coords = frac_coords + rng.normal(scale=NOISE, size=frac_coords.shape) @ np.linalg.inv(lattice)
    if kind in ("shifted", "all"):
        frac_coords = frac_coords + rng.random(3)
    if kind in ("rotated", "all"):
        rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        lattice = lattice @ (rotation * np.sign(np.linalg.det(rotation)))
    if kind in ("permuted", "all"):
        order = rng.permutation(len(numbers))
        frac_coords, numbers = frac_coords[order], numbers[order]
    return Crystal(lattice, frac_coords, numbers)


def _timed(function):
    """CPU seconds of this process, which a busy machine does not stretch as it does the wall clock; and the result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def _report_recall(cluster: np.ndarray, original: np.ndarray, kinds: list[str]) -> None:
    home = {int(o): int(c) for o, c, kind in zip(original, cluster, kinds) if kind == "original"}
    hits: dict[str, list[bool]] = defaultdict(list)
    for o, c, kind in zip(original, cluster, kinds):
        if kind != "original":
            hits[kind].append(home[int(o)] == int(c))
    every = [hit for values in hits.values() for hit in values]
    detail = ", ".join(f"{kind} {np.mean(hits[kind]):.4f}" for kind in KINDS if hits[kind])
    print(f"recall of {len(every)} planted pairs: {np.mean(every):.4f} ({detail})")


def _pairs(cluster: np.ndarray) -> list[tuple[int, int]]:
    members = defaultdict(list)
    for row, c in enumerate(cluster.tolist()):
        members[c].append(row)
    return [pair for rows in members.values() for pair in combinations(rows, 2)]


def _report_precision(table: CrystalTable, cluster: np.ndarray, original: np.ndarray) -> None:
    pairs = _pairs(cluster)
    extra = sorted(
        {tuple(sorted((int(original[a]), int(original[b])))) for a, b in pairs if original[a] != original[b]}
    )
    n_extra = sum(original[a] != original[b] for a, b in pairs)
    first_row = {int(o): row for row, o in reversed(list(enumerate(original)))}
    judged = extra
    if len(extra) > MAX_JUDGED:
        judged = [extra[i] for i in np.random.default_rng(0).choice(len(extra), MAX_JUDGED, replace=False)]
    matcher = StructureMatcher()
    same = [_fits(matcher, table[first_row[a]], table[first_row[b]]) for a, b in judged]
    confirmed = float(np.mean(same)) if same else 1.0
    print(
        f"precision: {len(pairs)} pairs in one cluster, {len(pairs) - n_extra} of one original "
        f"({(len(pairs) - n_extra) / len(pairs):.4f}); {n_extra} of different originals ({len(extra)} pairs of "
        f"originals, {confirmed:.4f} of {len(judged)} judged are one crystal to StructureMatcher as well): "
        f"{1 - n_extra * (1 - confirmed) / len(pairs):.4f}"
    )


def _fits(matcher: StructureMatcher, first: Crystal, second: Crystal) -> bool:
    a, b = to_pymatgen(first), to_pymatgen(second)
    return bool(matcher.fit(a, b) or matcher.fit(b, a))


def _beside_pymatgen(table: CrystalTable, original: np.ndarray, n_crystals: int) -> None:
    """Both on one part of the table: some originals with all their copies."""
    rng = np.random.default_rng(1)
    rows: list[int] = []
    of_original = defaultdict(list)
    for row, o in enumerate(original.tolist()):
        of_original[o].append(row)
    for o in rng.permutation(len(of_original)).tolist():
        rows += of_original[o]
        if len(rows) >= n_crystals:
            break
    _compare("some originals with their copies", table.take(np.sort(rows)), original[np.sort(rows)])


def _beside_pymatgen_polymorphs(source: CrystalTable, n_crystals: int) -> None:
    """Both on the formulas with the most entries: large groups, where the number of pairs counts."""
    counts = Counter(source.reduced_formulas)
    formulas = [formula for formula, _ in counts.most_common()]
    small = source.filter(source.n_atoms <= 20)
    rows: list[int] = []
    by_formula = defaultdict(list)
    for row, formula in enumerate(small.reduced_formulas):
        by_formula[formula].append(row)
    for formula in formulas:
        rows += by_formula[formula]
        if len(rows) >= n_crystals:
            break
    _compare("the formulas with most entries, up to 20 atoms", small.take(np.sort(rows)), None)
    seconds, ranking = _timed(lambda: rank_polymorphs(small.take(np.sort(rows)), "formation_energy_per_atom"))
    print(f"  rank_polymorphs: {seconds:.2f} s, {len(ranking.kept)} polymorphs")


def _compare(name: str, part: CrystalTable, original: np.ndarray | None) -> None:
    """CPU seconds and pairs of both, one process each; pymatgen's structures are built before its clock starts."""
    structures = [to_pymatgen(crystal) for crystal in part]
    for row, structure in enumerate(structures):
        structure.properties["row"] = row
    ours, found = _timed(lambda: deduplicate(part))
    theirs, groups = _timed(lambda: StructureMatcher().group_structures(structures))
    cluster = np.empty(len(part), dtype=np.int64)
    for number, group in enumerate(groups):
        cluster[[structure.properties["row"] for structure in group]] = number
    pairs, reference = set(_pairs(found.cluster)), set(_pairs(cluster))
    print(f"{name}: {len(part)} crystals, {part.n_atoms.mean():.1f} atoms on average")
    print(f"  deduplicate {ours:.2f} s CPU ({len(part) / ours:.0f}/s), {len(found.kept)} clusters")
    print(f"  group_structures {theirs:.2f} s CPU ({len(part) / theirs:.0f}/s), {len(groups)} groups")
    print(f"  {theirs / ours:.1f} times as fast; pairs: {len(pairs & reference)} of both, ", end="")
    print(f"{len(pairs - reference)} only ours, {len(reference - pairs)} only theirs")
    if original is not None:
        true = set(_pairs(original))
        print(f"  pairs of one original: {len(true)}, found {len(true & pairs)} and {len(true & reference)}")


if __name__ == "__main__":
    main()
