"""Cross-validation of the compositional network on the compounds of Bartel et al. (doi:10.1038/s41524-020-00362-y).

    python benchmarks/bench_compositions.py --table mp_compositions.parquet --output runs/compositions --members 4
    python benchmarks/bench_compositions.py ... --extra mp_crystals.parquet --train-on-extra
    python benchmarks/bench_compositions.py ... --evaluate-only

A member is trained on three folds of the table and asked about the fourth; the prediction of a compound is the
mean over the members. Stable is what lies on or below the hull of the *predicted* energies of all other compounds,
the elements at zero. The decomposition energies of the table refer to 85,014 compounds, a fifth of which the table
does not have, so stability is judged three ways:

    table     hull of the predictions of the table's compounds, truth as in the table
    extra     the same with the formulas of `--extra` that are in no fold as further competitors, at energies
              predicted by all members (the formulas are known then, their energies are not)
    own       hull of the table's compounds, truth from the hull of their true energies

Every member is one file in the output folder, members that are there are kept; the last line is the summary.
`--train-on-extra` adds the lowest energy of each formula of `--extra` that is in no fold to every training set
(then the competitors of `extra` are known to the network).
"""

import argparse
import copy
import json
import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull
from opengnome.models.calibration import coverage
from opengnome.models.compositional import CompositionalModel, CompositionalSettings, CompositionDataset
from opengnome.models.constants import Constants
from opengnome.models.numerics import numerics

LEVEL = "PBE formation energy"
PUBLISHED = "bartel_published.json"
_EVALUATION_BATCH = 1024
_TOLD_EVERY = 8  # epochs


@dataclass(frozen=True)
class Schedule:
    """How a member is trained: AdamW, a linear rise and a cosine to zero, averaged weights."""

    epochs: int = 48
    batch_size: int = 512
    learning_rate: float = 3e-3
    warm_up: float = 0.1
    weight_decay: float = 0.1
    averaging: float = 0.998
    max_gradient_norm: float = 5.0
    scale_weight: float = 0.1
    """Weight of the Laplace likelihood, which trains the scale; the mean absolute error has weight one."""


@dataclass(frozen=True)
class Compounds:
    """The compounds of the table, then the formulas of the extra table that are in no fold."""

    formulas: list[str]
    compositions: list[Composition]
    energies: np.ndarray
    """Formation energies, eV/atom, shape (n,)."""
    folds: np.ndarray
    """Fold of each compound, -1 for the extra ones, shape (n,)."""
    decomposition_energies: np.ndarray
    """As in the table, eV/atom, nan for the extra ones, shape (n,)."""

    @property
    def in_table(self) -> np.ndarray:
        return self.folds >= 0


def read_compounds(table: Path, extra: Path | None) -> Compounds:
    import pandas as pd

    frame = pd.read_parquet(table)
    formulas = frame["reduced_formula"].tolist()
    energies = frame["formation_energy_per_atom"].tolist()
    folds = frame["fold"].tolist()
    decomposition = frame["decomposition_energy_per_atom"].tolist()
    if extra is not None:
        columns = ["reduced_formula", "formation_energy_per_atom"]
        lowest = pd.read_parquet(extra, columns=columns).groupby("reduced_formula")["formation_energy_per_atom"].min()
        lowest = lowest[~lowest.index.isin(set(formulas))]
        lowest = lowest[[Composition.from_formula(formula).n_elements > 1 for formula in lowest.index]]
        formulas += lowest.index.tolist()
        energies += lowest.tolist()
        folds += [-1] * len(lowest)
        decomposition += [math.nan] * len(lowest)
    compositions = [Composition.from_formula(formula) for formula in formulas]
    return Compounds(formulas, compositions, *map(np.array, (energies, folds, decomposition)))


