"""What every energy network has: constants of its training set and energies standardised by them."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from opengnome.models.constants import Constants


class EnergyNetwork(nn.Module, ABC):
    """A network whose output is ``(formation energy per atom - shift) / scale``.

    Weights are drawn from torch's global generator: fork and seed it around the constructor, or load a
    checkpoint.
    """

    settings: Any
    """The settings it was made with, a frozen `Settings`."""
    mean_neighbours: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, constants: Constants) -> None:
        super().__init__()
        for name in ("mean_neighbours", "shift", "scale"):
            self.register_buffer(name, torch.tensor(getattr(constants, name), dtype=torch.float32))

    @property
    def constants(self) -> Constants:
        """The constants the network was made with."""
        return Constants(float(self.mean_neighbours), float(self.shift), float(self.scale))

    @abstractmethod
    def standardised(self, graphs: Any) -> Tensor:
        """Standardised energies (n,), or (n, 2) with the logarithm of their scale."""

    def forward(self, graphs: Any) -> Tensor:
        """Formation energies, shape (n_graphs,), eV/atom."""
        return self.scale * self.standardised(graphs) + self.shift
