"""The structural networks: training and screening throughput, and where screening spends its time.

    python benchmarks/bench_structural_model.py
    python benchmarks/bench_structural_model.py --table mp_crystals.parquet --crystals 2000 --threads 2

Without --table: random cells without symmetry and random targets. Both configurations, on the same crystals in one
run: crystals per second of wall time in training (graphs built before) and in screening with 10 members and 20
volumes, the share of each stage of screening, and the largest memory. Peers: `benchmarks/peers`.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import read_table
from opengnome.crystals.symmetry import orbits
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import batch_of, build_store, neighbour_list, reduced_graph
from opengnome.graphs.orbits import SYMPREC
from opengnome.models import (
    VOLUME_SCALES,
    AnyModelSettings,
    PaperSettings,
    StructuralModel,
    StructuralSettings,
    make_network,
)
from opengnome.models.constants import Constants
from opengnome.models.device import has_bfloat16
from opengnome.models.numerics import numerics
from opengnome.models.scan import energy_curves, scan_cutoff

CONFIGURATIONS: dict[str, AnyModelSettings] = {"default": StructuralSettings(), "paper": PaperSettings()}
MEMBERS = 10
BATCH = 32


def random_crystals(n: int, rng: np.random.Generator) -> CrystalTable:
    crystals = []
    for _ in range(n):
        n_atoms = int(rng.integers(2, 19))
        lattice = (18.0 * n_atoms) ** (1 / 3) * np.eye(3)
        crystals.append(Crystal(lattice, rng.uniform(0, 1, (n_atoms, 3)), rng.integers(3, 50, n_atoms)))
    return CrystalTable.from_crystals(crystals)


def network(settings: AnyModelSettings, seed: int = 0) -> StructuralModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network(settings, Constants(17.0, -1.5, 1.0))


def training_rate(settings: AnyModelSettings, table: CrystalTable, seconds: float, threads: int) -> float:
    """Crystals per second of wall time, one process."""
    graphs = build_store(table, cutoff=settings.cutoff, max_neighbours_per_atom=3000)
    model = network(settings)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    use_bfloat16 = has_bfloat16(torch.device("cpu"))
    rng = np.random.default_rng(0)
    n_seen, started = 0, 0.0
    with numerics(threads=threads):
        for step in range(10**6):
            if step == 5:  # the first steps fill caches
                n_seen, started = 0, time.perf_counter()
            if step > 5 and time.perf_counter() - started > seconds:
                break
            batch = graphs.batch(rng.integers(0, len(graphs), BATCH))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bfloat16):
                loss = model.standardised(batch).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            n_seen += BATCH
        return n_seen / (time.perf_counter() - started)


def screening_stages(settings: AnyModelSettings, table: CrystalTable, threads: int) -> dict[str, float]:
    """Seconds of wall time of each stage, for all crystals of `table`."""
    members = [network(settings, seed).eval() for seed in range(MEMBERS)]
    cutoff = scan_cutoff(settings.cutoff, VOLUME_SCALES)
    use_bfloat16 = has_bfloat16(torch.device("cpu"))
    seconds = dict.fromkeys(("neighbours", "symmetry", "reduction", "networks"), 0.0)

    def clock(stage: str, since: float) -> float:
        now = time.perf_counter()
        seconds[stage] += now - since
        return now

    with numerics(threads=threads):
        for start in range(0, len(table), BATCH):
            graphs = []
            for crystal in table.slice(start, start + BATCH):
                now = time.perf_counter()
                neighbours = neighbour_list(crystal, cutoff, max_neighbours_per_atom=3000)
                now = clock("neighbours", now)
                try:
                    orbit_of_atom = orbits(crystal, symprec=SYMPREC)
                except InvalidCrystalError:
                    orbit_of_atom = np.arange(crystal.n_atoms)
                now = clock("symmetry", now)
                graphs.append(reduced_graph(crystal.atomic_numbers, neighbours, orbit_of_atom))
                clock("reduction", now)
            now = time.perf_counter()
            energy_curves(members, batch_of(graphs), VOLUME_SCALES, bfloat16=use_bfloat16)
            clock("networks", now)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of training per configuration")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    if options.table:
        table = read_table(options.table)
        table = table.take(np.sort(rng.choice(len(table), options.crystals, replace=False)))
    else:
        table = random_crystals(options.crystals, rng)
    mean = float(table.n_atoms.mean())
    print(f"{len(table)} crystals of {mean:.1f} atoms on average, {options.threads} thread(s)")
    for name, settings in CONFIGURATIONS.items():
        n_parameters = sum(p.numel() for p in network(settings).parameters())
        rate = training_rate(settings, table, options.seconds, options.threads)
        print(f"{name}: {n_parameters:,} parameters, training {rate:.0f} crystals/s, {rate * mean:.0f} atoms/s")
        candidates = table.slice(0, options.candidates)
        stages = screening_stages(settings, candidates, options.threads)
        total = sum(stages.values())
        shares = ", ".join(f"{stage} {100 * value / total:.1f} %" for stage, value in stages.items())
        print(f"{name}: screening, {MEMBERS} members x 20 volumes: {len(candidates) / total:.1f} crystals/s ({shares})")
    print(f"largest memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
