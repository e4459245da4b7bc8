"""Training a compositional ensemble: the function behind `opengnome train --kind compositional`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from opengnome.campaign import work
from opengnome.campaign.context import run_with_progress
from opengnome.campaign.execution import Unit, local_executor
from opengnome.campaign.learning import refuse_lost
from opengnome.campaign.progress import Progress
from opengnome.campaign.seeds import seed_for
from opengnome.crystals import Composition
from opengnome.crystals.replacement import replace_file
from opengnome.datasets import held_out_mask
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.models import (
    COMPOSITIONAL_TRAINING,
    CompositionalEnsemble,
    CompositionalSettings,
    TrainingSettings,
    assemble_compositional,
)
from opengnome.settings import Settings


class CompositionalTrainSettings(Settings):
    """Network and training of a compositional ensemble."""

    model: CompositionalSettings = CompositionalSettings()
    training: TrainingSettings = COMPOSITIONAL_TRAINING


def train_compositional_ensemble(
    table_path: Path,
    output: Path,
    *,
    column: str,
    n_members: int,
    seed: int,
    settings: CompositionalTrainSettings,
    workers: int,
    progress: Progress,
    card: dict[str, Any] | None = None,
) -> CompositionalEnsemble:
    """Train `n_members` networks on the lowest energy of every composition of a table, and calibrate them.

    The table is Parquet with a `reduced_formula` or `formula` column and formation energies (eV/atom) in `column`.
    Killed and started again, finished members are kept. Raises `SettingsError` when a column is missing or nothing
    is left to train on.
    """
    formulas, targets = lowest_energies(table_path, column=column)
    held_out = held_out_mask(formulas)
    if not held_out.any() or held_out.all():
        raise SettingsError(f"{table_path}: {len(formulas)} compositions are too few for a test by formula hash")
    training_path = output / "training.parquet"
    output.mkdir(parents=True, exist_ok=True)
    rows = pa.table({"formula": formulas, "target": targets, "held_out": held_out})
    replace_file(training_path, lambda path: pq.write_table(rows, path))
    units = [_unit(output, training_path, settings, seed, member) for member in range(n_members)]
    for ended in run_with_progress(units, lambda: local_executor(workers), progress=progress, stage="training"):
        refuse_lost(ended)
    judged = [Composition.from_formula(formula) for formula, held in zip(formulas, held_out, strict=True) if held]
    return assemble_compositional(
        [unit.path for unit in units],
        output,
        compositions=judged,
        targets=targets[held_out],
        trained_on=elements_of(formula for formula, held in zip(formulas, held_out, strict=True) if not held),
        card={"n_train": int((~held_out).sum()), "n_held_out": int(held_out.sum())} | (card or {}),
    )


def elements_of(formulas: Iterable[str]) -> set[int]:
    """Atomic numbers that occur in formulas."""
    return {z for formula in formulas for z in Composition.from_formula(formula).atomic_numbers}


def lowest_energies(path: Path, *, column: str) -> tuple[list[str], np.ndarray]:
    """Reduced formulas of a table, sorted, and the lowest formation energy of each, shape (n,), eV/atom.

    Raises `SettingsError` for a missing column or no usable row. Formulas that cannot be read are left out.
    """
    table = pq.read_table(path)
    name = next((c for c in ("reduced_formula", "formula") if c in table.column_names), None)
    if name is None or column not in table.column_names:
        raise SettingsError(
            f"{path} needs a column 'reduced_formula' or 'formula' and {column!r}; it has {table.column_names}"
        )
    lowest: dict[str, float] = {}
    for formula, energy in zip(table[name].to_pylist(), table[column].to_pylist(), strict=True):
        if formula is None or energy is None or not np.isfinite(energy):
            continue
        try:
            reduced = Composition.from_formula(formula).reduced_formula
        except InvalidCrystalError:
            continue
        lowest[reduced] = min(float(energy), lowest.get(reduced, np.inf))
    if not lowest:
        raise SettingsError(f"{path}: no row has a formula and a value in {column!r}")
    formulas = sorted(lowest)
    return formulas, np.array([lowest[formula] for formula in formulas])


def _unit(output: Path, training_path: Path, settings: CompositionalTrainSettings, seed: int, member: int) -> Unit:
    content = (work.file_digest(training_path), settings.model_dump_json(), str(seed), str(member))
    key = hashlib.sha256("\x1f".join(content).encode()).hexdigest()[:16]
    path = output / "members" / f"{key}.safetensors"
    log = path.with_suffix(".log")
    arguments = {
        "path": path,
        "log": log,
        "training_path": training_path,
        "model": settings.model,
        "training": settings.training,
        "seed": seed_for(seed, "member", member),
    }
    return Unit(path, work.train_compositional, arguments, log=log)
