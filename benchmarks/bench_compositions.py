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
import json
import math
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from opengnome.campaign.train_compositional import CompositionalTrainSettings
from opengnome.crystals import Composition
from opengnome.hull import Entry, Hull
from opengnome.models.calibration import coverage
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.compositional import CompositionalModel, CompositionDataset
from opengnome.models.training import train_compositional_member
from opengnome.settings import load

LEVEL = "PBE formation energy"
PUBLISHED = "bartel_published.json"
_EVALUATION_BATCH = 1024


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


def predict(model: CompositionalModel, dataset: CompositionDataset, rows: np.ndarray) -> np.ndarray:
    """Energies and Laplace scales of `rows`, shape (n, 2), eV/atom."""
    parts = np.array_split(rows, max(1, len(rows) // _EVALUATION_BATCH))
    with torch.inference_mode():
        return torch.cat([torch.stack(model(dataset.batch(part)), dim=1) for part in parts]).numpy()


def run_member(
    compounds: Compounds,
    settings: CompositionalTrainSettings,
    *,
    fold: int,
    member: int,
    train_on_extra: bool,
    path: Path,
) -> None:
    """Train one member and keep its predictions of its fold and of the extra formulas in `path`."""
    used = compounds.in_table | train_on_extra
    ours = np.flatnonzero(compounds.folds == fold)
    asked = np.flatnonzero((compounds.folds == fold) | ~compounds.in_table)
    checkpoint = path.with_suffix(".safetensors")
    wall, processor = time.perf_counter(), time.process_time()

    def tell(line: str) -> None:
        """Nothing is chosen by the error that is told; it shows that the training is alive."""
        with path.with_suffix(".log").open("a") as file:
            file.write(f"{time.perf_counter() - wall:.0f} s: {line}\n")

    if not checkpoint.exists():
        train_compositional_member(
            [compounds.compositions[row] for row in np.flatnonzero(used)],
            compounds.energies[used],
            held_out=compounds.folds[used] == fold,
            model=settings.model,
            training=settings.training,
            seed=zlib.crc32(f"compositions fold {fold} member {member}".encode()),
            path=checkpoint,
            progress=tell,
        )
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    model, _ = load_checkpoint(checkpoint)
    if not isinstance(model, CompositionalModel):
        raise SystemExit(f"{checkpoint} is not a compositional network; remove it")
    predicted = predict(model, CompositionDataset(compounds.compositions), asked)
    error = np.abs(predicted[np.isin(asked, ours), 0] - compounds.energies[ours]).mean()
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, rows=asked, predicted=predicted, wall=wall, processor=processor)
    partial.replace(path)
    print(
        f"fold {fold} member {member}: {1e3 * error:.2f} meV/atom, {wall:.0f} s, {processor:.0f} s of processor time",
        flush=True,
    )


def collect(output: Path, n: int, members: list[int]) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Energies and scales (members, n), nan where no member was asked; the extra formulas get the mean over folds."""
    sums = np.zeros((len(members), n, 2))
    counts = np.zeros((len(members), n, 1))
    seconds: list[tuple[float, float]] = []
    for row, member in enumerate(members):
        for path in sorted(output.glob(f"fold-*-member-{member}.npz")):
            with np.load(path) as kept:
                sums[row, kept["rows"]] += kept["predicted"]
                counts[row, kept["rows"]] += 1
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
    return hull.decomposition_energies(entries[:asked])


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
    energies, scales, timing = collect(output, len(compounds.energies), complete)
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
    parser.add_argument("--folds", type=int, action="append", help="folds to train, all by default")
    parser.add_argument("--train", type=int, action="append", metavar="MEMBER", help="members to train, all by default")
    parser.add_argument("--extra", type=Path)
    parser.add_argument("--train-on-extra", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--evaluate-only", action="store_true")
    options = parser.parse_args()
    if options.train_on_extra and options.extra is None:
        parser.error("--train-on-extra needs --extra")

    compounds = read_compounds(options.table, options.extra)
    output = options.output / ("with-extra" if options.train_on_extra else "table-only")
    output.mkdir(parents=True, exist_ok=True)
    settings = load(CompositionalTrainSettings, None, options.overrides)
    if not options.evaluate_only:
        for member in options.train or range(options.members):  # members outside: the first results are of all folds
            for fold in options.folds or range(4):
                path = output / f"fold-{fold}-member-{member}.npz"
                if not path.exists():
                    run_member(
                        compounds, settings, fold=fold, member=member, train_on_extra=options.train_on_extra, path=path
                    )
    summary = summarise(compounds, output, options.members, options.table)
    (output / "summary.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
