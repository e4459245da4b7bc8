"""Training of one member of an ensemble."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from opengnome.crystals import Composition, CrystalTable
from opengnome.errors import SettingsError
from opengnome.graphs import GraphStore, build_store
from opengnome.models.checkpoint import data_digest, load_checkpoint, save_checkpoint
from opengnome.models.compositional import CompositionalSettings, CompositionDataset
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.fitting import Examples, Fit
from opengnome.models.network import AnyModelSettings, AnyNetworkSettings, make_network
from opengnome.models.numerics import numerics
from opengnome.models.training_settings import TrainingSettings

Progress = Callable[[str], None]


@dataclass(frozen=True)
class MemberReport:
    """What became of one training."""

    path: Path
    seed: int
    n_train: int
    n_held_out: int
    train_mae: float
    """Mean absolute error over the last epoch, eV/atom."""
    held_out_mae: float | None
    """Mean absolute error on the held-out crystals, eV/atom; None without any."""
    seconds: float
    crystals_per_second: float
    """Training throughput, graph building excluded."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a network learns from: n inputs with targets, some of them held out."""

    ids: Sequence[str]
    examples: Examples
    targets: np.ndarray
    """Formation energies, shape (n,), eV/atom."""
    held_out: np.ndarray
    """Not trained on, shape (n,), bool."""
    mean_neighbours: float
    """Mean number of neighbours of an atom of the training crystals; 1 for compositions."""

    @property
    def digest(self) -> str:
        """SHA-256 of ids and targets: the name of the data."""
        return data_digest(self.ids, self.targets)

    @property
    def constants(self) -> Constants:
        """Shift and scale of the training targets."""
        used = self.targets[~self.held_out]
        scale = float(used.std())
        return Constants(
            mean_neighbours=max(self.mean_neighbours, 1.0),
            shift=float(used.mean()),
            scale=scale if scale > 1e-6 else 1.0,  # equal targets: nothing to scale by
        )


def train_member(
    table: CrystalTable,
    targets: np.ndarray,
    *,
    held_out: np.ndarray,
    model: AnyModelSettings,
    training: TrainingSettings,
    seed: int,
    path: Path,
    progress: Progress | None = None,
    initial: Path | None = None,
    graphs: GraphStore | None = None,
) -> MemberReport:
    """Train one structural network on the rows of `table` outside `held_out` and write it to `path` (.safetensors).

    `targets` are formation energies (n,) in eV/atom; `held_out` is a boolean mask (n,). A composition may
    have several rows, at several volumes. `graphs` are those of `table` within the cutoff of `model` when they are
    built already. A crystal without a graph is left out and named in `progress`. The rest as in `train_network`.
    """
    targets, held_out = _checked(table.ids, targets, held_out)
    if graphs is None:
        graphs = build_store(table, cutoff=model.cutoff, max_neighbours_per_atom=model.max_neighbours_per_atom)
    elif (len(graphs), graphs.cutoff) != (len(table), model.cutoff):
        raise SettingsError(
            f"{len(graphs)} graphs within {graphs.cutoff} A do not fit {len(table)} crystals and a cutoff of "
            f"{model.cutoff} A"
        )
    if graphs.reasons:
        if progress is not None:
            for row, reason in graphs.reasons.items():
                progress(f"left out: {table.ids[row]} has no graph: {reason}")
        kept = np.flatnonzero(graphs.usable)
        table, graphs, targets, held_out = table.take(kept), graphs.part(kept), targets[kept], held_out[kept]
        _checked(table.ids, targets, held_out)
    mean_neighbours = graphs.mean_neighbours(np.flatnonzero(~held_out))
    data = TrainingData(table.ids, graphs, targets, held_out, mean_neighbours)
    return train_network(data, model=model, training=training, seed=seed, path=path, progress=progress, initial=initial)


def train_compositional_member(
    compositions: Sequence[Composition],
    targets: np.ndarray,
    *,
    held_out: np.ndarray,
    model: CompositionalSettings,
    training: TrainingSettings,
    seed: int,
    path: Path,
    progress: Progress | None = None,
    initial: Path | None = None,
) -> MemberReport:
    """Train one compositional network on `compositions` outside `held_out` and write it to `path`.

    `targets` are the formation energies of their lowest-energy crystals, (n,) in eV/atom. The rest as in
    `train_network`.
    """
    formulas = [composition.reduced_formula for composition in compositions]
    targets, held_out = _checked(formulas, targets, held_out)
    data = TrainingData(formulas, CompositionDataset(compositions), targets, held_out, 1.0)
    return train_network(data, model=model, training=training, seed=seed, path=path, progress=progress, initial=initial)


