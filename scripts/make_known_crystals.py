"""Make the embedded known crystals: AFLOW prototypes and elements, relaxed by the CHGNet oracle.

Writes into `src/opengnome/datasets/data/`:

- `known_crystals.parquet`: the crystal schema (relaxed) with energy_per_atom (eV/atom), prototype (AFLOW
  label), mineral, strukturbericht, status, initial_volume_per_atom and level. Rows `aflow-<label>` are the
  ordered AFLOW prototype crystals that pymatgen carries (Mehl et al., doi:10.1016/j.commatsci.2017.01.017);
  `element-<symbol>` is, per element, the lowest in energy of a list of elemental prototypes.
- `known_frames.parquet`: unrelaxed geometries with their energies, for training: frames of the relaxations,
  strained cells, and the elemental prototypes that lost. Columns parent and kind.
- `known_crystals.json`: counts, what failed and why, oracle, settings, versions.

Each calculation is a file in the work folder and is never repeated; kill and start again at will.

    python scripts/make_known_crystals.py --processes 2
"""

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from elemental_prototypes import elemental_crystals

from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.crystals.interop import from_pymatgen
from opengnome.crystals.replacement import replace_file
from opengnome.oracles import (
    Calculation,
    OracleSettings,
    RelaxationSettings,
    Status,
    make_oracle,
    read_calculation,
    write_calculation,
)
from opengnome.oracles.chgnet import KNOWN_ELEMENTS

DATA = Path(__file__).parents[1] / "src/opengnome/datasets/data"
STRAINS = (0.85, 1.15)
"""Volumes of the strained single points, relative to the relaxed one."""
SINGLE_POINT = RelaxationSettings(max_steps=0)


@dataclass(frozen=True)
class Task:
    """One calculation; `id` is its file name."""

    id: str
    crystal: Crystal
    parent: str
    """Id of the row of the known set that it belongs to."""
    prototype: str = ""
    mineral: str = ""
    strukturbericht: str = ""
    settings: RelaxationSettings = field(default_factory=RelaxationSettings)


