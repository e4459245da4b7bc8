"""Training an ensemble outside a campaign: the function behind `opengnome train`."""

import hashlib
from pathlib import Path

import numpy as np

from opengnome.campaign import work
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.execution import Unit, local_executor
from opengnome.campaign.learning import ensemble_of, member_unit, refuse_lost
from opengnome.campaign.progress import Progress
from opengnome.campaign.seeds import seed_for
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.crystals.table import STRUCTURE_COLUMNS
from opengnome.datasets import held_out_mask
from opengnome.errors import SettingsError
from opengnome.models import Ensemble, ModelSettings, TrainingSettings
from opengnome.settings import Settings


class TrainSettings(Settings):
    """Network and training, as in a campaign."""

    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()


def train_ensemble(
    table_path: Path,
    output: Path,
    *,
    column: str,
    max_atoms: int,
    n_members: int,
    seed: int,
    settings: TrainSettings,
    workers: int,
    progress: Progress,
) -> Ensemble:
    """Train `n_members` networks on a table and calibrate them on the held-out compositions.

    Killed and started again, members that are finished are kept. Raises `SettingsError` when the column is
    missing or nothing is left to train on.
    """
    rows = usable_rows(table_path, column=column, max_atoms=max_atoms)
    training_path = output / "training.parquet"
    output.mkdir(parents=True, exist_ok=True)
    write_table(training_path, rows)
    units = [_unit(output, training_path, settings, seed, member) for member in range(n_members)]

    for ended in run_with_progress(units, lambda: local_executor(workers), progress=progress, stage="training"):
        refuse_lost(ended)
    return ensemble_of([unit.path for unit in units], output, rows)


def usable_rows(path: Path, *, column: str, max_atoms: int) -> CrystalTable:
    """Rows of a table that can be trained on, with `target` (eV/atom) and `held_out` columns."""
    table = read_table(path)
    if column not in table.column_names:
        raise SettingsError(
            f"{path} has no column {column!r}; its columns are {table.column_names}. Name one with --column"
        )
    targets = np.array([np.nan if value is None else value for value in table.column(column)], dtype=float)
    usable = np.isfinite(targets) & (table.n_atoms <= max_atoms)
    if not usable.any():
        raise SettingsError(f"{path}: no crystal of at most {max_atoms} atoms has a value in {column!r}")
    rows = CrystalTable(table.filter(usable).arrow.select(list(STRUCTURE_COLUMNS)))
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
