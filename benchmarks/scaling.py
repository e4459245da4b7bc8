"""Error against the number of training crystals: the scaling law, in and out of domain.

    python benchmarks/scaling.py --data DATA --output runs/scaling [--sizes 500 1000 2000 4000] [--seeds 3]
    python benchmarks/scaling.py --data DATA --output runs/scaling --fit

A network per size and seed is trained on a random part of the Materials Project table (training side of the hash split)
and judged on: held-out compositions of the table; crystals of five and more elements, as all training is capped at
four; and GNoME crystals, none of which is trained on. A seed draws the part, nested over the sizes, and the weights.
Networks that are finished are kept, so a killed run goes on; those of other settings are refused.

`--fit` fits MAE = a N^-b and MAE = a N^-b + c by least squares of the logarithm of the mean over the seeds, and writes
`scaling.json` and `scaling.svg`. Each exponent has two 95 % intervals. `exponent_95` is of 300 bootstrap samples of the
judged crystals, and of the seeds where there are several (too narrow when they are few): how far other crystals, and
other networks, would move it, the law being right. `exponent_95_of_the_fit` is the t-interval of the regression, with
as many degrees of freedom as sizes are left by the parameters: it knows how badly the errors follow the law, and
nothing of the crystals.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import n_elements, refuse_other_data, refuse_other_settings
from scipy.optimize import least_squares
from scipy.stats import t as student

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
FILE = re.compile(r"n(?P<size>\d+)(-seed(?P<seed>\d+))?")
"""Name of the files of a network; seed 0 is not named."""
LAWS = {"power law": False, "power law with offset": True}


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
    judged = judged_sets(options.data, np.random.default_rng(2))
    both = concatenate([CrystalTable(t.arrow.select([*STRUCTURE_COLUMNS, TARGET])) for t in judged.values()])
    cache = options.output / "graphs"
    cutoff = settings.model.cutoff
    judged_graphs = cached_store(both, cache, cutoff=cutoff, max_neighbours_per_atom=3000, workers=2)
    graphs = cached_store(train_side, cache, cutoff=cutoff, max_neighbours_per_atom=3000, workers=2)
    for seed in range(options.seeds):
        order = np.random.default_rng((1, seed) if seed else 1).permutation(len(train_side))
        for size in (size for size in options.sizes if size <= len(train_side)):
            rows = np.sort(order[:size])
            path = options.output / (f"n{size}-seed{seed}.safetensors" if seed else f"n{size}.safetensors")
            train_one(path, train_side.take(rows), graphs.part(rows), settings, steps=options.steps, seed=seed)
            if not path.with_suffix(".npz").exists():
                lengths = {name: len(t) for name, t in judged.items()}
                np.savez(path.with_suffix(".npz"), **judge(path, both, judged_graphs, lengths))
            errors = np.load(path.with_suffix(".npz"))
            maes = {name: round(1000 * float(np.abs(errors[name]).mean()), 1) for name in errors.files}
            print(size, seed, maes, flush=True)


def train_one(
    path: Path, crystals: CrystalTable, graphs: GraphStore, settings: TrainSettings, *, steps: int, seed: int
) -> None:
    """One network on all of `crystals`, unless it is finished with these settings."""
    size, targets = len(crystals), np.array(crystals.column(TARGET), dtype=float)
    held_out = np.zeros(size, dtype=bool)
    epochs = max(10, steps * settings.training.batch_size // size)
    training = settings.training.model_copy(update={"epochs": epochs})
    if path.exists():
        refuse_other_settings(path, model=settings.model, training=training, seed=seed)
        refuse_other_data(path, crystals.ids, targets, held_out)
        return
    path.with_suffix(".npz").unlink(missing_ok=True)  # errors of a network that is gone
    report = train_member(
        crystals,
        targets,
        held_out=held_out,
        model=settings.model,
        training=training,
        seed=seed,
        path=path,
        graphs=graphs,
    )
    print(report, flush=True)


def judge(path: Path, crystals: CrystalTable, graphs: GraphStore, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Errors (eV/atom) of a network on each of the judged sets, which lie one after another."""
    network = load_checkpoint(path)[0]
    parts = [np.arange(start, min(start + 64, len(graphs))) for start in range(0, len(graphs), 64)]
    with numerics(threads=1), torch.inference_mode():
        predicted = torch.cat([network(graphs.batch(part)) for part in parts]).double().numpy()
    errors = predicted - np.array(crystals.column(TARGET), dtype=float)
    return dict(zip(lengths, np.split(errors, np.cumsum(list(lengths.values()))[:-1]), strict=True))