def main() -> None:
    """Relax what is missing in the work folder, then write the three files."""
    arguments = _arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")  # torch and fork do not go together
    with ProcessPoolExecutor(arguments.processes, mp_context=context) as executor:
        tasks = aflow_tasks() + element_tasks()
        if arguments.limit:
            tasks = tasks[:: max(1, len(tasks) // arguments.limit)]
        done = run(tasks, arguments.work, executor, label="relaxations")
        known = select_known(tasks, done)
        strained = [] if arguments.no_strains else strain_tasks(known, done)
        done |= run(strained, arguments.work, executor, label="strained cells")
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_known(arguments.output / "known_crystals.parquet", known, done)
    frames = frame_rows(tasks, strained, known, done, per_relaxation=arguments.frames)
    write_frames(arguments.output / "known_frames.parquet", frames)
    write_summary(arguments.output / "known_crystals.json", tasks, known, done, len(frames))


def aflow_tasks() -> list[Task]:
    """The ordered AFLOW prototypes of pymatgen; repeated labels get -2, -3, ... in their order."""
    from pymatgen.analysis.prototypes._data import AFLOW_PROTOTYPE_LIBRARY

    seen: Counter[str] = Counter()
    tasks = []
    for entry in AFLOW_PROTOTYPE_LIBRARY:
        structure, tags = entry["snl"].structure, entry["tags"]
        label = tags["aflow"]
        seen[label] += 1
        name = f"aflow-{label}" + (f"-{seen[label]}" if seen[label] > 1 else "")
        crystal = from_pymatgen(structure)
        strukturbericht = "" if tags["strukturbericht"] == "None" else tags["strukturbericht"]
        tasks.append(Task(name, crystal, name, label, tags["mineral"] or "", strukturbericht))
    return tasks


def element_tasks() -> list[Task]:
    """Every elemental prototype of every element that the oracle knows."""
    return [
        Task(f"element-{symbol}-{prototype}", crystal, f"element-{symbol}", prototype)
        for symbol, prototype, crystal in elemental_crystals(KNOWN_ELEMENTS)
    ]


def strain_tasks(known: dict[str, Task], done: dict[str, Calculation]) -> list[Task]:
    """Single points of the relaxed crystals at other volumes."""
    tasks = []
    for name, task in known.items():
        relaxed = done[task.id].crystal
        for strain in STRAINS:
            crystal = with_volume(relaxed, relaxed.volume * strain)
            tasks.append(Task(f"{name}-volume-{strain:g}", crystal, name, task.prototype, settings=SINGLE_POINT))
    return tasks


def run(tasks: list[Task], work: Path, executor: Executor, *, label: str) -> dict[str, Calculation]:
    """Every calculation by task id; those with a file in `work` are read, the others are done."""
    start, done = time.monotonic(), {}
    futures: dict[Future[None], Task] = {}
    for task in sorted(tasks, key=lambda task: task.crystal.n_atoms):
        path = work / f"{task.id}.parquet"
        if path.exists() and (old := read_calculation(path)).oracle.settings_digest == task.settings.digest:
            done[task.id] = old
        else:
            futures[executor.submit(calculate, path, task.crystal, task.settings)] = task
    print(f"{label}: {len(tasks)} in all, {len(done)} already there", flush=True)
    for i, future in enumerate(as_completed(futures), 1):
        future.result()
        task = futures[future]
        done[task.id] = calculation = read_calculation(work / f"{task.id}.parquet")
        elapsed = time.monotonic() - start
        left = elapsed / i * (len(futures) - i)
        print(
            f"[{i}/{len(futures)}] {task.id} ({task.crystal.n_atoms} atoms): {calculation.status}, "
            f"{calculation.n_steps} steps, {calculation.seconds:.1f} s; {left / 60:.0f} min left",
            flush=True,
        )
    return done


def calculate(path: Path, crystal: Crystal, settings: RelaxationSettings) -> None:
    """Relax and write; runs in a worker."""
    oracle = make_oracle(OracleSettings(name="chgnet", relaxation=settings))
    write_calculation(path, oracle.relax(crystal))


def select_known(tasks: list[Task], done: dict[str, Calculation]) -> dict[str, Task]:
    """Row id -> task: every converged AFLOW prototype, and per element its lowest converged crystal.

    The element's own AFLOW prototypes compete with the others; the winner is then in the table once, as the
    element.
    """
    known: dict[str, Task] = {}
    best: dict[str, Task] = {}
    for task in tasks:
        energy = done[task.id].energy_per_atom
        if done[task.id].status != Status.CONVERGED or energy is None:
            continue
        if task.id.startswith("aflow-"):
            known[task.id] = task
        if task.crystal.composition.n_elements == 1:
            element = f"element-{task.crystal.symbols[0]}"
            if element not in best or energy < done[best[element].id].energy_per_atom:
                best[element] = task
    for task in best.values():
        known.pop(task.id, None)
    return known | best


def write_known(path: Path, known: dict[str, Task], done: dict[str, Calculation]) -> None:
    """The relaxed crystals."""
    calculations = [done[task.id] for task in known.values()]
    tasks = list(known.values())
    table = CrystalTable.from_crystals(
        [c.crystal for c in calculations],
        list(known),
        {
            "energy_per_atom": [c.energy_per_atom for c in calculations],
            "prototype": [t.prototype for t in tasks],
            "mineral": [t.mineral for t in tasks],
            "strukturbericht": [t.strukturbericht for t in tasks],
            "status": [c.status.value for c in calculations],
            "initial_volume_per_atom": [c.initial.volume_per_atom for c in calculations],
            "level": [c.oracle.level for c in calculations],
        },
    )
    write_parquet(path, table)


@dataclass(frozen=True)
class FrameRow:
    """One geometry with its energy (eV/atom), the known crystal it belongs to, and where it comes from."""

    crystal: Crystal
    energy_per_atom: float
    parent: str
    kind: str


def frame_rows(
    tasks: list[Task],
    strained: list[Task],
    known: dict[str, Task],
    done: dict[str, Calculation],
    *,
    per_relaxation: int,
) -> list[FrameRow]:
    """Geometries other than the known crystals themselves, with their energies."""
    row_of_task = {task.id: row for row, task in known.items()}
    rows: list[FrameRow] = []
    for task in tasks:
        calculation = done[task.id]
        if task.id in row_of_task:
            rows += _steps(calculation, row_of_task[task.id], per_relaxation)
        elif calculation.status == Status.CONVERGED:
            rows.append(FrameRow(calculation.crystal, calculation.energy_per_atom, task.parent, "polymorph"))
    for task in strained:
        calculation = done[task.id]
        if calculation.energy_per_atom is not None:
            rows.append(FrameRow(calculation.crystal, calculation.energy_per_atom, task.parent, "strained"))
    return rows


def _steps(calculation: Calculation, parent: str, per_relaxation: int) -> Iterator[FrameRow]:
    frames = calculation.frames
    # most of the way is made in the first steps, so the chosen steps lie closer together there
    chosen = np.geomspace(1, len(frames), per_relaxation).round().astype(int) - 1
    for index in np.unique(chosen):
        crystal = frames.crystal(int(index), calculation.initial.atomic_numbers)
        yield FrameRow(crystal, float(frames.energies[index]) / crystal.n_atoms, parent, "step")


def write_frames(path: Path, rows: list[FrameRow]) -> None:
    """The geometries for training."""
    # numbers of single precision in double columns: their zero bytes compress, and 1e-6 A matters to nothing
    crystals = [
        Crystal(np.float32(row.crystal.lattice), np.float32(row.crystal.frac_coords), row.crystal.atomic_numbers)
        for row in rows
    ]
    counts: Counter[str] = Counter()
    ids = []
    for row in rows:
        counts[row.parent] += 1
        ids.append(f"{row.parent}-frame-{counts[row.parent]}")
    columns = {
        "energy_per_atom": [row.energy_per_atom for row in rows],
        "parent": [row.parent for row in rows],
        "kind": [row.kind for row in rows],
    }
    write_parquet(path, CrystalTable.from_crystals(crystals, ids, columns))


def write_parquet(path: Path, table: CrystalTable) -> None:
    """Write the whole file, or leave the old one."""
    replace_file(
        path,
        lambda temporary: pq.write_table(table.arrow, temporary, compression="zstd", compression_level=19),
    )
    print(f"{path.name}: {len(table)} rows, {path.stat().st_size / 1000:.0f} kB")


def write_summary(
    path: Path, tasks: list[Task], known: dict[str, Task], done: dict[str, Calculation], n_frames: int
) -> None:
    """What was done with what, and what is missing and why."""
    element_of_task = {task.id: row for row, task in known.items() if row != task.parent}
    wanted = dict.fromkeys(task.parent for task in tasks)
    calculations = [done[task.id] for task in tasks]
    failures = {
        task.id: {"status": done[task.id].status.value, "reason": done[task.id].reason}
        for task in tasks
        if done[task.id].status != Status.CONVERGED
    }
    identity = calculations[0].oracle
    summary = {
        "n_known": len(known),
        "n_compounds_and_prototypes": sum(name.startswith("aflow-") for name in known),
        "n_elements": sum(name.startswith("element-") for name in known),
        "n_frames": n_frames,
        "same_as_element": element_of_task,
        "left_out": {
            name: _why(name, tasks, done) for name in wanted if name not in known and name not in element_of_task
        },
        "relaxations": len(tasks),
        "statuses": dict(Counter(c.status.value for c in calculations)),
        "not_converged": failures,
        "steps": int(sum(c.n_steps for c in calculations)),
        "median_steps": float(np.median([c.n_steps for c in calculations])),
        "oracle": vars(identity),
        "settings": RelaxationSettings().model_dump(mode="json"),
        "versions": {
            name: metadata.version(name) for name in ("ase", "chgnet", "numpy", "pymatgen-core", "scipy", "torch")
        },
        "python": platform.python_version(),
    }
    path.write_text(json.dumps(summary, indent=1, sort_keys=False) + "\n")
    print(f"{path.name}: {len(known)} known, {len(summary['left_out'])} left out")


def _why(name: str, tasks: list[Task], done: dict[str, Calculation]) -> str:
    return "; ".join(f"{done[t.id].status}: {done[t.id].reason}" for t in tasks if t.parent == name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(".cache/known_crystals"), help="folder of calculations")
    parser.add_argument("--output", type=Path, default=DATA, help="folder of the three files")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--frames", type=int, default=5, help="frames kept per relaxation")
    parser.add_argument("--no-strains", action="store_true", help="no strained single points")
    parser.add_argument("--limit", type=int, default=0, help="only about this many relaxations, for a trial")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
