"""Train a published network, or our own, from scratch for a fixed time and report its validation error.

    python benchmarks/peers/train_peer.py megnet --table mp_crystals.parquet --minutes 60 --threads 2 --output DIR
    python benchmarks/peers/train_peer.py cgcnn --table mp_crystals.parquet --output DIR --throughput --limit 2000

Trains on the `train` rows of the column `megnet_split`, reports on all its `val` rows; nothing is selected on them.
The graphs are built first, outside the budget, and stored below --output; their building time is reported. What
counts as training time: reading and collating graphs, forward, backward, step. A killed training goes on where it
was saved, every few minutes and at SIGTERM, so that the minutes can be spread over several sittings.
"""

import argparse
import ctypes
import importlib
import json
import os
import platform
import resource
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from graph_cache import GraphCache, Split, open_cache, read_split
from peer import Peer
from torch.nn import functional

PEERS = {
    "megnet": ("matgl_models", "MEGNET"),
    "m3gnet": ("matgl_models", "M3GNET"),
    "chgnet": ("chgnet_scratch", "CHGNET"),
    "alignn": ("alignn_model", "ALIGNN"),
    "cgcnn": ("cgcnn", "CGCNN_PEER"),
    "opengnome": ("opengnome_model", "OPENGNOME"),
}
WARM_UP = 0.05
MAX_GRADIENT = 5.0
SAVE_EVERY = 180.0
MALLOPT = ((-3, 1 << 30), (-1, 1 << 30), (-2, 1 << 28))
"""M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD of <malloc.h>, and what they are set to."""


