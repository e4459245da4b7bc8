"""Accuracy of the structural network on real data: train members one by one, then judge them together.

    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --member 0 --set training.epochs=100
    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --judge
    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --collect TABLE.parquet [--json FILE]
    python benchmarks/accuracy.py gnome  --data DATA --output runs/gnome  --member 0
    python benchmarks/accuracy.py mp     --data DATA --output runs/mp     --member 0

`mp2018`: trained on the 44,787 crystals of the MEGNet training split that have structures, judged on the 3,679 of its
validation split. `gnome`: GNoME crystals, hash split by formula. `mp`: all of the Materials Project table, hash
split by formula (the models that are shipped). DATA is the folder with the tables. A member that was killed goes on
where it was when the same command is run again; one that is finished with other settings, or on other crystals, is
refused. `--judge` makes an ensemble of all finished members and prints one JSON object with their errors and those of
their median. `--collect` adds the predictions of finished members to a table and prints the same for all members in
it, so that members can be trained in different places.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import partial
from itertools import combinations, pairwise
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign.train import TrainSettings
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table
from opengnome.crystals.replacement import replace_file
from opengnome.datasets import held_out_mask
from opengnome.graphs import GraphStore, cached_store
from opengnome.models import (
    AnyModelSettings,
    Calibration,
    Ensemble,
    StructuralModel,
    TrainingSettings,
    assemble_ensemble,
    train_member,
)
from opengnome.models.calibration import MIN_FOR_FIT, coverage
from opengnome.models.checkpoint import card_path, data_digest, load_checkpoint, read_json
from opengnome.settings import load

FILES = {"mp2018": "mp_crystals.parquet", "gnome": "gnome_pbe.parquet", "mp": "mp_crystals.parquet"}
TARGET = "formation_energy_per_atom"
MEMBER = "member-"
MOST_SUBSETS = 50
"""Subsets of k members over which the error of their median is averaged."""
LARGE_ERROR = 0.2
"""eV/atom; errors above it are counted apart."""
SAME_WEIGHTS = 1e-4
"""Predictions that differ by less than this (eV/atom) are of the same weights on another machine."""
SAME_CONSTANTS = 3e-7
"""Relative; a card holds mean and scatter of the training targets in single precision."""


def split(name: str, data: Path) -> tuple[CrystalTable, np.ndarray, np.ndarray]:
    """Crystals, formation energies (eV/atom) and the mask of those that are held out."""
    table = read_table(data / FILES[name])
    if name == "mp2018":
        part = np.array([value or "" for value in table.column("megnet_split")])
        table, held_out = table.filter(part != ""), part[part != ""] == "val"
    else:
        held_out = held_out_mask(table.reduced_formulas)
    return table, np.array(table.column(TARGET), dtype=float), held_out


def capped(options: argparse.Namespace) -> tuple[CrystalTable, np.ndarray, np.ndarray]:
    """The split with its limits: on atoms for what is trained on, on elements also for what is held out.

    Crystals of more elements are for `zero_shot.py`; calibrated on them, an ensemble would know them.
    """
    table, targets, held_out = split(options.task, options.data)
    keep = np.ones(len(table), dtype=bool)
    if options.max_atoms is not None:
        keep &= held_out | (table.n_atoms <= options.max_atoms)
    if options.max_elements is not None:
        keep &= n_elements(table) <= options.max_elements
    return table.filter(keep), targets[keep], held_out[keep]


def n_elements(table: CrystalTable) -> np.ndarray:
    """Elements of each crystal, shape (n,)."""
    numbers = table.flat_atomic_numbers
    return np.array([len(np.unique(numbers[a:b])) for a, b in pairwise(table.offsets)])


def graphs_of(options: argparse.Namespace, table: CrystalTable, limits: dict[str, float]) -> GraphStore:
    """Graphs of the table within the cutoff and the neighbours per atom in `limits`, built when they are not there."""
    return cached_store(table, options.output.parent / "graphs", workers=os.cpu_count() or 1, **limits)


def train(options: argparse.Namespace) -> None:
    table, targets, held_out = capped(options)
    settings = load(TrainSettings, options.settings, options.overrides)
    model = settings.model
    path = options.output / "members" / f"{MEMBER}{options.member:02d}.safetensors"
    if path.exists():
        asked = {"model": model, "training": settings.training, "seed": options.member, "initial": options.initial}
        refuse_other_settings(path, **asked)
        refuse_other_crystals(path, options, table, targets, held_out)
        print(f"{path} is finished")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.with_suffix(".log")
    started = time.perf_counter()

    def progress(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{time.perf_counter() - started:.0f} s: {line}\n")

    report = train_member(
        table,
        targets,
        held_out=held_out,
        model=model,
        training=settings.training,
        seed=options.member,
        path=path,
        progress=progress,
        graphs=graphs_of(options, table, model.model_dump(include={"cutoff", "max_neighbours_per_atom"})),
        initial=options.initial,
    )
    print(report)


def refuse_other_settings(
    path: Path, *, model: AnyModelSettings, training: TrainingSettings, seed: int, initial: Path | None = None
) -> None:
    """Stop when a finished network was trained with other settings than are asked for now, and name both values."""
    card = read_json(card_path(path))
    found = {"seed": card.get("seed"), "initial": card.get("initial")}
    asked = {"seed": seed, "initial": None if initial is None else sha256(initial)}
    sections = {"model": ("settings", model), "training": ("training", training)}
    for section, (key, settings) in sections.items():
        found |= {f"{section}.{name}": value for name, value in card.get(key, {}).items()}
        asked |= {f"{section}.{name}": value for name, value in settings.model_dump(mode="json").items()}
    names = [name for name in asked | found if name != "training.save_every"]  # changes no weights
    refuse_differences(path, {name: (found.get(name), asked.get(name)) for name in names})


def refuse_other_crystals(
    path: Path, options: argparse.Namespace, table: CrystalTable, targets: np.ndarray, held_out: np.ndarray
) -> None:
    """Stop unless a member was trained on the training crystals of this task: another one may know what is judged."""
    card = read_json(card_path(path))
    ids = list(table.ids)
    if card.get("n_train", 0) + card.get("n_held_out", 0) < len(ids):  # those without a graph are not in its data
        limits = {key: card["settings"][key] for key in ("cutoff", "max_neighbours_per_atom")}
        rows = np.flatnonzero(graphs_of(options, table, limits).usable)
        ids, targets, held_out = [ids[row] for row in rows], targets[rows], held_out[rows]
    refuse_other_data(path, ids, targets, held_out)


def refuse_other_data(path: Path, ids: Sequence[str], targets: np.ndarray, held_out: np.ndarray) -> None:
    """Stop when the card of a network names other crystals, energies (n,) or another split than the mask (n,) does.

    A card does not hold the mask itself. Mean and scatter of the training targets, which it holds, are as good as its
    name: one crystal moved across the split changes them. A network that started from another one has the constants
    of that one, and what that one was trained on is not known here.
    """
    card = read_json(card_path(path))
    used = targets[~held_out]
    pairs = {
        "n_train": (card.get("n_train"), len(used)),
        "n_held_out": (card.get("n_held_out"), int(held_out.sum())),
        "data_digest": (card.get("data_digest"), data_digest(ids, targets)),
    }
    if card.get("initial") is None:
        constants = card.get("constants", {})
        pairs |= {name: (constants.get(name), value) for name, value in (("shift", used.mean()), ("scale", used.std()))}
    refuse_differences(path, pairs)


def refuse_differences(path: Path, pairs: dict[str, tuple[Any, Any]]) -> None:
    """Stop when values of a card differ from what they should be."""
    lines = [f"{name} is {found}, not {asked}" for name, (found, asked) in pairs.items() if not same(found, asked)]
    if lines:
        raise SystemExit(
            f"{path} is of another training: {'; '.join(lines)}. Give the settings and limits it was trained with, or "
            "another --output"
        )


def same(found: Any, asked: Any) -> bool:
    if isinstance(found, float) and isinstance(asked, float):
        return bool(np.isclose(found, asked, rtol=SAME_CONSTANTS, atol=0.0))
    return bool(found == asked)


def finished(options: argparse.Namespace, table: CrystalTable, targets: np.ndarray, held_out: np.ndarray) -> list[Path]:
    """Finished members of the run, all of them trained on the training crystals of the task."""
    paths = sorted((options.output / "members").glob("*.safetensors"))
    for path in paths:
        refuse_other_crystals(path, options, table, targets, held_out)
    return paths


def judge(options: argparse.Namespace) -> None:
    table, targets, held_out = capped(options)
    paths = finished(options, table, targets, held_out)
    ensemble = assemble_ensemble(paths, options.output / "ensemble", table=table, targets=targets, held_out=held_out)
    judged = table.filter(held_out)
    predictions = np.array([predicted_by(member, judged) for member in ensemble.members])
    cards = {path.stem: read_json(card_path(path)) for path in paths}
    errors = {name: card["metrics"]["train_mae"] for name, card in cards.items()}
    result = {"task": options.task, "n_train": int((~held_out).sum()), "members_train_mae": errors}
    result |= figures(judged, predictions, targets[held_out], list(cards), task=options.task)
    (options.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    show(result, options.json)


def collect(options: argparse.Namespace) -> None:
    """Add what finished members predict for the held-out crystals to a table, and judge all that is in it."""
    crystals, targets, held_out = capped(options)
    judged = crystals.filter(held_out)
    table = collected(options.collect, judged, targets[held_out])
    for path in finished(options, crystals, targets, held_out):
        table = with_member(table, path, judged, options.collect)
    names = [name for name in table.column_names if name.startswith(MEMBER)]
    if not names:
        raise SystemExit(f"no member is finished in {options.output / 'members'}, and none is in {options.collect}")
    known = notes(table)
    result = {
        "task": options.task,
        "n_train": int((~held_out).sum()),
        "members_train_mae": {name: float(known[key]) for name in names if (key := train_mae_key(name)) in known},
    }
    predictions = np.array([table[name].to_numpy() for name in names], dtype=float)
    show(result | figures(judged, predictions, targets[held_out], names, task=options.task), options.json)


def collected(path: Path, judged: CrystalTable, targets: np.ndarray) -> pa.Table:
    """The table of predictions so far; of ids and true energies only when there is none yet."""
    if not path.exists():
        return pa.table({"id": judged.ids, TARGET: targets})
    table = pq.read_table(path)
    if table["id"].to_pylist() != judged.ids or table[TARGET].to_pylist() != targets.tolist():
        raise SystemExit(f"{path} is of other held-out crystals; choose another file")
    return table


def with_member(table: pa.Table, path: Path, judged: CrystalTable, target: Path) -> pa.Table:
    """The table with a column and a note of a member, written to `target` when either is new.

    The note names the weights: other weights under the name of a member that is there are refused.
    """
    name, known, digest = path.stem, notes(table), sha256(path)
    if name in table.column_names and known.get(name) == digest:
        return table
    another = f"{target} has another {name}: give this one another --member (its seed)"
    if name in known:
        raise SystemExit(another)
    network, card = load_checkpoint(path)
    predicted = predicted_by(network, judged).astype(np.float32)
    if name not in table.column_names:
        table = table.append_column(name, pa.array(predicted))
    elif not np.allclose(table[name].to_numpy(), predicted, rtol=0.0, atol=SAME_WEIGHTS, equal_nan=True):
        raise SystemExit(another)  # a column without a note is worth as much as its predictions
    table = table.replace_schema_metadata(
        known | {name: digest, train_mae_key(name): repr(card["metrics"]["train_mae"])}
    )
    replace_file(target, partial(pq.write_table, table, compression="zstd"))
    return table


def notes(table: pa.Table) -> dict[str, str]:
    """Notes of a table of predictions: by the name of a member the digest of its weights, and its training error."""
    return {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}


def train_mae_key(name: str) -> str:
    """Under what the error of a member in its last epoch is noted."""
    return f"{name}.train_mae"


def show(result: dict[str, Any], path: Path | None) -> None:
    """Print a result, and write it to a file when one is given."""
    text = json.dumps(result, indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")


def figures(
    table: CrystalTable, predictions: np.ndarray, targets: np.ndarray, names: list[str], *, task: str
) -> dict[str, Any]:
    """Errors of members and of their median: predictions (members, n), targets (n,), both eV/atom.

    The same as `assemble_ensemble` reports, without the crystals that have no prediction.
    """
    answered = np.isfinite(predictions).all(axis=0)
    table, predictions, targets = table.filter(answered), predictions[:, answered], targets[answered]
    lower, median, upper = np.quantile(predictions, [0.25, 0.5, 0.75], axis=0)
    errors, elements = median - targets, n_elements(table)
    result: dict[str, Any] = {
        "members": names,
        "members_mae": np.abs(predictions - targets).mean(axis=1).tolist(),
        "mae_of_median_by_number_of_members": mae_by_number_of_members(predictions, targets),
        "judged_on": "held-out crystals",
        "unit": "eV/atom",
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "n": len(errors),
        "by_number_of_elements": {
            str(n): {"mae": float(np.abs(errors[elements == n]).mean()), "n": int((elements == n).sum())}
            for n in np.unique(elements).tolist()
        },
    }
    result |= uncertainty(errors, upper - lower, len(names))
    return result | ({} if task == "gnome" else {"by_structure_source": by_structure_source(table, errors)})


def mae_by_number_of_members(predictions: np.ndarray, targets: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean absolute error of the median of k members, for each k: mean, smallest and largest over subsets of k."""
    rng = np.random.default_rng(0)
    n = len(predictions)
    result = {}
    for k in range(1, n + 1):
        if comb(n, k) <= MOST_SUBSETS:
            subsets = [list(subset) for subset in combinations(range(n), k)]
        else:
            subsets = [rng.choice(n, k, replace=False).tolist() for _ in range(MOST_SUBSETS)]
        maes = [float(np.abs(np.median(predictions[s], axis=0) - targets).mean()) for s in subsets]
        result[str(k)] = {
            "mean": float(np.mean(maes)),
            "smallest": min(maes),
            "largest": max(maes),
            "subsets": len(maes),
        }
    return result


