"""Training of one member of an ensemble."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from pydantic import Field
from torch import Tensor

from opengnome.crystals import CrystalTable
from opengnome.errors import SettingsError
from opengnome.graphs import GraphBatch, build_batch, select
from opengnome.models.checkpoint import data_digest, load_checkpoint, save_checkpoint
from opengnome.models.numerics import numerics
from opengnome.models.structural import Constants, ModelSettings, StructuralModel
from opengnome.settings import Settings

Progress = Callable[[str], None]
_EVALUATION_CRYSTALS = 128


class TrainingSettings(Settings):
    """How a member is trained (Adam)."""

    epochs: int = Field(default=100, ge=1)
    """Passes over the training crystals; the paper has 1,000."""
    batch_size: int = Field(default=32, ge=1)
    """Crystals per step; the paper has 256."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Largest learning rate; the paper has 5.55e-4."""
    schedule: Literal["linear", "one_cycle"] = "one_cycle"
    """Linear decay to zero (the paper), or a linear rise over a tenth of the steps and a cosine to zero."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay (AdamW)."""
    loss: Literal["l1", "huber", "mse"] = "l1"
    """Loss on standardised targets; huber turns from square to linear at 0.1."""
    max_gradient_norm: float = Field(default=5.0, gt=0)
    """Gradients longer than this are shortened to it."""
    bfloat16: bool = False
    """Matrix products in bfloat16: faster on processors with matrix units for it, less exact."""
    threads: int = Field(default=1, ge=1)
    """Threads of one training; more than one gives up reproducibility."""


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


def train_member(
    table: CrystalTable,
    targets: np.ndarray,
    *,
    held_out: np.ndarray,
    model: ModelSettings,
    training: TrainingSettings,
    seed: int,
    path: Path,
    progress: Progress | None = None,
    initial: Path | None = None,
) -> MemberReport:
    """Train one network on the rows of `table` outside `held_out` and write it to `path` (.safetensors).

    `targets` are formation energies (n,) in eV/atom; `held_out` is a boolean mask (n,). A composition may
    have several rows, at several volumes. `seed` fixes the initial weights and the order of the crystals;
    with one thread the same seed gives the same weights on one machine. `initial` is a checkpoint to start
    from: its settings must be `model`, and its constants are kept.

    Raises `SettingsError` when there is nothing to train on or the training diverges, `CheckpointError`
    for an unusable `initial`, `InvalidCrystalError` for a crystal without a graph.
    """
    targets, held_out = _checked(table, targets, held_out)
    started = time.perf_counter()
    with numerics(threads=training.threads):
        graphs = build_batch(table, cutoff=model.cutoff, max_neighbours_per_atom=model.max_neighbours_per_atom)
        network = _initial_network(graphs, targets, ~held_out, model=model, seed=seed, initial=initial)
        fit = _Fit(network, graphs, torch.from_numpy(targets).float(), held_out, training, seed)
        for epoch in range(training.epochs):
            fit.run_epoch()
            if progress is not None:
                progress(fit.describe(epoch))
        held_out_mae = fit.held_out_mae()
    report = MemberReport(
        path=path,
        seed=seed,
        n_train=int((~held_out).sum()),
        n_held_out=int(held_out.sum()),
        train_mae=fit.train_mae,
        held_out_mae=held_out_mae,
        seconds=time.perf_counter() - started,
        crystals_per_second=fit.crystals_per_second,
    )
    save_checkpoint(path, network, card=_card(report, table, targets, training, initial))
    return report


