"""The training loop: any network, any examples, one process or several, resumed exactly after a kill."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (the field's name for it)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from opengnome.errors import SettingsError
from opengnome.graphs import OrbitBatch, perturbed
from opengnome.models.checkpoint import write_bytes
from opengnome.models.device import choose_device, has_bfloat16
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.processes import Processes
from opengnome.models.sampling import balanced_batches
from opengnome.models.schedule import learning_rate
from opengnome.models.training_settings import TrainingSettings

Progress = Callable[[str], None]
_EVALUATION_EXAMPLES = 256
_HUBER_DELTA = 0.1
_WATCHED = 2000
"""Held-out examples that are judged after every epoch; all are in the end."""


class Inputs(Protocol):
    """A batch that can be moved to a device."""

    def to(self, device: torch.device) -> "Inputs":
        """The same batch there."""
        ...


class Examples(Protocol):
    """Things to learn from: n inputs, and what each costs a network."""

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> np.ndarray:
        """Cost of each example, shape (n,)."""
        ...

    def batch(self, rows: np.ndarray) -> Inputs:
        """The examples at `rows` as one input of the network."""
        ...


class Fit:
    """The state of a running training.

    `targets` (n,) in eV/atom; `train` and `held_out` are rows of `examples`. `identity` names everything the
    result depends on: a state that was saved under another name is not taken up.
    """

    def __init__(
        self,
        network: EnergyNetwork,
        examples: Examples,
        targets: np.ndarray,
        *,
        train: np.ndarray,
        held_out: np.ndarray,
        training: TrainingSettings,
        seed: int,
        state_path: Path,
        identity: str,
    ) -> None:
        self.processes = Processes.current()
        self.device = choose_device(training.device)
        self.network, self.examples, self.training, self.seed = network.to(self.device), examples, training, seed
        self.targets = torch.from_numpy(np.asarray(targets, dtype=np.float32))
        self.train, self.held_out = np.asarray(train), np.asarray(held_out)
        # every epoch is judged on a sample: a large test set would cost as much as the training
        self.watched = np.random.default_rng(seed).permutation(self.held_out)[:_WATCHED]
        self.state_path, self.identity = state_path, identity
        self.bfloat16 = has_bfloat16(self.device) if training.bfloat16 is None else training.bfloat16
        self.optimiser = _optimiser(network, training, self.device)
        # averaged weights start as the first ones and are only ever moved by `_update_average`
        self.average = copy.deepcopy(network) if training.averaging else network
        self.n_steps = training.epochs * -(-len(self.train) // training.batch_size)
        self.step, self.epoch, self.within_epoch = 0, 0, 0
        self.seconds, self.n_seen, self.total_error = 0.0, 0, 0.0
        self.train_mae = math.nan
        self.best, self.best_epoch, self.drops, self.waited = math.inf, -1, 0, 0
        self.best_weights: dict[str, Tensor] | None = None
        self._saved_at = time.perf_counter()

    @property
    def crystals_per_second(self) -> float:
        """Training throughput over all sittings."""
        return self.n_seen / self.seconds if self.seconds else math.nan

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end, from the saved state when there is one of this identity.

        Raises `SettingsError` when the training diverges.
        """
        if self._load() and progress is not None:
            progress(f"goes on from step {self.step} of {self.n_steps}")
        while self.epoch < self.training.epochs and not self._stopped_early():
            self._run_epoch()
            held_out_mae = self._judge()
            if progress is not None:
                progress(self._describe(held_out_mae))
        if self.best_weights is not None:
            self.average.load_state_dict(self.best_weights)
        self.kept.eval()

    def finish(self) -> None:
        """Forget the saved state; call it when the result is safe."""
        if self.processes.is_first:
            self.state_path.unlink(missing_ok=True)

    def predict(self, rows: np.ndarray) -> Tensor:
        """Energies of examples by the weights that are kept, in full precision, shape (n,), eV/atom."""
        network = self.kept.eval()
        out = torch.empty(len(rows))
        order = np.argsort(self.examples.sizes[rows], kind="stable")
        with torch.inference_mode():
            for start in range(0, len(order), _EVALUATION_EXAMPLES):
                part = order[start : start + _EVALUATION_EXAMPLES]
                standardised = _energies(network.standardised(self.examples.batch(rows[part]).to(self.device)))
                out[torch.from_numpy(part)] = (standardised * network.scale + network.shift).float().cpu()
        return out

    def held_out_mae(self) -> float | None:
        """Mean absolute error on the held-out examples, eV/atom; None without any."""
        return self._mae(self.held_out)

    def _mae(self, rows: np.ndarray) -> float | None:
        return float((self.predict(rows) - self.targets[rows]).abs().mean()) if len(rows) else None

    @property
    def kept(self) -> EnergyNetwork:
        """The network whose weights are the result."""
        return self.average

    def _stopped_early(self) -> bool:
        return bool(self.training.patience) and self.epoch - 1 - self.best_epoch >= self.training.patience

    def _run_epoch(self) -> None:
        """One pass over the training examples; the order follows from seed and epoch alone."""
        rng = np.random.default_rng((self.seed, self.epoch))
        batches = balanced_batches(self.examples.sizes[self.train], self.training.batch_size, rng)
        self.network.train()
        while self.within_epoch < len(batches):
            started = time.perf_counter()
            self._take_step(self.train[batches[self.within_epoch]])
            self.within_epoch += 1
            self.seconds += time.perf_counter() - started
            if time.perf_counter() - self._saved_at > self.training.save_every:
                self._save()
        self.train_mae = self.total_error / len(self.train)
        self.epoch, self.within_epoch, self.total_error = self.epoch + 1, 0, 0.0

    def _take_step(self, rows: np.ndarray) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, self.n_steps, self.training, drops=self.drops)
        mine = self.processes.share(rows)
        standardised = ((self.targets[mine].to(self.device)) - self.network.shift) / self.network.scale
        with self._precision(), self._randomness():
            predicted = self.network.standardised(self._inputs(mine).to(self.device)).float()
        # every process weighs its crystals as if it had all of them, so the sum over processes is the mean
        loss = example_losses(predicted, standardised, self.training.loss).sum() / len(rows)
        if not torch.isfinite(loss):
            raise SettingsError(
                f"the training diverged at step {self.step} (loss {loss.item()}); "
                f"lower learning_rate, it is {self.training.learning_rate}"
            )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.sum_gradients(self.network)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.training.max_gradient_norm)
        self.optimiser.step()
        self.step += 1
        self.n_seen += len(rows)
        self._update_average()
        error = (_energies(predicted.detach()) - standardised).abs().sum() * self.network.scale
        self.total_error += self.processes.total(float(error))

    def _inputs(self, rows: np.ndarray) -> Inputs:
        """The examples at `rows`, perturbed when asked for; the noise follows from seed and step alone."""
        inputs = self.examples.batch(rows)
        noise = self.training.volume_noise, self.training.distance_noise
        if not any(noise):
            return inputs
        if not isinstance(inputs, OrbitBatch):
            raise SettingsError("volume_noise and distance_noise are for crystals; compositions have no distances")
        generator = torch.Generator().manual_seed(self._seed_of_step())
        return perturbed(inputs, volume_std=noise[0], distance_std=noise[1], generator=generator)

    def _update_average(self) -> None:
        if self.average is self.network:
            return
        decay = min(self.training.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.lerp_(new, 1.0 - decay)

    def _judge(self) -> float | None:
        """Error of the epoch on the watched examples, and what follows from it."""
        watched = self.training.patience or self.training.schedule == "plateau"
        mae = self._mae(self.watched)
        error = self.train_mae if mae is None else mae
        if not watched:
            return mae
        if error < self.best:
            self.best, self.best_epoch, self.waited = error, self.epoch - 1, 0
            if self.training.patience:
                self.best_weights = {k: v.detach().clone() for k, v in self.kept.state_dict().items()}
        else:
            self.waited += 1
        if self.training.schedule == "plateau" and self.waited >= self.training.plateau_epochs:
            self.drops, self.waited = self.drops + 1, 0
        return mae

    def _describe(self, held_out_mae: float | None) -> str:
        held_out = "" if held_out_mae is None else f", held out {1000 * held_out_mae:.1f} meV/atom"
        left = (self.n_steps - self.step) * self.seconds / max(self.step, 1) / 60.0
        return (
            f"epoch {self.epoch}/{self.training.epochs}: train {1000 * self.train_mae:.1f} meV/atom"
            f"{held_out}, {self.crystals_per_second:.0f} crystals/s, {left:.0f} min left"
        )

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        """Dropout follows from seed and step alone, so that a resumed training draws what it would have drawn."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self._seed_of_step())
            yield

    def _seed_of_step(self) -> int:
        return int(np.random.default_rng((self.seed, self.step, self.processes.rank)).integers(2**62))

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def _save(self) -> None:
        """Write everything the rest of the training depends on, whole or not at all."""
        self._saved_at = time.perf_counter()
        if not self.processes.is_first:
            return
        tensors = _named("network", self.network.state_dict())
        if self.average is not self.network:
            tensors |= _named("average", self.average.state_dict())
        if self.best_weights is not None:
            tensors |= _named("best", self.best_weights)
        for index, moments in self.optimiser.state_dict()["state"].items():
            tensors |= _named(f"optimiser.{index}", moments)
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        metadata = {"identity": self.identity, "numbers": json.dumps(numbers)}
        content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
        write_bytes(self.state_path, content)

    def _load(self) -> bool:
        if not self.state_path.is_file():
            return False
        try:
            with safe_open(self.state_path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != self.identity:
                    return False
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError):  # a damaged state costs time, never the result
            return False
        self.network.load_state_dict(_under("network", tensors))
        if self.average is not self.network:
            self.average.load_state_dict(_under("average", tensors))
        self.best_weights = _under("best", tensors) or None
        optimiser = self.optimiser.state_dict()
        indices = {int(name.split(".")[1]) for name in tensors if name.startswith("optimiser.")}
        optimiser["state"] = {i: _under(f"optimiser.{i}", tensors) for i in indices}
        self.optimiser.load_state_dict(optimiser)
        for name, value in json.loads(metadata["numbers"]).items():
            setattr(self, name, value)
        return True


_NUMBERS = (
    *("step", "epoch", "within_epoch", "seconds", "n_seen", "total_error", "train_mae"),
    *("best", "best_epoch", "drops", "waited"),
)


def example_losses(predicted: Tensor, target: Tensor, name: str) -> Tensor:
    """Loss of each example, (n,); `predicted` is (n,), or (n, 2) with the logarithm of the scale.

    Raises `SettingsError` for the Laplace likelihood of a network without a scale.
    """
    if name == "laplace":
        if predicted.ndim != 2:
            raise SettingsError("loss='laplace' needs a network that predicts its scale; use 'l1'")
        return (predicted[:, 0] - target).abs() * torch.exp(-predicted[:, 1]) + predicted[:, 1]
    energies = _energies(predicted)
    if name == "l1":
        return F.l1_loss(energies, target, reduction="none")
    if name == "mse":
        return F.mse_loss(energies, target, reduction="none")
    return F.huber_loss(energies, target, delta=_HUBER_DELTA, reduction="none") / _HUBER_DELTA


def _energies(predicted: Tensor) -> Tensor:
    return predicted[:, 0] if predicted.ndim == 2 else predicted


def _optimiser(network: EnergyNetwork, training: TrainingSettings, device: torch.device) -> torch.optim.AdamW:
    """AdamW that decays matrices only: biases and scales have no reason to be small."""
    parameters = list(network.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=(0.9, 0.99), fused=device.type in ("cpu", "cuda"))


def _named(prefix: str, tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
