"""Error against the number of training crystals: the scaling law, in and out of domain.

    python benchmarks/scaling.py --data DATA --output runs/scaling [--sizes 500 1000 2000 4000 8000 16000 32000 64000]
    python benchmarks/scaling.py --data DATA --output runs/scaling --fit

One network per size is trained on a random part of the Materials Project table (training side of the hash split) and
judged on: held-out compositions of the table; crystals of five and more elements, as all training is capped at four;
and GNoME crystals, none of which is trained on. Sizes that are finished are kept, so a killed run goes on.
`--fit` fits MAE = a N^-b and MAE = a N^-b + c by least squares of the logarithm, with 95 % intervals of the exponent
from 300 bootstrap samples of the judged crystals, and writes `scaling.json` and `scaling.svg`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from accuracy import n_elements
from scipy.optimize import least_squares

from opengnome.campaign.train import TrainSettings
from opengnome.crystals import CrystalTable, concatenate
from opengnome.crystals.io import read_table
from opengnome.crystals.table import STRUCTURE_COLUMNS
from opengnome.datasets import held_out_mask
from opengnome.graphs import GraphStore, cached_store
from opengnome.models import train_member
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.numerics import numerics
from opengnome.settings import load

TARGET = "formation_energy_per_atom"
SIZES = (500, 1000, 2000, 4000, 8000, 16000, 32000, 64000)
JUDGED = 3000
SAMPLES = 300
MAX_ELEMENTS = 4


def judged_sets(data: Path, rng: np.random.Generator) -> dict[str, CrystalTable]:
    """Crystals to judge by, by name."""
    table = read_table(data / "mp_crystals.parquet")
    held_out = held_out_mask(table.reduced_formulas)
    many = n_elements(table) > MAX_ELEMENTS
    gnome = read_table(data / "gnome_pbe.parquet")

    def some(part: CrystalTable) -> CrystalTable:
        return part.take(np.sort(rng.permutation(len(part))[:JUDGED]))

    return {
        "hash test": some(table.filter(held_out)),
        "5 and more elements": some(table.filter(many)),
        "GNoME": some(gnome),
    }


def train(options: argparse.Namespace) -> None:
    settings = load(TrainSettings, None, options.overrides)
    table = read_table(options.data / "mp_crystals.parquet")
    train_side = table.filter(~held_out_mask(table.reduced_formulas) & (n_elements(table) <= MAX_ELEMENTS))
    order = np.random.default_rng(1).permutation(len(train_side))
    judged = judged_sets(options.data, np.random.default_rng(2))
    both = concatenate([CrystalTable(t.arrow.select([*STRUCTURE_COLUMNS, TARGET])) for t in judged.values()])
    cache = options.output / "graphs"
    model = settings.model
    judged_graphs = cached_store(both, cache, cutoff=model.cutoff, max_neighbours_per_atom=3000, workers=2)
    graphs = cached_store(train_side, cache, cutoff=model.cutoff, max_neighbours_per_atom=3000, workers=2)
    targets = np.array(train_side.column(TARGET), dtype=float)
    for size in options.sizes:
        if size > len(train_side):
            continue
        path = options.output / f"n{size}.safetensors"
        if not path.exists():
            rows = np.sort(order[:size])
            training = settings.training.model_copy(
                update={"epochs": max(10, options.steps * settings.training.batch_size // size)}
            )
            report = train_member(
                train_side.take(rows),
                targets[rows],
                held_out=np.zeros(size, dtype=bool),
                model=model,
                training=training,
                seed=0,
                path=path,
                graphs=graphs.part(rows),
            )
            print(report, flush=True)
        errors_path = path.with_suffix(".npz")
        if not errors_path.exists():
            np.savez(errors_path, **judge(path, both, judged_graphs, {name: len(t) for name, t in judged.items()}))
        errors = np.load(errors_path)
        print(size, {name: round(1000 * float(np.abs(errors[name]).mean()), 1) for name in errors.files}, flush=True)


def judge(path: Path, crystals: CrystalTable, graphs: GraphStore, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Errors (eV/atom) of a network on each of the judged sets, which lie one after another."""
    network = load_checkpoint(path)[0]
    parts = [np.arange(start, min(start + 64, len(graphs))) for start in range(0, len(graphs), 64)]
    with numerics(threads=1), torch.inference_mode():
        predicted = torch.cat([network(graphs.batch(part)) for part in parts]).double().numpy()
    errors = predicted - np.array(crystals.column(TARGET), dtype=float)
    return dict(zip(lengths, np.split(errors, np.cumsum(list(lengths.values()))[:-1]), strict=True))


def power_law(sizes: np.ndarray, maes: np.ndarray, *, offset: bool) -> np.ndarray:
    """(a, b, c) of a (N / 1000)^-b + c that fits the logarithm of the errors; c is zero without offset."""

    def residuals(p: np.ndarray) -> np.ndarray:
        c = np.exp(p[2]) if offset else 0.0
        return np.log(np.exp(p[0]) * (sizes / 1000.0) ** -p[1] + c) - np.log(maes)

    start = np.array([np.log(maes[0]), 0.3, np.log(0.2 * maes.min())])
    found = least_squares(residuals, start if offset else start[:2], max_nfev=2000).x
    return np.array([np.exp(found[0]), found[1], np.exp(found[2]) if offset else 0.0])


def fit(options: argparse.Namespace) -> None:
    files = sorted(options.output.glob("n*.npz"), key=lambda p: int(p.stem[1:]))
    sizes = np.array([int(p.stem[1:]) for p in files], dtype=float)
    errors = [np.load(p) for p in files]
    rng = np.random.default_rng(0)
    result: dict[str, object] = {"sizes": sizes.tolist()}
    for name in errors[0].files:
        absolute = np.abs(np.array([e[name] for e in errors]))
        maes = absolute.mean(axis=1)
        samples = [
            absolute[:, rng.integers(0, absolute.shape[1], absolute.shape[1])].mean(axis=1) for _ in range(SAMPLES)
        ]
        laws = {}
        for law, offset in (("power law", False), ("power law with offset", True)):
            a, b, c = power_law(sizes, maes, offset=offset)
            exponents = [
                power_law(sizes, sample, offset=offset)[1] for sample in samples[: 1000 if not offset else 200]
            ]
            laws[law] = {
                "error_at_1000": a,
                "exponent": b,
                "exponent_95": np.quantile(exponents, [0.025, 0.975]).tolist(),
                "offset": c,
            }
        result[name] = {"mae": maes.tolist(), **laws}
    (options.output / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    draw(result, options.output / "scaling.svg")


def draw(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.0, 4.2))
    sizes = np.array(result["sizes"])
    for name, part in result.items():
        if name == "sizes":
            continue
        line = axes.loglog(sizes, 1000 * np.array(part["mae"]), "o", label=name)[0]
        law = part["power law"]
        fitted = law["error_at_1000"] * (sizes / 1000) ** -law["exponent"]
        axes.loglog(sizes, 1000 * fitted, "-", color=line.get_color(), lw=1)
    axes.set_xlabel("training crystals")
    axes.set_ylabel("mean absolute error, meV/atom")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--steps", type=int, default=6000, help="steps of training; at least ten epochs")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.fit:
        fit(options)
    else:
        train(options)


if __name__ == "__main__":
    main()
