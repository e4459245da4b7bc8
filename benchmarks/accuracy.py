"""Accuracy of the structural network on real data: train members one by one, then judge them together.

    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --member 0 --set training.epochs=100
    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --judge
    python benchmarks/accuracy.py mp2018 --data DATA --output runs/mp2018 --collect docs/results/mp2018_members.parquet
    python benchmarks/accuracy.py gnome  --data DATA --output runs/gnome  --member 0
    python benchmarks/accuracy.py mp     --data DATA --output runs/mp     --member 0

`mp2018`: trained on the 44,787 crystals of the MEGNet training split that have structures, judged on the 3,679 of its
validation split. `gnome`: GNoME crystals, hash split by formula. `mp`: all of the Materials Project table, hash
split by formula (the models that are shipped). DATA is the folder with the tables. A member that was killed goes on
where it was when the same command is run again; `--judge` prints one JSON object with the errors of the members and
of the median of all that are finished. `--collect` adds the predictions of finished members to a table and prints the
errors of all members in it, so that members can be trained in different places.
"""

import argparse
import hashlib
import json
import os
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign.train import TrainSettings
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table
from opengnome.crystals.replacement import replace_file
from opengnome.datasets import held_out_mask
from opengnome.graphs import cached_store
from opengnome.models import Calibration, Ensemble, assemble_ensemble, train_member
from opengnome.models.checkpoint import load_checkpoint
from opengnome.settings import load

FILES = {"mp2018": "mp_crystals.parquet", "gnome": "gnome_pbe.parquet", "mp": "mp_crystals.parquet"}
TARGET = "formation_energy_per_atom"


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


def train(options: argparse.Namespace) -> None:
    table, targets, held_out = capped(options)
    settings = load(TrainSettings, options.settings, options.overrides)
    model = settings.model
    graphs = cached_store(
        table,
        options.output.parent / "graphs",
        cutoff=model.cutoff,
        max_neighbours_per_atom=model.max_neighbours_per_atom,
        workers=os.cpu_count() or 1,
    )
    path = options.output / "members" / f"member-{options.member:02d}.safetensors"
    if path.exists():
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
        graphs=graphs,
        initial=options.initial,
    )
    print(report)


def judge(options: argparse.Namespace) -> None:
    table, targets, held_out = capped(options)
    paths = sorted((options.output / "members").glob("*.safetensors"))
    ensemble = assemble_ensemble(paths, options.output / "ensemble", table=table, targets=targets, held_out=held_out)
    judged = table.filter(held_out)
    singles = [single_mae(member, judged, targets[held_out]) for member in ensemble.members]
    result = {"task": options.task, "n_train": int((~held_out).sum()), "members_mae": singles} | ensemble.metrics
    if options.task != "gnome":
        predicted = ensemble.predict(judged, volume_scales=(1.0,)).formation_energy_per_atom
        result["by_structure_source"] = by_structure_source(judged, predicted - targets[held_out])
    (options.output / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def collect(options: argparse.Namespace) -> None:
    """Add what finished members predict for the held-out crystals to a table, and judge all that is in it."""
    crystals, targets, held_out = capped(options)
    judged, targets = crystals.filter(held_out), targets[held_out]
    table = pa.table({"id": judged.ids, TARGET: targets})
    if options.collect.exists():
        found = pq.read_table(options.collect)
        if found["id"].to_pylist() != judged.ids or found[TARGET].to_pylist() != targets.tolist():
            raise SystemExit(f"{options.collect} is of other held-out crystals; choose another file")
        table = found
    digests = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    for path in sorted((options.output / "members").glob("*.safetensors")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digests.setdefault(path.stem, digest) != digest:
            raise SystemExit(f"{options.collect} has another {path.stem}: give this one another --member (its seed)")
        if path.stem not in table.column_names:
            network, _ = load_checkpoint(path)
            predicted = alone(network).predict(judged, volume_scales=(1.0,)).formation_energy_per_atom
            table = table.append_column(path.stem, pa.array(predicted.astype(np.float32)))
            named = table.replace_schema_metadata(digests)
            replace_file(options.collect, partial(pq.write_table, named, compression="zstd"))
    names = [name for name in table.column_names if name.startswith("member-")]
    if not names:
        raise SystemExit(f"no member is finished in {options.output / 'members'}, and none is in {options.collect}")
    predictions = np.array([table[name].to_numpy() for name in names], dtype=float)
    medians = [np.median(predictions[: n + 1], axis=0) - targets for n in range(len(names))]
    result = {
        "task": options.task,
        "n_train": int((~held_out).sum()),
        "n": len(targets),
        "members_mae": np.abs(predictions - targets).mean(axis=1).tolist(),
        "mae_of_median_by_number_of_members": [float(np.abs(errors).mean()) for errors in medians],
        "median_absolute_error": float(np.median(np.abs(medians[-1]))),
    }
    if options.task != "gnome":
        result["by_structure_source"] = by_structure_source(judged, medians[-1])
    print(json.dumps(result, indent=2))


def by_structure_source(table: CrystalTable, errors: np.ndarray) -> dict[str, dict[str, float]]:
    """Errors (n,) of crystals whose structure is as old as its energy, and of those that were relaxed again since."""
    sources = np.array(table.column("structure_source"))
    return {
        source: {
            "n": int((sources == source).sum()),
            "mae": float(np.abs(errors[sources == source]).mean()),
            "median_absolute_error": float(np.median(np.abs(errors[sources == source]))),
            "mae_without_worst_tenth": without_worst_tenth(np.abs(errors[sources == source])),
        }
        for source in np.unique(sources).tolist()
    }


def without_worst_tenth(errors: np.ndarray) -> float:
    """Mean of the smaller nine tenths of absolute errors: what is left when wrong labels are among the others."""
    return float(np.sort(errors)[: int(0.9 * len(errors))].mean())


def single_mae(member: object, table: CrystalTable, targets: np.ndarray) -> float:
    """Mean absolute error of one member, eV/atom."""
    predicted = alone(member).predict(table, volume_scales=(1.0,)).formation_energy_per_atom
    return float(np.abs(predicted - targets).mean())


def alone(member: object) -> Ensemble:
    """An ensemble of one network."""
    return Ensemble((member,), Calibration(0.0, 1.0), {}, "")  # type: ignore[arg-type]


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
