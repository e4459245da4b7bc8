"""The ensemble of a retrospective round: trained on what is known, asked about the whole pool from stored graphs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from opengnome.campaign.retrospective_settings import RetrospectiveSettings
from opengnome.campaign.retrospective_table import Progress, RetrospectiveTable
from opengnome.campaign.seeds import seed_for
from opengnome.crystals.replacement import replace_file
from opengnome.datasets import held_out_mask
from opengnome.graphs import GraphStore
from opengnome.models import train_member
from opengnome.models.calibration import fit_calibration
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.numerics import numerics

_PREDICTED = "predicted.npz"
_EDGES_PER_BATCH = 20_000
"""Edges evaluated at once: the arrays of a batch should fit the processor's cache."""


@dataclass(frozen=True, eq=False)
class PoolPrediction:
    """What the ensemble of a round says of the m crystals it was asked about."""

    formation_energies: np.ndarray
    """Median of the members, shape (m,), eV/atom."""
    stds: np.ndarray
    """Calibrated standard deviations, shape (m,), eV/atom."""
    metrics: dict[str, float]
    """Errors on the held-out known crystals (eV/atom), sizes, and the two numbers of the calibration."""


def member_paths(folder: Path, n_members: int) -> list[Path]:
    """Where the members of a round are."""
    return [folder / f"{member}.safetensors" for member in range(n_members)]


def predict_pool(
    table: RetrospectiveTable,
    settings: RetrospectiveSettings,
    *,
    known: np.ndarray,
    energies: np.ndarray,
    asked: np.ndarray,
    identity: Sequence[str | int],
    folder: Path,
    initial: Path | None = None,
    progress: Progress | None = None,
) -> PoolPrediction:
    """Train an ensemble on the crystals at rows `known` and predict those at `asked`.

    `energies` are the formation energies of `known`, eV/atom. As in a campaign 15 % of the formulas are held out by
    hash, and the spread of the members is calibrated on them. `identity` seeds the members, which are written to
    `folder`; those that are there already are kept. `initial` is the folder of the members to go on from, in which case
    `settings.fine_tuning` is the training.
    """
    usable = table.usable[known] & (energies <= settings.max_formation_energy_per_atom)
    known, energies = known[usable], energies[usable]
    crystals, graphs = table.table.take(known), table.graphs.part(known)
    held_out = held_out_mask(crystals.reduced_formulas)
    training = settings.training if initial is None else settings.fine_tuning
    paths = member_paths(folder, settings.n_members)
    for member, path in enumerate(paths):
        if not path.exists():
            report = train_member(
                crystals,
                energies,
                held_out=held_out,
                model=settings.model,
                training=training,
                seed=seed_for(settings.seed, "retrospective member", *identity, member),
                path=path,
                initial=None if initial is None else member_paths(initial, settings.n_members)[member],
                graphs=graphs,
            )
            if progress is not None:
                mae = float("nan") if report.held_out_mae is None else 1000.0 * report.held_out_mae
                progress(f"member {member}: {report.n_train} crystals, {report.seconds:.0f} s, {mae:.0f} meV/atom")
    predicted = _kept_energies(paths, table.graphs, np.concatenate([known[held_out], asked]), folder / _PREDICTED)
    median, spread = _summary(predicted)
    n_judged = int(held_out.sum())
    errors = median[:n_judged] - energies[held_out]
    calibration = fit_calibration(errors, spread[:n_judged])
    metrics = {
        "n_train": float((~held_out).sum()),
        "n_held_out": float(n_judged),
        "held_out_mae": float(np.abs(errors).mean()),
        "held_out_median_error": float(np.median(np.abs(errors))),
        "calibration_floor": calibration.floor,
        "calibration_slope": calibration.slope,
    }
    return PoolPrediction(median[n_judged:], calibration.std(spread[n_judged:]), metrics)


def _kept_energies(paths: Sequence[Path], graphs: GraphStore, rows: np.ndarray, file: Path) -> np.ndarray:
    """Energies of the members as `stored_energies` gives them, from `file` when these rows have been asked before.

    All strategies ask the first ensemble of a repeat about the same pool.
    """
    if file.exists():
        with np.load(file) as kept:
            if np.array_equal(kept["rows"], rows):
                return kept["energies"]
    energies = stored_energies([load_checkpoint(path)[0] for path in paths], graphs, rows)
    replace_file(file, lambda temporary: np.savez(temporary, rows=rows, energies=energies))
    return energies


def stored_energies(networks: Sequence[EnergyNetwork], graphs: GraphStore, rows: np.ndarray) -> np.ndarray:
    """Energies of the crystals at `rows` by each network, shape (n_networks, n_rows), eV/atom, in full precision."""
    energies = np.empty((len(networks), len(rows)))
    order = np.argsort(graphs.sizes[rows], kind="stable")
    batch_of = np.cumsum(graphs.sizes[rows[order]]) // _EDGES_PER_BATCH
    with numerics(threads=1), torch.inference_mode():
        for part in np.split(order, np.flatnonzero(np.diff(batch_of)) + 1):
            batch = graphs.batch(rows[part])
            for number, network in enumerate(networks):
                energies[number, part] = network(batch).double().numpy()
    return energies


def _summary(energies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and inter-quartile range over members (m, n), as `Ensemble.predict` gives them."""
    lower, median, upper = np.quantile(energies, [0.25, 0.5, 0.75], axis=0)
    return median, upper - lower