def train_member(
    dataset: CompositionDataset,
    energies: np.ndarray,
    rows: np.ndarray,
    settings: CompositionalSettings,
    schedule: Schedule,
    *,
    seed: int,
    progress: Callable[[int, CompositionalModel], None] | None = None,
) -> CompositionalModel:
    """A network trained on `rows` of the dataset; energies (n,) in eV/atom. `progress` is told after each epoch."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        constants = Constants(1.0, float(energies[rows].mean()), float(energies[rows].std()))
        model = CompositionalModel(settings, constants)
        return _fit(model, dataset, energies, rows, schedule, np.random.default_rng(seed), progress)


def _fit(
    model: CompositionalModel,
    dataset: CompositionDataset,
    energies: np.ndarray,
    rows: np.ndarray,
    schedule: Schedule,
    rng: np.random.Generator,
    progress: Callable[[int, CompositionalModel], None] | None,
) -> CompositionalModel:
    targets = torch.from_numpy(((energies - float(model.shift)) / float(model.scale)).astype(np.float32))
    average = copy.deepcopy(model).eval()
    parameters, averaged = list(model.parameters()), list(average.parameters())
    optimiser = _optimiser(model, schedule)
    n_batches = len(rows) // schedule.batch_size
    n_steps, step = n_batches * schedule.epochs, 0
    for epoch in range(schedule.epochs):
        order = rng.permutation(rows)
        for batch in np.split(order[: n_batches * schedule.batch_size], n_batches):
            for group in optimiser.param_groups:
                group["lr"] = _learning_rate(step, n_steps, schedule)
            with torch.autocast("cpu", torch.bfloat16):
                location, log_scale = model.standardised(dataset.batch(batch)).unbind(dim=1)
            error = (location - targets[batch]).abs()
            likelihood = error.detach() * torch.exp(-log_scale) + log_scale
            loss = (error + schedule.scale_weight * likelihood).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, schedule.max_gradient_norm)
            optimiser.step()
            step += 1
            with torch.no_grad():
                keep = min(schedule.averaging, (1 + step) / (10 + step))
                torch._foreach_lerp_(averaged, parameters, 1.0 - keep)
        if progress is not None:
            progress(epoch + 1, average)
    return average


def _optimiser(model: CompositionalModel, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW that decays matrices, but not the embedding."""
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and not name.startswith("embedding")]
    others = [p for name, p in model.named_parameters() if p.ndim <= 1 or name.startswith("embedding")]
    groups = [
        {"params": decayed, "weight_decay": schedule.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, betas=(0.9, 0.99), fused=True)


def _learning_rate(step: int, n_steps: int, schedule: Schedule) -> float:
    rise = max(1, int(n_steps * schedule.warm_up))
    if step < rise:
        return schedule.learning_rate * (step + 1) / rise
    return schedule.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / (n_steps - rise)))