class _Fit:
    """The state of a running training: network, optimiser, step, and the errors of the last epoch."""

    def __init__(
        self,
        network: StructuralModel,
        graphs: GraphBatch,
        targets: Tensor,
        held_out: np.ndarray,
        training: TrainingSettings,
        seed: int,
    ) -> None:
        self.network, self.graphs, self.targets, self.training = network, graphs, targets, training
        self.train_rows = torch.from_numpy(np.flatnonzero(~held_out))
        self.held_out_rows = torch.from_numpy(np.flatnonzero(held_out))
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.n_steps = training.epochs * math.ceil(len(self.train_rows) / training.batch_size)
        self.step = 0
        self.seconds = 0.0
        self.n_seen = 0
        self.train_mae = math.nan

    @property
    def crystals_per_second(self) -> float:
        return self.n_seen / self.seconds

    def run_epoch(self) -> None:
        """One pass over the training crystals in a new order."""
        started = time.perf_counter()
        order = self.train_rows[torch.randperm(len(self.train_rows), generator=self.generator)]
        self.network.train()
        total = 0.0
        for rows in order.split(self.training.batch_size):
            total += self._take_step(rows)
        self.train_mae = total / len(order)
        self.n_seen += len(order)
        self.seconds += time.perf_counter() - started

    def _take_step(self, rows: Tensor) -> float:
        """One step of Adam; the sum of absolute errors over the batch, eV/atom."""
        network = self.network
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.n_steps, self.training)
        standardised = (self.targets[rows] - network.shift) / network.scale
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.training.bfloat16):
            predicted = network.standardised(select(self.graphs, rows)).float()
        loss = _loss(predicted, standardised, self.training.loss)
        if not torch.isfinite(loss):
            raise SettingsError(
                f"the training diverged at step {self.step} (loss {loss.item()}); "
                f"lower learning_rate, it is {self.training.learning_rate}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.training.max_gradient_norm)
        self.optimiser.step()
        self.step += 1
        return float((predicted.detach() - standardised).abs().sum() * network.scale)

    def held_out_mae(self) -> float | None:
        """Mean absolute error on the held-out crystals, eV/atom."""
        if not len(self.held_out_rows):
            return None
        self.network.eval()
        with torch.inference_mode():
            parts = self.held_out_rows.split(_EVALUATION_CRYSTALS)
            predicted = torch.cat([self.network(select(self.graphs, rows)) for rows in parts])
        return float((predicted - self.targets[self.held_out_rows]).abs().mean())

    def describe(self, epoch: int) -> str:
        """One line for the user."""
        held_out_mae = self.held_out_mae()
        held_out = "" if held_out_mae is None else f", held out {1000 * held_out_mae:.0f} meV/atom"
        return (
            f"epoch {epoch + 1}/{self.training.epochs}: train {1000 * self.train_mae:.0f} meV/atom"
            f"{held_out}, {self.crystals_per_second:.0f} crystals/s"
        )


def learning_rate(step: int, n_steps: int, training: TrainingSettings) -> float:
    """Learning rate of a step counted from zero."""
    done = step / n_steps
    if training.schedule == "linear":
        return training.learning_rate * (1.0 - done)
    warm_up = max(1, n_steps // 10)
    if step < warm_up:
        return training.learning_rate * (step + 1) / warm_up
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / (n_steps - warm_up)))


def _loss(predicted: Tensor, target: Tensor, name: str) -> Tensor:
    if name == "l1":
        return F.l1_loss(predicted, target)
    if name == "mse":
        return F.mse_loss(predicted, target)
    return F.huber_loss(predicted, target, delta=0.1) / 0.1


def _initial_network(
    graphs: GraphBatch,
    targets: np.ndarray,
    train: np.ndarray,
    *,
    model: ModelSettings,
    seed: int,
    initial: Path | None,
) -> StructuralModel:
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
        return StructuralModel(model, _constants(graphs, targets, train))


def _constants(graphs: GraphBatch, targets: np.ndarray, train: np.ndarray) -> Constants:
    n_edges = graphs.edge_counts.numpy()[train].sum()
    n_nodes = graphs.node_counts.numpy()[train].sum()
    scale = float(targets[train].std())
    return Constants(
        mean_neighbours=max(float(n_edges / n_nodes), 1.0),
        shift=float(targets[train].mean()),
        scale=scale if scale > 1e-6 else 1.0,  # equal targets: nothing to scale by
    )


def _checked(table: CrystalTable, targets: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    targets = np.array(targets, dtype=np.float64)
    held_out = np.array(held_out, dtype=bool)
    if targets.shape != (len(table),) or held_out.shape != (len(table),):
        raise SettingsError(f"{targets.shape=} and {held_out.shape=} must both be ({len(table)},), one per crystal")
    if not np.isfinite(targets).all():
        wrong = table.ids[int(np.flatnonzero(~np.isfinite(targets))[0])]
        raise SettingsError(f"the target of {wrong!r} is not finite; drop crystals without a label")
    if held_out.all():
        raise SettingsError(f"nothing to train on: all {len(table)} crystals are held out")
    return targets, held_out


def _card(
    report: MemberReport,
    table: CrystalTable,
    targets: np.ndarray,
    training: TrainingSettings,
    initial: Path | None,
) -> dict[str, object]:
    return {
        "training": training.model_dump(mode="json"),
        "seed": report.seed,
        "initial": None if initial is None else initial.name,
        "data_digest": data_digest(table, targets),
        "n_train": report.n_train,
        "n_held_out": report.n_held_out,
        "metrics": {"train_mae": report.train_mae, "held_out_mae": report.held_out_mae, "unit": "eV/atom"},
    }
