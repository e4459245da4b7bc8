"""From parents to the distance from the hull: candidates per hour, where the time goes, and what 10^9 would cost.

    python benchmarks/bench_screening.py --table mp_crystals.parquet --parents 400
    python benchmarks/bench_screening.py --table mp_crystals.parquet --members 1 --volumes 1

What a campaign does in a shard of parents and after it, by the same functions, on one core: generation with the default
settings (capped per parent), graphs and networks of the ensemble, hull of all entries of the table. The ensemble is the
shipped one with its members repeated up to --members: what it costs does not depend on its weights. Parents are drawn
from the table, those of more than --max-atoms atoms left out. Without --table: the embedded set.
"""

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from opengnome.campaign.judging import hull_formation_energies
from opengnome.crystals import Composition, CrystalTable
from opengnome.crystals.io import read_table
from opengnome.datasets import KnownSetSettings, load_known_set
from opengnome.generation import GenerationSettings, generate
from opengnome.graphs import batch_of, orbit_graph
from opengnome.hull import Hull
from opengnome.models import Ensemble, shipped_ensemble
from opengnome.models.ensemble import BATCH_ATOMS
from opengnome.models.numerics import numerics
from opengnome.models.scan import scan_cutoff, scan_volumes

WINDOW = 0.05
"""eV/atom above the hull that still counts as a candidate for the oracle."""
SCALE = 10**9


class Clock:
    """Seconds of wall time by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def drawn_parents(table: CrystalTable, n: int, max_atoms: int, seed: int) -> CrystalTable:
    rows = np.flatnonzero(table.n_atoms <= max_atoms)
    return table.take(np.sort(np.random.default_rng(seed).permutation(rows)[:n]))


def enlarged(ensemble: Ensemble, n_members: int) -> Ensemble:
    return replace(ensemble, members=tuple(islice(cycle(ensemble.members), n_members)))


def predict(
    ensemble: Ensemble, table: CrystalTable, scales: tuple[float, ...], *, bfloat16: bool, clock: Clock
) -> np.ndarray:
    """Median of the members' lowest energies (n,), eV/atom; as `Ensemble.predict`, with a clock in it."""
    cutoff = scan_cutoff(ensemble.members[0].settings.cutoff, scales)
    energies, graphs, first, n_nodes = np.empty(len(table)), [], 0, 0
    with numerics(threads=1):
        for row in range(len(table)):
            with clock.stage("graphs"):
                graphs.append(orbit_graph(table[row], cutoff=cutoff))
            n_nodes += graphs[-1].n_nodes
            if n_nodes > BATCH_ATOMS or row + 1 == len(table):
                with clock.stage("networks"):
                    minimum = scan_volumes(ensemble.members, batch_of(graphs), scales, bfloat16=bfloat16)
                energies[first : row + 1] = np.median(minimum.energies, axis=0)
                graphs, first, n_nodes = [], row + 1, 0
    return energies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--parents", type=int, default=60)
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--candidates", type=int, default=2000, help="judged, drawn from those generated")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--volumes", type=int, default=20)
    parser.add_argument("--bfloat16", action="store_true", help="as the setting screening.bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    clock = Clock()
    known = load_known_set(KnownSetSettings(source=str(options.table) if options.table else "embedded"))
    table = read_table(options.table) if options.table else known.table
    parents = drawn_parents(table, options.parents, options.max_atoms, options.seed)
    settings = GenerationSettings()
    with clock.stage("generation"):
        result = generate(parents, settings, known_formulas=frozenset(known.table.reduced_formulas), seed=options.seed)
    n_kept, n_proposed = len(result.table), result.counts["proposed"]
    generation_seconds = clock.seconds.pop("generation")
    rows = np.random.default_rng(options.seed).permutation(n_kept)[: options.candidates]
    candidates = result.table.take(np.sort(rows))

    ensemble = enlarged(Ensemble.load(shipped_ensemble()), options.members)
    scales = (1.0,) if options.volumes == 1 else tuple(np.linspace(0.8, 1.2, options.volumes))
    energies = predict(ensemble, candidates, scales, bfloat16=options.bfloat16, clock=clock)
    entries = known.entries
    with clock.stage("hull"):
        hull = Hull(entries)
    hull_once = clock.seconds.pop("hull")
    with clock.stage("hull"):
        compositions = [Composition.from_formula(formula) for formula in candidates.reduced_formulas]
        distances = energies - hull_formation_energies(hull, compositions)

    per_candidate = {"generation": generation_seconds / n_kept}
    per_candidate |= {name: seconds / len(candidates) for name, seconds in clock.seconds.items()}
    total = sum(per_candidate.values())
    found = {
        "parents": len(parents),
        "proposed": n_proposed,
        "kept": n_kept,
        "judged": len(candidates),
        "atoms_per_candidate": float(candidates.n_atoms.mean()),
        "members": options.members,
        "volumes": len(scales),
        "bfloat16": options.bfloat16,
        "candidates_per_hour": 3600 / total,
        "proposals_per_second": n_proposed / generation_seconds,
        "seconds_per_candidate": per_candidate,
        "share": {name: value / total for name, value in per_candidate.items()},
        "within_window": float((distances <= WINDOW).mean()),
        "hull_construction_seconds": hull_once,
        "core_hours_per_billion": SCALE * total / 3600,
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "machine": {"cpu": platform.processor(), "cores": os.cpu_count()},
    }
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
