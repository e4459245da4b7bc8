"""What a campaign itself costs, beside the work: per calculation, per screened candidate, memory of the driver.

    python benchmarks/bench_campaign_overhead.py [--calculations 2000] [--candidates 100000]

Calculation: a unit that takes no time goes through everything that a calculation goes through - the name by digest,
the executor and its pipe, the start mark, the file that is moved into place and flushed, the reading of it, and the
event in the journal. A calculation by the oracle of recorded answers is measured too, where the work is to find and
write the answer.

Candidate: shards that are screened already are read, filtered to the lowest of each composition within the window,
and ordered (`select_candidates`): what the driver does for each candidate between the screening and the choice. The
candidates are generated from the embedded set, as often as it takes under other names, with made-up energies.
"""

import argparse
import resource
import tempfile
import time
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from opengnome.campaign import CampaignSettings, Progress, work
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated, Event, RoundOpened, ShardScreened
from opengnome.campaign.execution import Unit, local_executor, run_units
from opengnome.campaign.journal import Journal
from opengnome.campaign.judging import judged
from opengnome.campaign.pool import select_candidates
from opengnome.campaign.state import fold
from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.io import write_table
from opengnome.crystals.replacement import replace_file
from opengnome.generation import GenerationSettings, generate
from opengnome.oracles import OracleSettings, read_calculation

CANDIDATES_PER_SHARD = 10_000


def crystals(number: int) -> list[Crystal]:
    """Rock salt at as many lattice constants."""
    cell = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
    fractions = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]])
    return [Crystal(a * cell, fractions, np.array([11, 17])) for a in np.linspace(5.4, 5.8, number)]


def leave_file(*, path: Path, crystal: Crystal) -> None:
    """A calculation without the calculation."""
    replace_file(path, lambda temporary: temporary.write_bytes(crystal.lattice.tobytes()))


def answered(identifier: str, path: Path) -> Calculated:
    return Calculated(
        round=1,
        crystal_id=identifier,
        reduced_formula="NaCl",
        status="converged",
        reason="",
        energy_per_atom=-3.0,
        n_steps=1,
        seconds=0.0,
        path=path.name,
    )


Times = dict[str, tuple[float, float]]
"""Wall time and processor time of this process by step, seconds."""


class Stopwatch:
    """Seconds since it was last read."""

    def __init__(self) -> None:
        self.read()

    def read(self) -> tuple[float, float]:
        before = getattr(self, "last", (0.0, 0.0))
        self.last = (time.perf_counter(), time.process_time())
        return self.last[0] - before[0], self.last[1] - before[1]


def time_calculations(folder: Path, number: int, workers: int) -> Times:
    """Per calculation, by step."""
    oracle = OracleSettings.model_validate({"name": "ase", "calculator": "ase.calculators.lj:LennardJones"})
    structures = crystals(number)
    times: Times = {}
    watch = Stopwatch()
    units = []
    for crystal in structures:
        path = folder / f"{work.calculation_key(crystal, oracle)}.bin"
        units.append(Unit(path, leave_file, {"path": path, "crystal": crystal}))
    times["name by digest"] = watch.read()
    warm = [Unit(folder / f"warm-{i}", leave_file, units[i].arguments | {"path": folder / f"warm-{i}"}) for i in (0, 1)]
    executor = local_executor(workers)
    list(run_units(warm, lambda: Kept(executor)))
    watch.read()
    n_ended = sum(not ended.lost for ended in run_units(units, lambda: Kept(executor)))
    times["unit: send, mark, file, flush, settle"] = watch.read()
    executor.shutdown()
    with Journal(folder / "journal.sqlite") as journal:
        watch.read()
        for i, unit in enumerate(units):
            journal.append(answered(str(i), unit.path))
        times["event in the journal"] = watch.read()
        n_events = sum(1 for _ in journal)
        replay = watch.read()
    assert n_ended == n_events == number
    times["all of it"] = (sum(wall for wall, _ in times.values()), sum(cpu for _, cpu in times.values()))
    times["(replay of the journal)"] = replay
    return {name: (wall / number, cpu / number) for name, (wall, cpu) in times.items()}