def power_law(sizes: np.ndarray, maes: np.ndarray, *, offset: bool) -> tuple[np.ndarray, np.ndarray]:
    """(a, b, c) of a (N / 1000)^-b + c that fits the logarithm of the errors, and the 95 % t-interval of b.

    c is zero without offset. The interval is of the residuals, linear about the best fit: for the law without offset
    that of the straight line through the logarithms.
    """

    def residuals(p: np.ndarray) -> np.ndarray:
        c = np.exp(p[2]) if offset else 0.0
        return np.log(np.exp(p[0]) * (sizes / 1000.0) ** -p[1] + c) - np.log(maes)

    start = np.array([np.log(maes[0]), 0.3, np.log(0.2 * maes.min())])
    found = least_squares(residuals, start if offset else start[:2], max_nfev=2000)
    a, b, c = np.exp(found.x[0]), found.x[1], np.exp(found.x[2]) if offset else 0.0
    left = len(sizes) - len(found.x)
    if left < 1:
        return np.array([a, b, c]), np.array([-np.inf, np.inf])
    variance = np.linalg.pinv(found.jac.T @ found.jac)[1, 1] * (found.fun**2).sum() / left
    half = student.ppf(0.975, left) * np.sqrt(variance)
    return np.array([a, b, c]), np.array([b - half, b + half])


def read_errors(folder: Path) -> tuple[list[int], list[int], dict[str, np.ndarray]]:
    """Sizes, the seeds that all of them have, and absolute errors (sizes, seeds, n) on each judged set, eV/atom."""
    paths = {}
    for path in folder.glob("n*.npz"):
        if name := FILE.fullmatch(path.stem):
            paths[int(name["size"]), int(name["seed"] or 0)] = path
    sizes = sorted({size for size, _ in paths})
    seeds = [seed for seed in sorted({seed for _, seed in paths}) if all((size, seed) in paths for size in sizes)]
    if len(sizes) < 2 or not seeds:
        raise SystemExit(f"{folder} has errors of sizes {sizes}, of all of them with seeds {seeds}; a law needs more")
    files = [[np.load(paths[size, seed]) for seed in seeds] for size in sizes]
    names = files[0][0].files
    return sizes, seeds, {name: np.abs([[file[name] for file in row] for row in files]) for name in names}


def resampled(errors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mean error of each size, over seeds and crystals that are drawn again from `errors` (sizes, seeds, n).

    The same for all sizes: the crystals judged are, and the parts that a seed draws are nested.
    """
    _, n_seeds, n = errors.shape
    weights = np.bincount(rng.integers(0, n, n), minlength=n) / n
    return (errors @ weights)[:, rng.integers(0, n_seeds, n_seeds)].mean(axis=1)


def fit(options: argparse.Namespace) -> None:
    sizes, seeds, found = read_errors(options.output)
    rng, numbers = np.random.default_rng(0), np.array(sizes, dtype=float)
    result: dict[str, Any] = {"sizes": sizes, "seeds": seeds}
    for name, errors in found.items():
        by_seed = errors.mean(axis=2)  # (sizes, seeds)
        maes = by_seed.mean(axis=1)
        samples = [resampled(errors, rng) for _ in range(SAMPLES)]
        result[name] = {"mae": maes.tolist(), "mae_by_seed": by_seed.T.tolist()}
        for law, offset in LAWS.items():
            (a, b, c), of_the_fit = power_law(numbers, maes, offset=offset)
            exponents = [power_law(numbers, sample, offset=offset)[0][1] for sample in samples]
            result[name][law] = {
                "error_at_1000": a,
                "exponent": b,
                "exponent_95": np.quantile(exponents, [0.025, 0.975]).tolist(),
                "exponent_95_of_the_fit": of_the_fit.tolist() if np.isfinite(of_the_fit).all() else None,
                "offset": c,
            }
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
        if name in ("sizes", "seeds"):
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
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="networks per size, each on a part of its own"
    )
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
