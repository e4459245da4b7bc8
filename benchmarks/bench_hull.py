"""The hull engine: how fast, in how much memory, and does it agree with pymatgen and with published energies.

    python benchmarks/bench_hull.py                                     10,000 candidates against pymatgen
    python benchmarks/bench_hull.py --compositions mp_compositions.parquet --extra mp_crystals.parquet
    python benchmarks/bench_hull.py --scaling 1000 10000 100000 1000000

Without options: candidates of 1,000 chemical systems against 5,000 synthetic entries, of 60 elements (sparse) and of
25 (dense); every candidate is also answered by a pymatgen PhaseDiagram of its system, in this process.

--compositions: the decomposition energy of every compound against all others, compared with the table's column. The
column refers to more compounds than the table has, and a missing competitor can only make a decomposition energy
lower; --extra adds the formulas of another table, and --sample compounds are checked with pymatgen. An unstable
compound lies its published decomposition energy above the hull of all compounds, so the column itself gives points of
that hull: with them as competitors no unstable compound may come out higher than published, and more of them agree.

--scaling: synthetic entries, all answered; then 1,000 more are inserted and what they touch is answered again.

Times are processor seconds of this process (other work does not count); the clock time of a section is in brackets.
"""

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals import Composition
from opengnome.hull import CompositionArrays, Entry, EntryTable, Hull, hull_table

LEVEL = "benchmark"
AGREEMENT = 1e-6  # eV/atom
NOBLE_GASES = (2, 10, 18, 36, 54, 86)  # pymatgen warns that they have no electronegativity


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.process_time()
    result = function(*arguments)
    return result, time.process_time() - start


def usable_elements(n: int) -> np.ndarray:
    return np.array([z for z in range(1, 100) if z not in NOBLE_GASES][:n])


def with_elements(entries: Sequence[Entry]) -> list[Entry]:
    elements = sorted({z for entry in entries for z in entry.composition.atomic_numbers})
    pure = [Entry(f"element-{z}", Composition.from_counts({z: 1}), 0.0, level=LEVEL) for z in elements]
    return [*entries, *pure]


# Against pymatgen


def synthetic_entries(n_entries: int, n_elements: int, rng: np.random.Generator) -> list[Entry]:
    """Elements at zero and compounds of 2-4 of them with random formation energies."""
    elements = usable_elements(n_elements)
    entries = []
    for number in range(n_entries):
        system = rng.choice(elements, rng.integers(2, 5), replace=False)
        composition = Composition.from_counts({int(z): int(rng.integers(1, 7)) for z in system})
        entries.append(Entry(f"phase-{number}", composition, rng.normal(-0.6, 0.4), level=LEVEL))
    return with_elements(entries)


def random_candidates(
    entries: Sequence[Entry], n: int, n_systems: int, rng: np.random.Generator
) -> tuple[list[Composition], np.ndarray]:
    systems = sorted({e.composition.atomic_numbers for e in entries if 2 <= e.composition.n_elements <= 5})
    chosen = [systems[i] for i in rng.permutation(len(systems))[:n_systems]]
    compositions = [
        Composition.from_counts({z: int(rng.integers(1, 9)) for z in chosen[row % len(chosen)]}) for row in range(n)
    ]
    return compositions, rng.normal(-0.6, 0.4, n)


def to_pymatgen(composition: Composition, energy_per_atom: float):
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition as PymatgenComposition
    from pymatgen.core import Element

    formula = PymatgenComposition({Element.from_Z(z): count for z, count in composition.counts})
    return PDEntry(formula, energy_per_atom * composition.n_atoms)


def pymatgen_distances(
    entries: Sequence[Entry], compositions: Sequence[Composition], energies: np.ndarray
) -> tuple[np.ndarray, float]:
    """Signed distances by a PhaseDiagram per system; entries are selected and converted before the clock starts."""
    from pymatgen.analysis.phase_diagram import PhaseDiagram

    rows_of_system: dict[tuple[int, ...], list[int]] = {}
    for row, composition in enumerate(compositions):
        rows_of_system.setdefault(composition.atomic_numbers, []).append(row)
    converted = [to_pymatgen(e.composition, e.corrected_energy_per_atom) for e in entries]
    elements = [frozenset(entry.composition.atomic_numbers) for entry in entries]
    inside = {
        system: [entry for entry, own in zip(converted, elements, strict=True) if own.issubset(system)]
        for system in rows_of_system
    }
    candidates = [to_pymatgen(c, e) for c, e in zip(compositions, energies, strict=True)]

    def run() -> np.ndarray:
        distances = np.empty(len(candidates))
        for system, rows in rows_of_system.items():
            diagram = PhaseDiagram(inside[system])
            for row in rows:
                _, distances[row] = diagram.get_decomp_and_e_above_hull(candidates[row], allow_negative=True)
        return distances

    return timed(run)


