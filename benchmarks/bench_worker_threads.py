"""What one thread per worker is worth: random crystals relaxed by CHGNet on all cores, with and without.

    python benchmarks/bench_worker_threads.py

Two runs over the same crystals, each with as many workers as cores: as campaigns have them (`local_workers.ONE_THREAD`
in the environment of each process from its start), and with the libraries' own number of threads. Seconds are from the
first results to the last, so that the start of the processes and the loading of the network are left out.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from opengnome.campaign import local_workers, work
from opengnome.campaign.execution import Unit, available_cores, local_executor, run_units
from opengnome.crystals import Composition, Crystal
from opengnome.generation import RandomStructureSettings, random_crystals
from opengnome.oracles import OracleSettings

FORMULAS = ("Ba3Na2ScSi2", "Ca2ScSi4P", "CaZr(PN2)2", "Cs3NaScSe3")


def crystals(number: int) -> list[Crystal]:
    per_formula = -(-number // len(FORMULAS))
    tables = [
        random_crystals(Composition.from_formula(f), RandomStructureSettings(), seed=0, stop=per_formula)
        for f in FORMULAS
    ]
    return [crystal for table in tables for crystal in table][:number]


def seconds(structures: list[Crystal], workers: int) -> float:
    """Wall time of the relaxations after the first of each worker."""
    oracle = OracleSettings.model_validate({"name": "chgnet", "relaxation": {"max_steps": 40}})
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / f"{i}.parquet" for i in range(len(structures))]
        units = [
            Unit(path, work.calculate, {"path": path, "crystal": crystal, "settings": oracle})
            for path, crystal in zip(paths, structures, strict=True)
        ]
        ended = [time.perf_counter() for _ in run_units(units, lambda: local_executor(workers))]
    return ended[-1] - ended[workers - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crystals", type=int, default=24)
    parser.add_argument("--workers", type=int, default=available_cores())
    options = parser.parse_args()
    for name in local_workers.ONE_THREAD:  # workers would inherit it
        os.environ.pop(name, None)
    structures = crystals(options.crystals)
    one = seconds(structures, options.workers)
    with patch.object(local_workers, "ONE_THREAD", {}):
        own = seconds(structures, options.workers)
    print(f"{len(structures)} relaxations of at most 40 steps, {options.workers} workers")
    print(f"one thread each: {one:.1f} s; the libraries' own number: {own:.1f} s, {own / one:.1f} times as long")


if __name__ == "__main__":
    main()