@dataclass
class Progress:
    """What training has used up and seen, over all sittings."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    graph_seconds: float = 0.0
    """Part of the wall seconds: reading and collating graphs."""
    steps: int = 0
    crystals: int = 0
    atoms: int = 0
    epoch: int = 0
    position: int = 0
    """Crystals of this epoch already used."""
    sittings: int = 0
    errors: list[float] = field(default_factory=list)
    """Mean training error of each whole epoch, eV/atom."""
    error_sum: float = 0.0


def schedule(fraction: float) -> float:
    """Learning rate as a fraction of its peak, at a fraction of the time: linear warm-up, cosine to zero."""
    if fraction < WARM_UP:
        return max(fraction / WARM_UP, 0.02)
    return 0.5 * (1 + float(np.cos(np.pi * min((fraction - WARM_UP) / (1 - WARM_UP), 1.0))))


class Training:
    """One network on one split."""

    def __init__(
        self,
        peer: Peer,
        split: Split,
        cache: GraphCache,
        *,
        seed: int,
        clock: str,
        threads: int,
        seconds: float = np.inf,
    ) -> None:
        self.peer, self.split, self.cache, self.seconds = peer, split, cache, seconds
        self.seed, self.clock, self.threads = seed, clock, threads
        torch.manual_seed(seed)
        self.module = peer.build()
        decay = peer.weight_decay
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=peer.learning_rate, weight_decay=decay)
        train = split.targets[split.train]
        self.mean, self.scale = float(train.mean()), float(train.std())
        self.n_atoms = np.array([len(crystal.atomic_numbers) for crystal in split.crystals])
        self.progress = Progress()
        self.stopped = False

    @property
    def elapsed(self) -> float:
        """Seconds that count."""
        if self.clock == "cpu":
            return self.progress.cpu_seconds / self.threads
        return self.progress.wall_seconds

    def autocast(self) -> torch.autocast | nullcontext:
        return torch.autocast("cpu", torch.bfloat16) if self.peer.precision == "bfloat16" else nullcontext()

    def fit(self, state: Path | None) -> None:
        progress, saved = self.progress, time.perf_counter()
        progress.sittings += 1
        self.module.train()
        order = self._order()
        while self.elapsed < self.seconds and not self.stopped:
            rows = order[progress.position : progress.position + self.peer.batch_size]
            self._step(rows, schedule(self.elapsed / self.seconds))
            if progress.position >= len(order):
                progress.errors.append(progress.error_sum / len(order))
                progress.epoch, progress.position, progress.error_sum = progress.epoch + 1, 0, 0.0
                order = self._order()
                print(f"epoch {progress.epoch}: {self.elapsed / 60:.1f} min, {1000 * progress.errors[-1]:.1f} meV/atom")
            if state is not None and time.perf_counter() - saved > SAVE_EVERY:
                self.save(state)
                saved = time.perf_counter()

    def _order(self) -> np.ndarray:
        """Rows of the present epoch."""
        return np.random.default_rng([self.seed, self.progress.epoch]).permutation(self.split.train)

    def _step(self, rows: np.ndarray, rate: float) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        batch = self.peer.collate([self.cache[i] for i in rows])
        collated = time.perf_counter()
        targets = torch.from_numpy((self.split.targets[rows] - self.mean) / self.scale).float()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.peer.learning_rate
        with self.autocast():
            predicted = self.peer.forward(self.module, batch)
        loss = functional.l1_loss(predicted.float(), targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRADIENT)
        if torch.isfinite(norm):
            self.optimizer.step()
        progress = self.progress
        progress.error_sum += loss.item() * self.scale * len(rows)
        progress.steps += 1
        progress.position += len(rows)
        progress.crystals += len(rows)
        progress.atoms += int(self.n_atoms[rows].sum())
        progress.graph_seconds += collated - wall
        progress.wall_seconds += time.perf_counter() - wall
        progress.cpu_seconds += time.process_time() - cpu

    def predict(self, rows: np.ndarray, seconds: float = np.inf) -> tuple[np.ndarray, float, float]:
        """Predictions in eV/atom for the first of `rows` that fit in `seconds`; wall and processor seconds taken."""
        self.module.eval()
        start, cpu, predicted = time.perf_counter(), time.process_time(), []
        for first in range(0, len(rows), self.peer.batch_size):
            batch = self.peer.collate([self.cache[i] for i in rows[first : first + self.peer.batch_size]])
            with torch.no_grad(), self.autocast():
                predicted.append(self.peer.forward(self.module, batch).float().numpy())
            if time.perf_counter() - start > seconds:
                break
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        return np.concatenate(predicted) * self.scale + self.mean, wall, cpu

    @property
    def identity(self) -> str:
        """What a saved training must agree with to be gone on with."""
        recipe = {**vars(self.peer), "prepare": "", "collate": "", "build": "", "forward": ""}
        return json.dumps([recipe, len(self.split.targets), self.mean, self.seed, self.clock, self.seconds])

    def save(self, path: Path) -> None:
        states = {
            "identity": self.identity,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": vars(self.progress),
        }
        partial = path.with_suffix(".partial")
        torch.save(states, partial)
        partial.replace(path)
        print(f"saved at {self.elapsed / 60:.1f} min, {self.progress.crystals} crystals")

    def load(self, path: Path) -> None:
        states = torch.load(path, weights_only=True)
        if states["identity"] != self.identity:
            raise SystemExit(f"{path} is of another training ({states['identity']}); remove it or use another --output")
        self.module.load_state_dict(states["module"])
        self.optimizer.load_state_dict(states["optimizer"])
        self.progress = Progress(**states["progress"])
        print(f"going on at {self.elapsed / 60:.1f} min")


def result(training: Training, name: str, options: argparse.Namespace) -> dict[str, object]:
    progress, peer, split = training.progress, training.peer, training.split
    limits = options.throughput_seconds[1] if options.throughput else np.inf
    rows = split.train if options.throughput else split.validation
    predicted, seconds, cpu_seconds = training.predict(rows, limits)
    errors = np.abs(predicted - split.targets[rows[: len(predicted)]])
    atoms = int(training.n_atoms[rows[: len(predicted)]].sum())
    found: dict[str, object] = {
        "peer": name,
        "parameters": sum(p.numel() for p in training.module.parameters() if p.requires_grad),
        "train_crystals": split.n_train,
        "train_minutes": progress.wall_seconds / 60,
        "train_cpu_minutes": progress.cpu_seconds / 60,
        "epochs": progress.crystals / split.n_train,
        "train_crystals_per_second": progress.crystals / progress.wall_seconds,
        "train_atoms_per_second": progress.atoms / progress.wall_seconds,
        "train_crystals_per_cpu_second": progress.crystals / progress.cpu_seconds,
        "graph_share_of_training": progress.graph_seconds / progress.wall_seconds,
        "inference_crystals_per_second": len(predicted) / seconds,
        "inference_atoms_per_second": atoms / seconds,
        "inference_crystals_per_cpu_second": len(predicted) / cpu_seconds,
        "graph_build": training.cache.build,
        "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "train_error_by_epoch": progress.errors,
    }
    if not options.throughput:
        found |= {
            "validation_crystals": len(errors),
            "validation_mae": float(errors.mean()),
            "validation_median_error": float(np.median(errors)),
            "unit": "eV/atom",
        }
    recipe = {key: getattr(peer, key) for key in ("learning_rate", "batch_size", "weight_decay", "precision")}
    found["recipe"] = recipe | {"loss": "L1, standardised", "schedule": "5 % warm-up, cosine to zero, by time"}
    found["options"] = {key: str(value) for key, value in vars(options).items()}
    found["sittings"] = progress.sittings
    found["versions"] = {"python": platform.python_version()}
    found["versions"] |= {package: version(package) for package in ("torch", "numpy", *peer.packages)}
    found["machine"] = {"cpu": _cpu_name(), "cores": os.cpu_count(), "load": os.getloadavg()}
    return found


def keep_freed_memory() -> None:
    """Let glibc keep freed arrays for the next step: returned to the system they come back page by page, zeroed."""
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        for option, value in MALLOPT if mallopt is not None else ():
            mallopt(option, value)


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, help="train on this many crystals, chosen at random")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time / threads")
    parser.add_argument("--precision", help="instead of the network's own: bfloat16, medium, high or highest")
    parser.add_argument("--learning-rate", type=float, help="instead of the network's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--build-only", action="store_true", help="build the graphs and stop")
    parser.add_argument(
        "--throughput", action="store_true", help="some training and some inference, both on training crystals"
    )
    parser.add_argument(
        "--throughput-seconds", type=float, nargs=2, default=(60.0, 30.0), metavar=("TRAINING", "INFERENCE")
    )
    options = parser.parse_args()
    module, attribute = PEERS[options.name]
    peer: Peer = getattr(importlib.import_module(module), attribute)
    if options.precision:
        peer = replace(peer, precision=options.precision)
    if options.learning_rate:
        peer = replace(peer, learning_rate=options.learning_rate)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)  # Gaussian bases are full of denormals, and those are slow
    keep_freed_memory()
    if peer.precision != "bfloat16":
        torch.set_float32_matmul_precision(peer.precision)

    split = read_split(options.table, options.limit)
    graphs = options.output / "graphs" / f"{options.name}-{peer.graph_version}-{options.limit or 'all'}"
    cache = open_cache(graphs, split.crystals, peer.prepare, workers=options.threads)
    print(f"{len(split.crystals)} graphs built in {cache.build['seconds']:.0f} s")
    if options.build_only:
        return
    seconds = options.throughput_seconds[0] if options.throughput else 60 * options.minutes
    threads = options.threads
    training = Training(peer, split, cache, seed=options.seed, clock=options.clock, threads=threads, seconds=seconds)
    signal.signal(signal.SIGTERM, lambda *_: setattr(training, "stopped", True))
    if options.throughput:
        training.fit(None)
        path = options.output / f"{options.name}-throughput-{options.threads}.json"
    else:
        state = options.output / f"{options.name}.state"
        if state.exists():
            training.load(state)
        training.fit(state)
        training.save(state)
        if training.stopped:
            return
        path = options.output / f"{options.name}.json"
    text = json.dumps(result(training, options.name, options), indent=2)
    path.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