def compare_with_pymatgen(options: argparse.Namespace) -> None:
    for name, n_elements in (("sparse", 60), ("dense", 25)):
        rng = np.random.default_rng(options.seed)
        entries = synthetic_entries(options.entries, n_elements, rng)
        compositions, energies = random_candidates(entries, options.candidates, options.systems, rng)
        n_systems = len({c.atomic_numbers for c in compositions})
        Hull(entries).distances_from_hull(compositions[:10], energies[:10])  # the first call loads libraries
        hull, construct = timed(Hull, entries)
        ours, answer = timed(hull.distances_from_hull, compositions, energies)
        theirs, pymatgen = pymatgen_distances(entries, compositions, energies)
        print(f"{name}: {len(entries)} entries of {n_elements} elements, {len(ours)} candidates in {n_systems} systems")
        print(f"  opengnome  {construct + answer:8.4f} s, of which {construct:.4f} s for the hull")
        print(f"  pymatgen   {pymatgen:8.3f} s, {pymatgen / (construct + answer):.0f} times")
        print(f"  largest difference {np.abs(ours - theirs).max():.1e} eV/atom")


# The compounds of Bartel et al. (doi:10.1038/s41524-020-00362-y)


def run_compositions(options: argparse.Namespace) -> None:
    import pyarrow.parquet as pq

    columns = ["formula", "formation_energy_per_atom", "decomposition_energy_per_atom"]
    table, reading = timed(lambda: pq.read_table(options.compositions, columns=columns).to_pydict())
    formulas, energies, published = (table[column] for column in columns)
    compositions, parsing = timed(lambda: [Composition.from_formula(formula) for formula in formulas])
    entries, making = timed(lambda: with_elements(compounds("table", compositions, energies)))
    hull, construct = timed(Hull, entries)
    found, answering = timed(hull.decomposition_energies)
    n = len(formulas)
    arrays = arrays_of(entries)
    again, from_arrays = timed(lambda: Hull.from_table(EntryTable.from_arrays(*arrays, level=LEVEL)))
    same, answering_again = timed(again.decomposition_energies)
    rows, table_time = timed(hull_table, Hull(entries), entries)
    print(f"{n} compounds in {len({c.atomic_numbers for c in compositions})} chemical systems")
    print(f"  read the Parquet file {reading:.2f} s, parse formulas {parsing:.2f} s, make entries {making:.2f} s")
    print(f"  from entries: hull {construct:.2f} s + decomposition energies {answering:.2f} s")
    print(f"  from arrays:  hull {from_arrays:.2f} s + decomposition energies {answering_again:.2f} s")
    print(f"  from the file: {reading + parsing + making + construct + answering:.2f} s in all")
    print(f"  hull_table of all entries, with products: {table_time:.2f} s")
    if not np.array_equal(found, same) or [r["decomposition_energy"] for r in rows[:9]] != found[:9].tolist():
        raise SystemExit("the ways of asking disagree")
    report("table alone", found[:n], np.array(published))
    if options.extra is not None:
        for name, extra in extra_competitors(options.extra, compositions, entries).items():
            n_formulas = sum(entry.composition.n_elements > 1 for entry in extra)
            report(f"with {n_formulas} {name}", hull.with_entries(extra).decomposition_energies()[:n], published)
    unstable = np.flatnonzero(np.array(published) > AGREEMENT)
    report("of these the unstable", found[unstable], np.array(published)[unstable])
    points = published_hull_points(entries, np.array(published), unstable)
    asked = [entries[row] for row in unstable]
    with_points = hull.with_entries(points).decomposition_energies(asked, exclude_polymorphs=True)
    report("the unstable against the column's own hull", with_points, np.array(published)[unstable])
    sample = np.random.default_rng(options.seed).permutation(n)[: options.sample]
    differences = [abs(found[row] - pymatgen_left_out(entries, entries[row])) for row in sample.tolist()]
    if differences:
        print(f"  {len(differences)} compounds by pymatgen: largest difference {max(differences):.1e} eV/atom")


def compounds(prefix: str, compositions: Sequence[Composition], energies: Sequence[float]) -> list[Entry]:
    pairs = zip(compositions, energies, strict=True)
    return [
        Entry(f"{prefix}-{row}", composition, energy, level=LEVEL) for row, (composition, energy) in enumerate(pairs)
    ]


def arrays_of(entries: Sequence[Entry]) -> tuple[list[str], CompositionArrays, np.ndarray]:
    compositions = CompositionArrays.from_compositions([entry.composition for entry in entries])
    return [entry.id for entry in entries], compositions, np.array([e.corrected_energy_per_atom for e in entries])


