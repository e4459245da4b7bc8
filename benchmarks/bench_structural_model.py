"""The structural model: training and screening throughput, and the error it reaches.

    python benchmarks/bench_structural_model.py
    python benchmarks/bench_structural_model.py --table mp_crystals.parquet --epochs 40
    python benchmarks/bench_structural_model.py --table mp_crystals.parquet --crystals 400 --epochs 200

With --table: crystals of 30 elements and at most 20 atoms, split by the hash of the formula. Without it:
random cells with random targets, for throughput only. One core; rates are per second of processor time.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from opengnome.crystals import Crystal, CrystalTable
from opengnome.datasets.splits import held_out_mask
from opengnome.models import VOLUME_SCALES, ModelSettings, TrainingSettings, assemble_ensemble, train_member

ATOMIC_NUMBERS = (
    *(3, 11, 19, 37, 55, 12, 20, 38, 56, 13, 31, 49, 14, 32, 50, 30, 48, 21, 39, 40),  # Li ... Zr
    *(8, 16, 34, 52, 9, 17, 35, 53, 7, 15, 33),  # O S Se Te F Cl Br I N P As
)
MAX_ATOMS = 20


def table_crystals(path: Path) -> tuple[CrystalTable, np.ndarray]:
    import pyarrow.parquet as pq

    table = CrystalTable.from_arrow(pq.read_table(path))
    table = table.filter(table.n_atoms <= MAX_ATOMS)
    allowed = np.isin(table.flat_atomic_numbers, ATOMIC_NUMBERS)
    table = table.filter(np.add.reduceat(allowed, table.offsets[:-1]) == table.n_atoms)
    return table, np.array(table.column("formation_energy_per_atom"))


def random_crystals(n: int, rng: np.random.Generator) -> tuple[CrystalTable, np.ndarray]:
    crystals = []
    for _ in range(n):
        n_atoms = int(rng.integers(2, 15))
        lattice = (18.0 * n_atoms) ** (1 / 3) * np.eye(3)
        crystals.append(Crystal(lattice, rng.uniform(0, 1, (n_atoms, 3)), rng.integers(3, 50, n_atoms)))
    return CrystalTable.from_crystals(crystals), rng.normal(-1.0, 1.0, n)


def subsample(held_out: np.ndarray, n_train: int, rng: np.random.Generator) -> np.ndarray:
    """All held-out rows and `n_train` of the others."""
    train = np.flatnonzero(~held_out)
    chosen = rng.choice(train, min(n_train, len(train)), replace=False)
    return np.sort(np.concatenate([np.flatnonzero(held_out), chosen]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--crystals", type=int, help="train on this many (default: all, 1000 without --table)")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--set", nargs="*", default=[], metavar="MODEL_FIELD=VALUE", dest="overrides")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.table:
        table, targets = table_crystals(options.table)
    else:
        table, targets = random_crystals(options.crystals or 1000, rng)
    held_out = held_out_mask(table.reduced_formulas)
    if options.table and options.crystals:
        rows = subsample(held_out, options.crystals, rng)
        table, targets, held_out = table.take(rows), targets[rows], held_out[rows]
    fields = dict(override.split("=", 1) for override in options.overrides)
    model = ModelSettings.model_validate(fields, strict=False)
    training = TrainingSettings(epochs=options.epochs)
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{seed}.safetensors" for seed in range(options.members)]
        for seed, path in enumerate(paths):
            start = time.process_time()
            report = train_member(
                table, targets, held_out=held_out, model=model, training=training, seed=seed, path=path
            )
            seconds = time.process_time() - start
            print(
                f"member {seed}: {report.n_train} crystals, {options.epochs} epochs, "
                f"{report.n_train * options.epochs / seconds:.0f} crystals/s, train "
                f"{1000 * report.train_mae:.1f}, held out {1000 * (report.held_out_mae or np.nan):.1f} meV/atom"
            )
        ensemble = assemble_ensemble(paths, Path(name) / "ensemble", table=table, targets=targets, held_out=held_out)
        print(f"median of {options.members}: held out {1000 * ensemble.metrics['mae']:.1f} meV/atom")
        print(f"coverage: {ensemble.metrics.get('coverage')}")
        for scales in ((1.0,), VOLUME_SCALES):
            candidates = table.slice(0, options.candidates)
            start = time.process_time()
            ensemble.predict(candidates, volume_scales=scales)
            rate = len(candidates) / (time.process_time() - start)
            print(f"screening, {options.members} members x {len(scales)} volumes: {rate:.0f} candidates/s")


if __name__ == "__main__":
    main()
