"""What a campaign itself costs, beside the work: per calculation, per screened candidate, memory of the driver.

    python benchmarks/bench_campaign_overhead.py [--calculations 2000] [--candidates 100000] [--json FILE]

Calculation: a unit that takes no time goes through everything that a calculation goes through - the name by digest, the
executor and its pipe, the start mark, the file that is moved into place and flushed, the reading of a calculation, the
event in the journal, the state after it, and the progress line, here rewritten at every calculation as on a terminal. A
calculation with Lennard-Jones and no step is measured too, where the work is to write the answer.

Candidate: shards that are screened already are read, filtered to the lowest of each composition within the window,
and ordered (`select_candidates`): what the driver does for each candidate between the screening and the choice. The
candidates are generated from the embedded set, as often as it takes under other names, with made-up energies.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterable
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
from opengnome.campaign.shards import write_shard
from opengnome.campaign.state import CampaignState, apply, fold
from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.replacement import replace_file
from opengnome.generation import GenerationSettings, generate
from opengnome.oracles import OracleSettings, read_calculation

CANDIDATES_PER_SHARD = 10_000
ASKED = {"calculation_ms": 10.0, "candidate_us": 10.0}
"""What a campaign may cost beside its work."""


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


Seconds = tuple[float, float]
"""Wall time, and processor time of this process."""
Times = dict[str, Seconds]
"""The same by step."""


class Stopwatch:
    """Seconds since it was last read."""

    def __init__(self) -> None:
        self.read()

    def read(self) -> Seconds:
        before = getattr(self, "last", (0.0, 0.0))
        self.last = (time.perf_counter(), time.process_time())
        return self.last[0] - before[0], self.last[1] - before[1]


def time_calculations(folder: Path, number: int, workers: int) -> Times:
    """Per calculation, by step."""
    times: Times = {}
    watch = Stopwatch()
    units = named_units(folder, number)
    times["name by digest"] = watch.read()
    times["unit: send, mark, file, flush, settle"] = time_units(folder, units, workers)
    times["reading of its file"] = time_reading(folder, number)
    events = [answered(str(i), unit.path) for i, unit in enumerate(units)]
    with Journal(folder / "journal.sqlite") as journal:
        watch.read()
        for event in events:
            journal.append(event)
        times["event in the journal"] = watch.read()
    times["state after the event"] = time_state(events)
    times["progress line"] = time_progress(folder / "progress.jsonl", number)
    return {name: per(seconds, number) for name, seconds in times.items()}


def named_units(folder: Path, number: int) -> list[Unit]:
    """Units that only leave a file, under the name that a calculation has."""
    oracle = OracleSettings.model_validate({"name": "ase", "calculator": "ase.calculators.lj:LennardJones"})
    units = []
    for crystal in crystals(number):
        path = folder / f"{work.calculation_key(crystal, oracle)}.bin"
        units.append(Unit(path, leave_file, {"path": path, "crystal": crystal}))
    return units


def time_units(folder: Path, units: list[Unit], workers: int) -> Seconds:
    """Seconds of all units on workers that run already."""
    warm = [Unit(folder / f"warm-{i}", leave_file, units[i].arguments | {"path": folder / f"warm-{i}"}) for i in (0, 1)]
    executor = local_executor(workers)
    list(run_units(warm, lambda: Kept(executor)))
    watch = Stopwatch()
    n_ended = sum(not ended.lost for ended in run_units(units, lambda: Kept(executor)))
    seconds = watch.read()
    executor.shutdown()
    assert n_ended == len(units)
    return seconds


def time_reading(folder: Path, number: int) -> Seconds:
    """Seconds to read one calculation as often."""
    path = folder / "read.parquet"
    work.calculate(path=path, crystal=crystals(1)[0], settings=single_point())
    watch = Stopwatch()
    for _ in range(number):
        read_calculation(path)
    return watch.read()


def time_state(events: Iterable[Event]) -> Seconds:
    """Seconds to apply events one after another, as the driver does."""
    state = CampaignState()
    watch = Stopwatch()
    for event in events:
        state = apply(state, event)
    return watch.read()


def time_progress(path: Path, number: int) -> Seconds:
    """Seconds to tell as often how far a stage is, and to record its end."""
    with Path(os.devnull).open("w") as stream:
        progress = Progress(path, stream=stream)
        progress.live = True
        watch = Stopwatch()
        for done in range(1, number + 1):
            progress.step("round 1, relaxations", done, number, f"{done} converged")
        return watch.read()


def time_replay(journal: Path, number: int) -> Seconds:
    """Seconds per event to fold the state again, as a driver does that is resumed."""
    watch = Stopwatch()
    with Journal(journal, read_only=True) as opened:
        state = fold(opened)
    assert len(state.round(1).calculations) == number
    return per(watch.read(), number)


def per(seconds: Seconds, number: int) -> Seconds:
    return seconds[0] / number, seconds[1] / number


def total(times: Times) -> Seconds:
    return sum(wall for wall, _ in times.values()), sum(cpu for _, cpu in times.values())


class Kept:
    """An executor that is not shut down with the first units."""

    def __init__(self, executor: object) -> None:
        self.executor = executor

    def __getattr__(self, name: str) -> object:
        return getattr(self.executor, name)

    def shutdown(self, **_: object) -> None:
        pass


def single_point() -> OracleSettings:
    """Lennard-Jones without a step."""
    relaxation = {"max_steps": 0, "energy_per_atom_range": [-1e9, 1e9], "max_force": 1e9}
    return OracleSettings.model_validate(
        {"name": "ase", "calculator": "ase.calculators.lj:LennardJones", "relaxation": relaxation}
    )


def time_whole_calculation(folder: Path, number: int) -> Seconds:
    """Seconds of `work.calculate` in this process with Lennard-Jones and no step, and of reading its file."""
    oracle = single_point()
    watch = Stopwatch()
    for i, crystal in enumerate(crystals(number)):
        path = folder / f"whole-{i}.parquet"
        work.calculate(path=path, crystal=crystal, settings=oracle)
        read_calculation(path)
    return per(watch.read(), number)


def time_candidates(folder: Path, number: int) -> Seconds:
    """Seconds of `select_candidates` per candidate."""
    context = Context(folder, CampaignSettings(), make_executor=no_workers, progress=Progress(quiet=True))
    known = context.knowledge.known
    formulas = frozenset(known.table.reduced_formulas)
    parents = known.table.slice(0, 400)
    base = generate(parents, GenerationSettings(), known_formulas=formulas, seed=0)
    rng = np.random.default_rng(0)
    hull = context.knowledge.initial_hull
    events: list[Event] = [
        no_alignment(),
        RoundOpened(round=1, n_parents=1, n_shards=-(-number // CANDIDATES_PER_SHARD), n_training=1, hull_digest="-"),
    ]
    for shard, start in enumerate(range(0, number, CANDIDATES_PER_SHARD)):
        table = judged(_screened(base.table, start, min(start + CANDIDATES_PER_SHARD, number), rng), hull)
        path = context.layout.shard(1, shard)
        write_shard(path, table, base, hull_digest=hull.digest)  # as workers do; else the driver measures them again
        counts = {"proposed": len(table), "duplicate": 0, "kept": len(table)}
        events.append(ShardScreened(round=1, shard=shard, path=context.layout.relative(path), counts=counts))
    with Journal(context.layout.journal) as journal:
        for event in events:
            journal.append(event)
        state = fold(journal)
    watch = Stopwatch()
    selected = select_candidates(context, state, 1)
    seconds = watch.read()
    assert selected.counts["generated"] == number
    return per(seconds, number)


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calculations", type=int, default=2000)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), asked.calculations, asked.candidates, asked.workers)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


def measure(folder: Path, n_calculations: int, n_candidates: int, workers: int) -> dict:
    """Measure and print; times as they go into the file."""
    print(f"{'milliseconds':45s} {'wall':>9s} {'processor time of the driver':>30s}")
    times = time_calculations(folder, n_calculations, workers)
    for name, seconds in times.items():
        tell(name, seconds)
    tell("all of it", total(times))
    replay = time_replay(folder / "journal.sqlite", n_calculations)
    tell("(event, when the journal is read again)", replay)
    whole = time_whole_calculation(folder, min(n_calculations, 200))
    tell("calculation without a step, read again", whole)
    memory = {"after_calculations": memory_mb()}
    print(f"largest memory of the driver {memory['after_calculations']:.0f} MB")
    candidate = time_candidates(folder / "campaign", n_candidates)
    tell(f"choice, per candidate of {n_candidates}", candidate)
    memory["after_candidates"] = memory_mb()
    print(f"largest memory of the driver {memory['after_candidates']:.0f} MB")
    return {
        "calculations": n_calculations,
        "candidates": n_candidates,
        "workers": workers,
        "asked": ASKED,
        "calculation_ms": in_units(total(times), 1e3),
        "calculation_ms_by_step": {name: in_units(seconds, 1e3) for name, seconds in times.items()},
        "replayed_event_ms": in_units(replay, 1e3),
        "single_point_ms": in_units(whole, 1e3),
        "candidate_us": in_units(candidate, 1e6),
        "driver_memory_mb": memory,
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
    }


def in_units(seconds: Seconds, factor: float) -> dict[str, float]:
    return {"wall": factor * seconds[0], "driver_processor": factor * seconds[1]}


def tell(name: str, seconds: Seconds) -> None:
    print(f"{name:45s} {1e3 * seconds[0]:9.4f} {1e3 * seconds[1]:30.4f}", flush=True)


if __name__ == "__main__":
    main()
