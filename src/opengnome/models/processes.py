"""One training in several processes: each takes a share of every batch, gradients are summed.

Start them with `torchrun --nproc-per-node N -m opengnome train ...`, on several nodes as docs/clusters.md says; torch's
process group (gloo on processors, NCCL on graphics cards) carries the sums.
"""

import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from opengnome.errors import SettingsError


@dataclass(frozen=True)
class Processes:
    """The processes of one training and which of them this is."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Processes":
        """Those of the process group, or this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """The part of a batch that this process computes; rows lie sorted by size, so parts are alike."""
        return rows[self.rank :: self.size]

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum the gradients over all processes, in one message."""
        if self.size == 1:
            return
        parameters = [p for p in network.parameters() if p.requires_grad]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
        dist.all_reduce(flat)
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.reshape(parameter.shape)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier()

    def total(self, value: float) -> float:
        """Sum of a number over all processes."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(value, dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return float(tensor)


_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
"""Set by srun and mpirun for what they start several times."""


def n_started() -> int:
    """How many processes torchrun has started for one training.

    Raises `SettingsError` when something else has started several: they would know nothing of each other, and each
    would train the whole network into the same folder.
    """
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    for name in _TASKS:
        if int(os.environ.get(name) or 1) > 1:
            raise SettingsError(
                f"{os.environ[name]} processes were started ({name}) that do not know of each other; start one per "
                "node, torchrun, which starts the others (docs/clusters.md has the script)"
            )
    return 1


def join_processes() -> Processes:
    """Join the process group that torchrun has set up; alone without one. Raises as `n_started` does."""
    if n_started() > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    return Processes.current()


def leave_processes() -> Processes:
    """Close the process group, when there is one; which of the processes this was."""
    processes = Processes.current()
    if processes.size > 1:
        dist.destroy_process_group()
    return processes
