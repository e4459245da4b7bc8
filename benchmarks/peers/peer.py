"""What train_peer.py needs to know of a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from graph_cache import Crystal, Graph
from torch import Tensor, nn


@dataclass(frozen=True)
class Peer:
    prepare: Callable[[Crystal], Graph]
    collate: Callable[[Sequence[Graph]], Any]
    build: Callable[[], nn.Module]
    forward: Callable[[nn.Module, Any], Tensor]
    """Standardised energies per atom (n_crystals,)."""
    learning_rate: float
    batch_size: int
    packages: tuple[str, ...]
    """Distributions whose versions are reported."""
    weight_decay: float = 0.0
    precision: str = "highest"
    """"bfloat16": autocast; "medium", "high", "highest": `torch.set_float32_matmul_precision`."""
    graph_version: int = 1
    """Raised when `prepare` changes, so that no old cache is read."""


def atoms_owner(n_atoms: Tensor) -> Tensor:
    """Number of the crystal each atom belongs to."""
    return torch.repeat_interleave(torch.arange(len(n_atoms)), n_atoms)
