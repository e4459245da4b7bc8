"""Training an ensemble outside a campaign: the function behind `opengnome train`."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.campaign import work
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.execution import Unit, local_executor
from opengnome.campaign.learning import ensemble_of, member_unit, refuse_lost
from opengnome.campaign.progress import Progress
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.train_compositional import CompositionalTrainSettings, train_compositional_ensemble
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.crystals.table import STRUCTURE_COLUMNS, unreadable_rows
from opengnome.datasets import held_out_mask
from opengnome.errors import SettingsError
from opengnome.graphs import cached_store
from opengnome.models import AnyModelSettings, Ensemble, ModelSettings, StructuralSettings, TrainingSettings
from opengnome.models.processes import Processes, join_processes, leave_processes, n_started
from opengnome.settings import Settings, load


class TrainSettings(Settings):
    """Network and training, as in a campaign."""

    model: ModelSettings = StructuralSettings()
    training: TrainingSettings = TrainingSettings()


KINDS = ("structural", "compositional")


def train_any(
    kind: str,
    table_path: Path,
    output: Path,
    *,
    column: str,
    max_atoms: int | None,
    n_members: int,
    seed: int,
    settings_file: Path | None,
    overrides: Sequence[str],
    workers: int,
    quiet: bool,
) -> dict[str, Any]:
    """Train an ensemble of a kind and return its metrics.

    Raises `SettingsError` for an unknown kind, and when several processes were started for compositional networks.
    """
    if kind not in KINDS:
        raise SettingsError(f"{kind!r} is not a kind of model; it is one of {', '.join(KINDS)}")
    common: dict[str, Any] = {"column": column, "n_members": n_members, "seed": seed, "workers": workers}
    progress = Progress(quiet=quiet)
    if kind == "structural":
        settings = load(TrainSettings, settings_file, overrides)
        ensemble = train_ensemble(
            table_path, output, max_atoms=max_atoms, settings=settings, progress=progress, **common
        )
        return ensemble.metrics if leave_processes().is_first else {}
    if n_started() > 1:
        raise SettingsError(
            f"{n_started()} processes were started for networks that take one each (--kind compositional); run it "
            "without torchrun, and set --workers to how many are trained beside each other"
        )
    compositional = load(CompositionalTrainSettings, settings_file, overrides)
    return train_compositional_ensemble(table_path, output, settings=compositional, progress=progress, **common).metrics


def train_ensemble(
    table_path: Path,
    output: Path,
    *,
    column: str,
    max_atoms: int | None = None,
    n_members: int,
    seed: int,
    settings: TrainSettings,
    workers: int,
    progress: Progress,
) -> Ensemble:
    """Train `n_members` networks on a table and calibrate them on the held-out compositions.

    Killed and started again, members that are finished are kept, and one that was in training goes on from its last
    saved state. Members are trained beside each other by `workers` processes; started by torchrun, one after the
    other by all its processes together. Raises `SettingsError` when the column is missing or nothing is left to
    train on.
    """
    processes = join_processes()
    rows = usable_rows(table_path, column=column, max_atoms=max_atoms)
    training_path = output / "training.parquet"
    if processes.is_first:
        output.mkdir(parents=True, exist_ok=True)
        write_table(training_path, rows)
        _build_graphs(rows, output, settings.model, workers, progress)
    processes.wait()
    units = [_unit(output, training_path, settings, seed, member) for member in range(n_members)]
    if processes.size > 1:
        _train_together(units, processes, progress)
    else:
        for ended in run_with_progress(units, lambda: local_executor(workers), progress=progress, stage="training"):
            refuse_lost(ended)
    if processes.is_first:
        ensemble_of([unit.path for unit in units], output, rows)
    processes.wait()
    return Ensemble.load(output)


def _build_graphs(rows: CrystalTable, output: Path, model: AnyModelSettings, workers: int, progress: Progress) -> None:
    """Leave the graphs on disk, where every member and process finds them (`work.train`)."""
    cached_store(
        rows,
        output,
        cutoff=model.cutoff,
        max_neighbours_per_atom=model.max_neighbours_per_atom,
        workers=workers or os.cpu_count() or 1,
        progress=progress.message,
    )


def _train_together(units: Sequence[Unit], processes: Processes, progress: Progress) -> None:
    for number, unit in enumerate(units):
        if not unit.path.exists():
            if processes.is_first:
                progress.message(f"member {number + 1} of {len(units)}, {processes.size} processes, log {unit.log}")
            unit.function(**unit.arguments)
        processes.wait()


def usable_rows(path: Path, *, column: str, max_atoms: int | None = None) -> CrystalTable:
    """Rows of a table that can be trained on, with `target` (eV/atom) and `held_out` columns."""
    table = read_table(path)
    if column not in table.column_names:
        raise SettingsError(
            f"{path} has no column {column!r}; its columns are {table.column_names}. Name one with --column"
        )
    targets = np.array([np.nan if value is None else value for value in table.column(column)], dtype=float)
    crystals = np.ones(len(table), dtype=bool)
    crystals[list(unreadable_rows(table))] = False
    usable = crystals & np.isfinite(targets) & (True if max_atoms is None else table.n_atoms <= max_atoms)
    if not usable.any():
        small = "" if max_atoms is None else f" of at most {max_atoms} atoms"
        raise SettingsError(f"{path}: no crystal{small} has a value in {column!r}")
    rows = CrystalTable(table.filter(usable).arrow.select(list(STRUCTURE_COLUMNS))).with_own_formulas()
    rows = rows.with_column("target", targets[usable])
    return rows.with_column("held_out", held_out_mask(rows.reduced_formulas))


def _unit(output: Path, training_path: Path, settings: TrainSettings, seed: int, member: int) -> Unit:
    # named by everything it depends on: another table, seed or setting never finds an old member
    content = (work.file_digest(training_path), settings.model_dump_json(), str(seed), str(member))
    key = hashlib.sha256("\x1f".join(content).encode()).hexdigest()[:16]
    path = output / "members" / f"{key}.safetensors"
    return member_unit(
        path, training_path, model=settings.model, training=settings.training, seed=seed_for(seed, "member", member)
    )