class Kept:
    """An executor that is not shut down with the first units."""

    def __init__(self, executor: object) -> None:
        self.executor = executor

    def __getattr__(self, name: str) -> object:
        return getattr(self.executor, name)

    def shutdown(self, **_: object) -> None:
        pass


def time_whole_calculation(folder: Path, number: int) -> tuple[float, float]:
    """Seconds of `work.calculate` in this process with Lennard-Jones and no step, and of reading its file."""
    relaxation = {"max_steps": 0, "energy_per_atom_range": [-1e9, 1e9], "max_force": 1e9}
    oracle = OracleSettings.model_validate(
        {"name": "ase", "calculator": "ase.calculators.lj:LennardJones", "relaxation": relaxation}
    )
    watch = Stopwatch()
    for i, crystal in enumerate(crystals(number)):
        path = folder / f"whole-{i}.parquet"
        work.calculate(path=path, crystal=crystal, settings=oracle)
        read_calculation(path)
    wall, cpu = watch.read()
    return wall / number, cpu / number


def time_candidates(folder: Path, number: int) -> tuple[float, float]:
    """Seconds of `select_candidates` per candidate."""
    context = Context(folder, CampaignSettings(), make_executor=no_workers, progress=Progress(quiet=True))
    known = context.knowledge.known
    formulas = frozenset(known.table.reduced_formulas)
    parents = known.table.slice(0, 400)
    base = generate(parents, GenerationSettings(), known_formulas=formulas, seed=0).table
    rng = np.random.default_rng(0)
    hull = context.knowledge.initial_hull
    events: list[Event] = [
        no_alignment(),
        RoundOpened(round=1, n_parents=1, n_shards=-(-number // CANDIDATES_PER_SHARD), n_training=1, hull_digest="-"),
    ]
    for shard, start in enumerate(range(0, number, CANDIDATES_PER_SHARD)):
        table = judged(_screened(base, start, min(start + CANDIDATES_PER_SHARD, number), rng), hull)
        path = context.layout.shard(1, shard)
        write_table(path, table)
        counts = {"proposed": len(table), "duplicate": 0, "kept": len(table)}
        events.append(ShardScreened(round=1, shard=shard, path=context.layout.relative(path), counts=counts))
    with Journal(context.layout.journal) as journal:
        for event in events:
            journal.append(event)
        state = fold(journal)
    watch = Stopwatch()
    selected = select_candidates(context, state, 1)
    wall, cpu = watch.read()
    assert selected.counts["generated"] == number
    return wall / number, cpu / number


def _screened(base: CrystalTable, start: int, stop: int, rng: np.random.Generator) -> CrystalTable:
    table = base.take(np.arange(start, stop) % len(base))
    table = CrystalTable(table.arrow.set_column(table.arrow.column_names.index("id"), "id", [_ids(start, stop)]))
    n = len(table)
    for name, values in {
        "formation_energy_per_atom": rng.normal(-1.0, 0.7, n),
        "spread": np.full(n, 0.02),
        "std": np.full(n, 0.05),
        "volume_scale": np.ones(n),
    }.items():
        table = table.with_column(name, values)
    return table


def _ids(start: int, stop: int) -> list[str]:
    return [f"candidate-{i:09d}" for i in range(start, stop)]


def no_workers() -> Executor:
    raise AssertionError("a selection needs no worker")


def memory_mb() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calculations", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        print(f"{'milliseconds':45s} {'wall':>9s} {'processor time of the driver':>30s}")
        for name, times in time_calculations(folder, asked.calculations, asked.workers).items():
            tell(name, times)
        tell("calculation of one step, read again", time_whole_calculation(folder, min(asked.calculations, 200)))
        print(f"largest memory of the driver {memory_mb():.0f} MB")
        tell(f"choice, per candidate of {asked.candidates}", time_candidates(folder / "campaign", asked.candidates))
        print(f"largest memory of the driver {memory_mb():.0f} MB")


def tell(name: str, seconds: tuple[float, float]) -> None:
    print(f"{name:45s} {1e3 * seconds[0]:9.4f} {1e3 * seconds[1]:30.4f}", flush=True)


if __name__ == "__main__":
    main()
