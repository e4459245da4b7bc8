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

from opengnome.crystals import Crystal, CrystalTable
from opengnome.generation import GenerationSettings, generate
from opengnome.generation.ions import species_table
from opengnome.generation.novelty import known_composition_keys
from opengnome.generation.probabilities import STOCK, likely_targets

PYMATGEN_CRYSTALS = 1500
"""Crystals after which pymatgen's rate is known well enough."""

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
    _beside_pymatgen(parents, known)


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


def _beside_pymatgen(parents: CrystalTable, known: frozenset[str]) -> None:
    """Lists of targets and decorated crystals, ours and pymatgen's, of the same parents in one run."""
    from pymatgen.core import Species
    from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor

    print("\nsubstitution lists at threshold 1e-3, stock model, beside pymatgen")
    predictor = SubstitutionPredictor(threshold=1e-3)
    names = species_table().names
    ratios = []
    for ions_of in (["Na1+", "Cl1-"], ["Ba2+", "Ti4+", "O2-"], ["Li1+", "Fe2+", "P5+", "O2-"]):
        ions = species_table().indices(ions_of)
        start = time.process_time()
        for _ in range(50):
            targets, _ = likely_targets(ions, threshold=1e-3, model=STOCK)
        ours = (time.process_time() - start) / 50
        species = [Species.from_str(name) for name in ions_of]
        start = time.process_time()
        reference = predictor.list_prediction(species)
        theirs = time.process_time() - start
        same = {tuple(names[t] for t in row) for row in targets.tolist()} == {
            tuple(_name(next(new for new, old in row["substitutions"].items() if old == ion)) for ion in species)
            for row in reference
        }
        ratios.append(theirs / ours)
        print(
            f"  {'-'.join(ions_of):20s} {len(targets):4d} / {len(reference):4d} targets, "
            f"{'the same' if same else 'DIFFERENT'}, {1e3 * ours:.2f} / {1e3 * theirs:.0f} ms, {ratios[-1]:.0f} times"
        )
    print(f"  smallest ratio {min(ratios):.0f}")
    _decorating(parents, known)


def _name(species) -> str:
    """Our name of a pymatgen species, e.g. ``Na1+``."""
    return f"{species.symbol}{abs(int(species.oxi_state))}{'+' if species.oxi_state > 0 else '-'}"


def _decorating(parents: CrystalTable, known: frozenset[str]) -> None:
    """From a table of parents to a table of decorated crystals whose volumes follow the new ions.

    pymatgen's part is given the substitutions that ours found, so that it spends nothing on searching for them: it
    reads the parents, replaces the species, predicts the volume (DLSVolumePredictor), and writes a table. Its rate
    without the prediction of volumes is shown as well.
    """
    from pymatgen.analysis.structure_prediction.volume_predictor import DLSVolumePredictor
    from pymatgen.core import Structure

    settings = GenerationSettings(methods=("ionic_substitution",))
    start = time.process_time()
    result = generate(parents, settings, known_formulas=known, seed=0)
    ours = len(result.table) / (time.process_time() - start)
    by_parent: dict[str, list[dict[str, str]]] = {}
    for (parent,), replaced in zip(result.table.column("parent_ids"), result.table.column("replaced"), strict=True):
        changes = (change.split("->") for change in replaced.split("; "))
        by_parent.setdefault(parent, []).append({_element(old): _element(new) for old, new in changes})
    predictor = DLSVolumePredictor()
    rates = {}
    for volumes in (False, True):
        made, n, start = [], 0, time.process_time()
        for row, parent in enumerate(parents.ids):
            if parent not in by_parent or n >= PYMATGEN_CRYSTALS:
                continue
            crystal = parents[row]
            structure = Structure(crystal.lattice, crystal.atomic_numbers.tolist(), crystal.frac_coords)
            for changes in by_parent[parent]:
                new = structure.copy()
                new.replace_species(changes)
                if volumes:
                    new.scale_lattice(predictor.predict(new))
                made.append(Crystal(new.lattice.matrix, new.frac_coords, new.atomic_numbers))
            n = len(made)
        CrystalTable.from_crystals(made)
        rates[volumes] = n / (time.process_time() - start)
    print(
        f"\ndecorated crystals per second, table to table: ours {ours:.0f} (search, checks, volumes, ids included); "
        f"pymatgen {rates[True]:.0f} with volumes, {ours / rates[True]:.0f} times; "
        f"{rates[False]:.0f} without, {ours / rates[False]:.1f} times"
    )


def _element(ion: str) -> str:
    return ion.rstrip("+-0123456789")


if __name__ == "__main__":
    main()