def extra_competitors(path: Path, known: Sequence[Composition], entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The lowest entry of each formula of another table that is new: those of the same source of energies, and all."""
    import pandas as pd

    columns = ["reduced_formula", "formation_energy_per_atom", "label_source"]
    frame = pd.read_parquet(path, columns=columns).sort_values("formation_energy_per_atom", kind="stable")
    frame = frame.drop_duplicates("reduced_formula")
    compositions = [Composition.from_formula(formula) for formula in frame["reduced_formula"]]
    taken = {composition.reduced for composition in known}
    new = np.array([c.n_elements > 1 and c.reduced not in taken for c in compositions])
    of_same_source = (frame["label_source"] == "single-polymorph").to_numpy()
    elements = {z for entry in entries for z in entry.composition.atomic_numbers}
    competitors = {}
    for name, chosen in (("formulas of the same source", new & of_same_source), ("formulas of any source", new)):
        rows = np.flatnonzero(chosen)
        extra = compounds("extra", [compositions[row] for row in rows], frame["formation_energy_per_atom"].iloc[rows])
        missing = {z for entry in extra for z in entry.composition.atomic_numbers} - elements
        competitors[name] = extra + [Entry(f"element-{z}", Composition(((z, 1),)), 0.0, level=LEVEL) for z in missing]
    return competitors


def published_hull_points(entries: Sequence[Entry], published: np.ndarray, unstable: np.ndarray) -> list[Entry]:
    """Points of the hull that the column refers to: an unstable compound lies its decomposition energy above it."""
    energies = [entries[row].energy_per_atom - published[row] for row in unstable]
    return compounds("point", [entries[row].composition for row in unstable], energies)


def report(name: str, found: np.ndarray, published: np.ndarray) -> None:
    difference = found - np.asarray(published)
    agree = np.abs(difference) <= AGREEMENT
    print(
        f"  {name}: {agree.mean():.2%} within {AGREEMENT:g} eV/atom of the column, {(difference < -AGREEMENT).sum()} "
        f"lower, {(difference > AGREEMENT).sum()} higher (largest {difference.max():.1e}), mean absolute difference "
        f"{np.abs(difference).mean() * 1e3:.2f} meV/atom"
    )


def pymatgen_left_out(entries: Sequence[Entry], left: Entry) -> float:
    """Distance in eV/atom of an entry to a phase diagram of its system built without it."""
    from pymatgen.analysis.phase_diagram import PhaseDiagram

    elements = set(left.composition.atomic_numbers)
    inside = [e for e in entries if e is not left and elements.issuperset(e.composition.atomic_numbers)]
    diagram = PhaseDiagram([to_pymatgen(e.composition, e.corrected_energy_per_atom) for e in inside])
    composition = to_pymatgen(left.composition, 0.0).composition
    return left.corrected_energy_per_atom - diagram.get_hull_energy_per_atom(composition)


# Scaling


def synthetic_table(n: int, n_elements: int, seed: int) -> EntryTable:
    """Compounds of 2-5 of the elements, and the elements at zero; no object per entry."""
    rng = np.random.default_rng(seed)
    elements = usable_elements(n_elements)
    numbers, counts, lengths = [], [], []
    for size in [100_000] * (n // 100_000) + [n % 100_000]:
        length = rng.choice([2, 3, 4, 5], size, p=[0.15, 0.45, 0.3, 0.1])
        chosen = elements[np.argpartition(rng.random((size, n_elements)), 5, axis=1)[:, :5]]
        numbers.append(chosen[np.arange(5) < length[:, None]])
        counts.append(rng.integers(1, 7, len(numbers[-1])))
        lengths.append(length)
    pure = np.ones(n_elements, dtype=int)
    starts = np.cumsum(np.concatenate([[0], *lengths, pure]))
    compositions = CompositionArrays.from_counts(
        starts, np.concatenate([*numbers, elements]), np.concatenate([*counts, pure])
    )
    energies = np.append(-rng.exponential(0.4, n) - 0.3 * rng.random(n), np.zeros(n_elements))
    ids = [f"{seed}-{row}" for row in range(n + n_elements)]
    return EntryTable.from_arrays(ids, compositions, energies, level=LEVEL)


def run_scaling(options: argparse.Namespace) -> None:
    print("  entries elements  systems    build  answer all  memory   insert  changed  answer again")
    print("                                   s           s      GB        s                     s")
    for n in options.scaling:
        for n_elements in options.elements:
            table = synthetic_table(n, n_elements, seed=0)
            new = synthetic_table(options.insert, n_elements, seed=1)
            new = EntryTable.from_arrays(
                new.ids[: options.insert],
                new.compositions.take(np.arange(options.insert)),
                new.energies[: options.insert],
                level=LEVEL,
            )
            hull, build = timed(Hull.from_table, table)
            before, answer = timed(hull.decomposition_energies)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            larger, insert = timed(hull.with_entries, new)
            after, again = timed(larger.decomposition_energies)
            changed = int((after[: len(before)] != before).sum())
            if n <= 100_000:
                fresh = Hull.from_table(table.extended(new)).decomposition_energies()
                if np.abs(fresh - after).max() > 1e-9:
                    raise SystemExit("a hull with inserted entries differs from a fresh one")
            print(
                f"{n:9d} {n_elements:8d} {hull.n_systems:8d} {build:8.3f} {answer:11.2f} "
                f"{memory:7.2f} {insert:8.3f} {changed:8d} {again:13.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--systems", type=int, default=1000)
    parser.add_argument("--compositions", type=Path)
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--scaling", type=int, nargs="+")
    parser.add_argument("--elements", type=int, nargs="+", default=[89])
    parser.add_argument("--insert", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    if options.compositions is not None:
        run_compositions(options)
    elif options.scaling:
        run_scaling(options)
    else:
        compare_with_pymatgen(options)
    print(f"({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