def train_network(
    data: TrainingData,
    *,
    model: AnyNetworkSettings,
    training: TrainingSettings,
    seed: int,
    path: Path,
    progress: Progress | None = None,
    initial: Path | None = None,
) -> MemberReport:
    """Train the network that `model` describes and write it to `path` (.safetensors, its card beside it).

    `seed` fixes the initial weights and the order of the examples; with one thread the same seed gives the same
    weights on one machine, also when the training was killed and started again. `initial` is a checkpoint to start
    from: its settings must be `model`, and its constants are kept.

    Raises `SettingsError` when the training diverges, `CheckpointError` for an unusable `initial`.
    """
    started = time.perf_counter()
    with numerics(threads=training.threads):
        fit = Fit(
            _initial_network(data.constants, model=model, seed=seed, initial=initial),
            data.examples,
            data.targets,
            train=np.flatnonzero(~data.held_out),
            held_out=np.flatnonzero(data.held_out),
            training=training,
            seed=seed,
            state_path=path.with_suffix(".state"),
            identity=_identity(data, model, training, seed, initial),
        )
        fit.run(progress)
        held_out_mae = fit.held_out_mae()
    report = MemberReport(
        path=path,
        seed=seed,
        n_train=int((~data.held_out).sum()),
        n_held_out=int(data.held_out.sum()),
        train_mae=fit.train_mae,
        held_out_mae=held_out_mae,
        seconds=time.perf_counter() - started,
        crystals_per_second=fit.crystals_per_second,
    )
    if fit.processes.is_first:
        save_checkpoint(path, fit.kept.cpu(), card=_card(report, data, training, initial))
    fit.finish()
    return report


def _identity(
    data: TrainingData, model: AnyNetworkSettings, training: TrainingSettings, seed: int, initial: Path | None
) -> str:
    """Name of a training: what was saved under another name must not be gone on with."""
    parts = (
        data.digest,
        hashlib.sha256(np.packbits(data.held_out).tobytes()).hexdigest(),
        model.model_dump_json(),
        training.model_dump_json(exclude={"save_every"}),
        str(seed),
        "" if initial is None else hashlib.sha256(initial.read_bytes()).hexdigest(),
    )
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _initial_network(
    constants: Constants, *, model: AnyNetworkSettings, seed: int, initial: Path | None
) -> EnergyNetwork:
    if initial is not None:
        network, _ = load_checkpoint(initial)
        if network.settings != model:
            raise SettingsError(
                f"{initial} was trained with other model settings ({network.settings!r}); "
                "use those, or start without an initial checkpoint"
            )
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network(model, constants)


def _checked(ids: Sequence[str], targets: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets = np.array(targets, dtype=np.float64)
    held_out = np.array(held_out, dtype=bool)
    if targets.shape != (len(ids),) or held_out.shape != (len(ids),):
        raise SettingsError(f"{targets.shape=} and {held_out.shape=} must both be ({len(ids)},), one per crystal")
    if not np.isfinite(targets).all():
        wrong = ids[int(np.flatnonzero(~np.isfinite(targets))[0])]
        raise SettingsError(f"the target of {wrong!r} is not finite; drop crystals without a label")
    if held_out.all():
        raise SettingsError(f"nothing to train on: all {len(ids)} crystals are held out")
    return targets, held_out


def _card(
    report: MemberReport, data: TrainingData, training: TrainingSettings, initial: Path | None
) -> dict[str, object]:
    return {
        "training": training.model_dump(mode="json"),
        "seed": report.seed,
        "initial": None if initial is None else hashlib.sha256(initial.read_bytes()).hexdigest(),
        "data_digest": data.digest,
        "n_train": report.n_train,
        "n_held_out": report.n_held_out,
        "metrics": {"train_mae": report.train_mae, "held_out_mae": report.held_out_mae, "unit": "eV/atom"},
    }
