"""CHGNet oracle beside CHGNet's own calculator and relaxer, and the cost of storing a calculation.

    python benchmarks/bench_oracle.py

One thread; AFLOW prototypes displaced by 0.05 A. Prints a Markdown table.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.crystals import Crystal
from opengnome.crystals.interop import to_ase
from opengnome.oracles import RelaxationSettings, Status, read_calculation, write_calculation
from opengnome.oracles.chgnet import ChgnetOracle, evaluate

N_CRYSTALS = 12
DISPLACEMENT = 0.05


def main() -> None:
    torch.set_num_threads(1)
    crystals = displaced_prototypes()
    print(f"{len(crystals)} crystals, {np.mean([c.n_atoms for c in crystals]):.1f} atoms on average\n")
    print("| evaluation (energy, forces, stress) | ms per crystal |\n|--|--|")
    stock = stock_calculator()
    for name, evaluation in (("stock calculator", lambda c: stock_evaluation(stock, c)), ("oracle", evaluate)):
        print(f"| {name} | {milliseconds_each(evaluation, crystals):.1f} |")
    print("\n| relaxation | converged | steps | s per crystal | ms per step |\n|--|--|--|--|--|")
    print(row("stock StructOptimizer, FIRE", [stock_relaxation(stock, c) for c in crystals]))
    for optimizer in ("fire", "bfgs"):
        oracle = ChgnetOracle(RelaxationSettings(optimizer=optimizer, max_steps=100))
        calculations = [oracle.relax(c) for c in crystals]
        print(
            row(
                f"oracle, {optimizer.upper()}",
                [(c.status == Status.CONVERGED, c.n_steps, c.seconds) for c in calculations],
            )
        )
    print_store(calculations)


def displaced_prototypes() -> list[Crystal]:
    """Every k-th AFLOW prototype of 4 to 16 atoms whose elements CHGNet knows."""
    from pymatgen.analysis.prototypes._data import AFLOW_PROTOTYPE_LIBRARY

    structures = [entry["snl"].structure for entry in AFLOW_PROTOTYPE_LIBRARY]
    structures = [s for s in structures if 4 <= len(s) <= 16 and max(s.atomic_numbers) < 84]
    rng = np.random.default_rng(0)
    crystals = []
    for s in structures[:: len(structures) // N_CRYSTALS][:N_CRYSTALS]:
        shifts = rng.normal(0, DISPLACEMENT, (len(s), 3)) @ np.linalg.inv(s.lattice.matrix)
        crystals.append(Crystal(s.lattice.matrix, s.frac_coords + shifts, s.atomic_numbers))
    return crystals


def stock_calculator() -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    with redirect_stdout(None):
        return CHGNetCalculator(use_device="cpu")


def stock_evaluation(calculator: Any, crystal: Crystal) -> None:
    calculator.calculate(to_ase(crystal), task="efs")


def stock_relaxation(calculator: Any, crystal: Crystal) -> tuple[bool, int, float]:
    from chgnet.model.dynamics import StructOptimizer

    with redirect_stdout(None):
        relaxer = StructOptimizer(calculator, use_device="cpu")
        start = time.perf_counter()
        result = relaxer.relax(to_ase(crystal), fmax=0.05, steps=100, verbose=False)
    n_steps = len(result["trajectory"].energies) - 1
    return n_steps < 100, n_steps, time.perf_counter() - start


def milliseconds_each(evaluation: Callable[[Crystal], object], crystals: list[Crystal], repeats: int = 5) -> float:
    """Median over repeats of the mean time per crystal."""
    for crystal in crystals:
        evaluation(crystal)  # first calls load and allocate
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for crystal in crystals:
            evaluation(crystal)
        times.append((time.perf_counter() - start) / len(crystals))
    return 1000 * statistics.median(times)


def row(name: str, results: list[tuple[bool, int, float]]) -> str:
    converged, steps, seconds = (np.array(column, dtype=float) for column in zip(*results, strict=True))
    per_step = 1000 * seconds.sum() / (steps + 1).sum()
    cells = (f"{converged.sum():.0f}/{len(results)}", f"{steps.mean():.1f}", f"{seconds.mean():.2f}", f"{per_step:.0f}")
    return f"| {name} | {' | '.join(cells)} |"


def print_store(calculations: list) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.parquet" for i in range(len(calculations))]
        start = time.perf_counter()
        for path, calculation in zip(paths, calculations, strict=True):
            write_calculation(path, calculation)
        written = time.perf_counter()
        for path in paths:
            read_calculation(path)
        read = time.perf_counter()
        size = sum(path.stat().st_size for path in paths) / len(paths)
        n = len(paths)
    print(
        f"\nStore: {1000 * (written - start) / n:.1f} ms to write (with fsync), "
        f"{1000 * (read - written) / n:.1f} ms to read, {size / 1000:.0f} kB per calculation."
    )


if __name__ == "__main__":
    main()