def predict(model: CompositionalModel, dataset: CompositionDataset, rows: np.ndarray) -> np.ndarray:
    """Energies and Laplace scales of `rows`, shape (n, 2), eV/atom."""
    parts = np.array_split(rows, max(1, len(rows) // _EVALUATION_BATCH))
    with torch.inference_mode():
        return torch.cat([torch.stack(model(dataset.batch(part)), dim=1) for part in parts]).numpy()


def run_member(
    compounds: Compounds,
    dataset: CompositionDataset,
    settings: CompositionalSettings,
    schedule: Schedule,
    *,
    fold: int,
    member: int,
    train_on_extra: bool,
    path: Path,
) -> None:
    """Train one member and keep its predictions of its fold and of the extra formulas in `path`."""
    rows = np.flatnonzero((compounds.folds != fold) & (compounds.in_table | train_on_extra))
    asked = np.flatnonzero((compounds.folds == fold) | ~compounds.in_table)
    seed = zlib.crc32(f"compositions fold {fold} member {member}".encode())
    wall, processor = time.perf_counter(), time.process_time()
    ours = np.flatnonzero(compounds.folds == fold)

    def tell(epoch: int, model: CompositionalModel) -> None:
        """Nothing is chosen by this error; it shows that the training is alive."""
        if epoch % _TOLD_EVERY == 0:
            error = np.abs(predict(model, dataset, ours)[:, 0] - compounds.energies[ours]).mean()
            print(f"  epoch {epoch}: {1e3 * error:.2f} meV/atom after {time.perf_counter() - wall:.0f} s", flush=True)

    model = train_member(dataset, compounds.energies, rows, settings, schedule, seed=seed, progress=tell)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    predicted = predict(model, dataset, asked)
    error = np.abs(predict(model, dataset, ours)[:, 0] - compounds.energies[ours]).mean()
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, rows=asked, predicted=predicted, wall=wall, processor=processor)
    partial.replace(path)
    print(
        f"fold {fold} member {member}: {1e3 * error:.2f} meV/atom, {wall:.0f} s, {processor:.0f} s of processor time",
        flush=True,
    )


def collect(output: Path, n: int, members: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Energies and scales (members, n), nan where no member was asked; the extra formulas get the mean over folds."""
    sums = np.zeros((members, n, 2))
    counts = np.zeros((members, n, 1))
    seconds: list[tuple[float, float]] = []
    for member in range(members):
        for path in sorted(output.glob(f"fold-*-member-{member}.npz")):
            with np.load(path) as kept:
                sums[member, kept["rows"]] += kept["predicted"]
                counts[member, kept["rows"]] += 1
                seconds.append((float(kept["wall"]), float(kept["processor"])))
    with np.errstate(invalid="ignore"):
        means = sums / counts
    wall, processor = np.mean(seconds, axis=0).tolist()
    timing = {"members_trained": len(seconds), "wall_seconds": wall, "processor_seconds": processor}
    return means[..., 0], means[..., 1], timing


def decomposition_energies(compositions: list[Composition], energies: np.ndarray, asked: int) -> np.ndarray:
    """Decomposition energy of the first `asked` compounds against all others, eV/atom; elements at zero."""
    entries = [Entry(str(row), c, float(e), level=LEVEL) for row, (c, e) in enumerate(zip(compositions, energies))]
    elements = sorted({z for c in compositions for z in c.atomic_numbers})
    pure = [Entry(f"element-{z}", Composition.from_counts({z: 1}), 0.0, level=LEVEL) for z in elements]
    hull = Hull([*entries, *pure])
    return np.array([hull.decomposition_energy(entry) for entry in entries[:asked]])


def stability(predicted: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """How well the sign of the decomposition energy is predicted; stable is at or below zero."""
    stable, called = true <= 0, predicted <= 0
    hits = int((stable & called).sum())
    precision, recall = hits / max(1, int(called.sum())), hits / max(1, int(stable.sum()))
    return {
        "mae_ed": float(np.abs(predicted - true).mean()),
        "accuracy": float((stable == called).mean()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "fpr": float((called & ~stable).sum() / max(1, int((~stable).sum()))),
        "predicted_stable": int(called.sum()),
        "stable": int(stable.sum()),
        "n_compounds": len(true),
    }


def judge_stability(compounds: Compounds, energies: np.ndarray, cache: Path) -> dict[str, dict[str, float]]:
    """Stability by the three readings of the module's head; `cache` keeps what depends on true energies only."""
    n = int(compounds.in_table.sum())
    table = compounds.decomposition_energies[:n]
    own = cached(
        cache / "true-own.npy", lambda: decomposition_energies(compounds.compositions[:n], compounds.energies[:n], n)
    )
    alone = decomposition_energies(compounds.compositions[:n], energies[:n], n)
    found = {"table": stability(alone, table), "own": stability(alone, own)}
    found["true energies, table"] = stability(own, table) | {"within_1e-6": float((np.abs(own - table) < 1e-6).mean())}
    if len(energies) > n:
        with_extra = decomposition_energies(compounds.compositions, energies, n)
        found["extra"] = stability(with_extra, table)
        true = cached(
            cache / "true-extra.npy", lambda: decomposition_energies(compounds.compositions, compounds.energies, n)
        )
        close = float((np.abs(true - table) < 1e-6).mean())
        found["true energies, extra"] = stability(true, table) | {"within_1e-6": close}
    return found


def cached(path: Path, compute: Any) -> np.ndarray:
    if not path.exists():
        np.save(path, compute())
    return np.load(path)


def energy_errors(compounds: Compounds, energies: np.ndarray, scales: np.ndarray) -> dict[str, Any]:
    """Errors of the ensemble and of its members on the table; energies and scales (members, n) in eV/atom."""
    n = int(compounds.in_table.sum())
    true = compounds.energies[:n]
    errors = energies[:, :n].mean(axis=0) - true
    variance = (2.0 * scales[:, :n] ** 2).mean(axis=0) + energies[:, :n].var(axis=0)
    return {
        "mae_ef": float(np.abs(errors).mean()),
        "median_ef": float(np.median(np.abs(errors))),
        "rmse_ef": float(np.sqrt((errors**2).mean())),
        "mae_ef_of_members": [float(np.abs(member[:n] - true).mean()) for member in energies],
        "coverage": coverage(errors, np.sqrt(variance)),
    }


def write_predictions(path: Path, compounds: Compounds, energies: np.ndarray, scales: np.ndarray) -> None:
    import pandas as pd

    columns = {
        "reduced_formula": compounds.formulas,
        "fold": compounds.folds,
        "formation_energy_per_atom": compounds.energies,
        "predicted_formation_energy_per_atom": energies.mean(axis=0),
        "member_spread": energies.std(axis=0),
        "laplace_scale": scales.mean(axis=0),
    }
    pd.DataFrame(columns).to_parquet(path)


def summarise(compounds: Compounds, output: Path, members: int, table: Path) -> dict[str, Any]:
    """The summary of the members that every fold has; also writes the predictions."""
    complete = [m for m in range(members) if len(list(output.glob(f"fold-*-member-{m}.npz"))) == 4]
    if not complete:
        raise SystemExit("no member is there for all folds yet")
    energies, scales, timing = collect(output, len(compounds.energies), len(complete))
    summary: dict[str, Any] = {"members": len(complete), **timing, **energy_errors(compounds, energies, scales)}
    write_predictions(output / "predictions.parquet", compounds, energies, scales)
    summary["stability"] = judge_stability(compounds, energies.mean(axis=0), output.parent)
    published = table.parent / PUBLISHED
    if published.exists():
        summary["published"] = json.loads(published.read_text())["trained_on_ef"]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--train-on-extra", action="store_true")
    parser.add_argument("--epochs", type=int, default=Schedule.epochs)
    parser.add_argument("--evaluate-only", action="store_true")
    options = parser.parse_args()
    if options.train_on_extra and options.extra is None:
        parser.error("--train-on-extra needs --extra")

    compounds = read_compounds(options.table, options.extra)
    output = options.output / ("with-extra" if options.train_on_extra else "table-only")
    output.mkdir(parents=True, exist_ok=True)
    settings, schedule = CompositionalSettings(), Schedule(epochs=options.epochs)
    if not options.evaluate_only:
        dataset = CompositionDataset(compounds.compositions)
        with numerics(threads=1):
            for member in range(options.members):  # members outside: the first results are of all folds
                for fold in range(4):
                    path = output / f"fold-{fold}-member-{member}.npz"
                    if not path.exists():
                        run_member(
                            compounds, dataset, settings, schedule,
                            fold=fold, member=member, train_on_extra=options.train_on_extra, path=path,
                        )  # fmt: skip
    summary = summarise(compounds, output, options.members, options.table)
    (output / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
