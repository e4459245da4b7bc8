"""Candidates in one run: screened in shards on all cores, then reduced to a choice; time, and memory of the driver.

    python benchmarks/bench_map_reduce.py
    python benchmarks/bench_map_reduce.py --table mp_crystals.parquet --parents 12000 --output runs/million

The stages of a campaign's round by its own functions, with the shipped networks: parents drawn from the table,
candidates generated and judged in the workers (`screening.screen`: one file per shard), what may be chosen reduced in
the driver (`pool.select_candidates`). With one volume instead of twenty (--volumes) and two networks instead of ten, so
that a million candidates take minutes: what more of them cost is in bench_screening.py.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from concurrent.futures import Executor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from opengnome.campaign import CampaignSettings, Progress
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.events import Event, RoundOpened
from opengnome.campaign.execution import available_cores, local_executor
from opengnome.campaign.journal import Journal
from opengnome.campaign.pool import select_candidates
from opengnome.campaign.screening import screen
from opengnome.campaign.state import fold
from opengnome.crystals.io import write_table
from opengnome.models import shipped_ensemble
from opengnome.settings import validate

PARENTS_PER_SHARD = 50
HASH_BYTES = 8
"""What the reduction keeps of every candidate."""


def campaign_settings(options: argparse.Namespace) -> CampaignSettings:
    known = {"source": str(options.table.absolute()), "level": "of the table"} if options.table else {}
    if options.table and options.energy_column:
        known["energy_column"] = options.energy_column
    return validate(
        CampaignSettings,
        {
            "known": known,
            "parents": {"parents_per_shard": PARENTS_PER_SHARD},
            "screening": {"n_volume_scales": options.volumes, "bfloat16": options.bfloat16},
            "rounds": {"budget": 200, "random_filtered": 20, "random_unfiltered": 20},
        },
    )


def prepared(context: Context, options: argparse.Namespace) -> RoundOpened:
    """The files that a round starts from."""
    known, layout = context.knowledge.known, context.layout
    rows = np.flatnonzero(known.table.n_atoms <= options.max_atoms)
    rows = np.sort(np.random.default_rng(options.seed).permutation(rows)[: options.parents])
    layout.ensemble(1).parent.mkdir(parents=True, exist_ok=True)
    write_table(layout.parents(1), known.table.take(rows))
    layout.formulas(1).write_text("\n".join(sorted(set(known.table.reduced_formulas))) + "\n")
    shutil.copytree(shipped_ensemble(), layout.ensemble(1), dirs_exist_ok=True)
    n_shards = -(-len(rows) // PARENTS_PER_SHARD)
    return RoundOpened(round=1, n_parents=len(rows), n_shards=n_shards, n_training=1, hull_digest="-")


def resident_mb() -> float:
    """Memory of this process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def run(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    workers = options.workers or available_cores()
    make_executor: partial[Executor] = partial(local_executor, workers)
    context = Context(folder, campaign_settings(options), make_executor=make_executor, progress=Progress())
    opened = prepared(context, options)
    events: list[Event] = [no_alignment(), opened]
    memory, n_candidates = [], 0
    with Journal(context.layout.journal) as journal:
        for event in events:
            journal.append(event)
        began = time.perf_counter()
        for event in screen(context, fold(journal), 1, range(opened.n_shards)):
            journal.append(event)
            n_candidates += event.counts["kept"]
            memory.append((n_candidates, resident_mb()))
        screened = time.perf_counter() - began
        state = fold(journal)
    before, cpu, began = resident_mb(), time.process_time(), time.perf_counter()
    selected = select_candidates(context, state, 1)
    seconds, cpu_seconds, after = time.perf_counter() - began, time.process_time() - cpu, resident_mb()
    n = selected.counts["generated"]
    step = max(1, len(memory) // 10)
    return {
        "parents": opened.n_parents,
        "counts": selected.counts,
        "volumes": options.volumes,
        "max_atoms": options.max_atoms,
        "bfloat16": options.bfloat16,
        "workers": workers,
        "screening_seconds": screened,
        "candidates_per_hour": 3600 * n / screened,
        "driver_mb_while_screening": {str(done): round(mb, 1) for done, mb in islice(memory, 0, None, step)},
        "selection_seconds": seconds,
        "selection_us_per_candidate": 1e6 * seconds / n,
        "selection_cpu_us_per_candidate": 1e6 * cpu_seconds / n,
        "driver_mb_before_and_after_selection": [round(before, 1), round(after, 1)],
        "driver_peak_mb": round(peak_mb(resource.RUSAGE_SELF), 1),
        "digests_mb": HASH_BYTES * n / 2**20,
        "largest_worker_peak_mb": round(peak_mb(resource.RUSAGE_CHILDREN), 1),
        "shards_mb": sum(path.stat().st_size for path in context.layout.shard(1, 0).parent.iterdir()) / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--energy-column", default="formation_energy_per_atom", help="of the table")
    parser.add_argument("--parents", type=int, default=60)
    parser.add_argument("--max-atoms", type=int, default=12)
    parser.add_argument("--volumes", type=int, default=1)
    parser.add_argument("--bfloat16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--workers", type=int, help="processes; one per core when not given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="new folder; a temporary one when not given")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.output and options.output.exists():
        parser.error(f"{options.output} is there; shards of another run would spoil the rate")
    with tempfile.TemporaryDirectory() as scratch:
        text = json.dumps(run(options.output or Path(scratch) / "campaign", options), indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