def uncertainty(errors: np.ndarray, spread: np.ndarray, n_members: int) -> dict[str, Any]:
    """Coverage of the intervals, cross-fitted, or why there is none."""
    if n_members == 1:  # intervals of one width for all would cover what they should and say nothing
        return {"warnings": ["one member: its spread is zero everywhere, so intervals are not judged"]}
    if len(errors) < 2 * MIN_FOR_FIT:
        return {"warnings": [f"coverage is not reported: {len(errors)} held-out crystals are too few"]}
    return {"coverage": coverage(errors, spread), "warnings": []}


def by_structure_source(table: CrystalTable, errors: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors (n,) of crystals whose structure is as old as its energy, and of those that were relaxed again since."""
    sources = np.array(table.column("structure_source"))
    return {source: tail(np.abs(errors[sources == source])) for source in np.unique(sources).tolist()}


def tail(errors: np.ndarray) -> dict[str, float]:
    """Absolute errors (n,) with and without the largest, among which wrong labels are."""
    large = errors > LARGE_ERROR
    return {
        "n": len(errors),
        "mae": float(errors.mean()),
        "median_absolute_error": float(np.median(errors)),
        "mae_without_worst_tenth": float(np.sort(errors)[: int(0.9 * len(errors))].mean()),
        "share_above_200_meV": float(large.mean()),
        "mae_from_above_200_meV": float((errors * large).mean()),
    }


def predicted_by(member: StructuralModel, table: CrystalTable) -> np.ndarray:
    """Formation energies by one network, shape (n,), eV/atom; NaN where there is none."""
    alone = Ensemble((member,), Calibration(0.0, 1.0), {}, "")
    return alone.predict(table, volume_scales=(1.0,)).formation_energy_per_atom


def sha256(path: Path) -> str:
    """Name of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=FILES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--member", type=int, help="number of the member to train; also its seed")
    parser.add_argument("--max-atoms", type=int, help="train on cells of at most this many atoms")
    parser.add_argument("--max-elements", type=int, help="train and judge on crystals of at most this many elements")
    parser.add_argument("--initial", type=Path, help="checkpoint to start from")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--collect", type=Path, help="table of predictions to add finished members to")
    parser.add_argument("--json", type=Path, help="file for what --judge or --collect prints")
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.collect:
        collect(options)
    elif options.judge:
        judge(options)
    else:
        train(options)


if __name__ == "__main__":
    main()
