"""Candidates per second from known crystals to a table of candidates, and where the time goes; one core.

    python benchmarks/bench_generation.py [--parents 500] [--max-atoms 20] [--data FOLDER]

Parents are drawn by seed from `mp_crystals.parquet`; all its formulas are the known compositions. The last
part sets the substitution lists beside those of pymatgen's SubstitutionPredictor.
"""

import argparse
import cProfile
import os
import pstats
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from opengnome.crystals import CrystalTable
from opengnome.generation import GenerationSettings, generate
from opengnome.generation.ions import species_table
from opengnome.generation.novelty import known_composition_keys
from opengnome.generation.probabilities import STOCK, likely_targets

STAGES = {
    "oxidation states": ("parent.py", "ionic_parent"),
    "substitution lists": ("substitution.py", "full_substitutions"),
    "composition checks": ("filters.py", "reasons"),
    "symmetry of the parents": ("partial.py", "groupings"),
    "counting groupings": ("generate.py", "_count_groupings"),
    "choosing groupings": ("partial.py", "decorate"),
    "distance and volume checks": ("filters.py", "structure_reasons"),
    "building crystals": ("decoration.py", "build_candidates"),
    "digests": ("crystal.py", "digest"),
    "table": ("candidate.py", "candidate_table"),
}
"""Cumulative time of these functions; building includes the checks before it."""


def main() -> None:
    default_data = Path(__file__).parents[2] / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=int, default=500)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OPENGNOME_DATA", default_data)))
    arguments = parser.parse_args()
    table = CrystalTable.from_arrow(pq.read_table(arguments.data / "mp_crystals.parquet"))
    rows = np.flatnonzero(table.n_atoms <= arguments.max_atoms)
    rows = np.sort(np.random.default_rng(0).choice(rows, min(arguments.parents, len(rows)), replace=False))
    parents, known = table.take(rows), frozenset(table.reduced_formulas)
    _timed("species table", species_table)
    _timed(f"keys of {len(known)} known formulas", lambda: known_composition_keys(known))
    for methods in (
        ("ionic_substitution",),
        ("partial_substitution",),
        ("ionic_substitution", "partial_substitution"),
    ):
        _bench(parents, GenerationSettings(methods=methods), known)
    _stages(parents, GenerationSettings(), known)
    _beside_pymatgen()


def _timed(name, function):
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    print(f"{name}: {seconds:.3f} s")
    return result, seconds


def _bench(parents: CrystalTable, settings: GenerationSettings, known: frozenset[str]) -> None:
    start = time.process_time()
    result = generate(parents, settings, known_formulas=known, seed=0)
    seconds = time.process_time() - start
    kept, proposed = result.counts["kept"], result.counts["proposed"]
    print(f"\n{' + '.join(settings.methods)}: {seconds:.2f} s CPU, {kept} kept, {kept / seconds:.0f} kept/s")
    print(f"  {proposed / seconds:.0f} proposed/s, {len(parents) / seconds:.0f} parents/s")
    print(f"  {result.counts}\n  {result.parent_counts}")


def _stages(parents: CrystalTable, settings: GenerationSettings, known: frozenset[str]) -> None:
    profile = cProfile.Profile()
    profile.runcall(generate, parents, settings, known_formulas=known, seed=0)
    functions = pstats.Stats(profile).stats
    total = sum(row[2] for row in functions.values())
    print(f"\nshares of the time under cProfile ({total:.1f} s), nested stages counted twice")
    for name, (file, function) in STAGES.items():
        spent = sum(row[3] for key, row in functions.items() if key[0].endswith(file) and key[2] == function)
        print(f"  {name:28s} {100 * spent / total:5.1f} %")


def _beside_pymatgen() -> None:
    from pymatgen.core import Species
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor

    print("\nsubstitution lists at threshold 1e-3, stock model, beside pymatgen")
    predictor = SubstitutionPredictor(threshold=1e-3)
    for names in (["Na1+", "Cl1-"], ["Ba2+", "Ti4+", "O2-"], ["Li1+", "Fe2+", "P5+", "O2-"]):
        ions = species_table().indices(names)
        start = time.process_time()
        for _ in range(50):
            targets, _ = likely_targets(ions, threshold=1e-3, model=STOCK)
        ours = (time.process_time() - start) / 50
        species = [Species.from_str(name) for name in names]
        start = time.process_time()
        reference = predictor.list_prediction(species)
        theirs = time.process_time() - start
        print(
            f"  {'-'.join(names):20s} {len(targets):4d} / {len(reference):4d} targets, "
            f"{1e3 * ours:.2f} ms / {1e3 * theirs:.0f} ms, {theirs / ours:.0f} times"
        )


if __name__ == "__main__":
    main()
