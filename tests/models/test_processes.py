"""One training in two processes gives what one process gives."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_energies import make_toy_data

from opengnome.errors import SettingsError
from opengnome.graphs import build_store
from opengnome.models import StructuralSettings, TrainingSettings, train_member
from opengnome.models.checkpoint import load_checkpoint
from opengnome.models.processes import n_started

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from toy_energies import make_toy_data
from opengnome.models import StructuralSettings, TrainingSettings, train_member
from opengnome.models.processes import join_processes
processes = join_processes()
assert processes.size == 2
toy = make_toy_data(60, n_held_out=20, seed=1)
train_member(
    toy.table, toy.targets, held_out=toy.held_out, model=StructuralSettings(**{model!r}),
    training=TrainingSettings(**{training!r}), seed=3, path=Path({path!r}),
)
"""
MODEL = {"width": 16, "edge_width": 16, "layers": 2, "cutoff": 4.0}
TRAINING = {"epochs": 3, "batch_size": 10, "bfloat16": False}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_two_processes_equal_one(tmp_path: Path):
    toy = make_toy_data(60, n_held_out=20, seed=1)
    alone, shared = tmp_path / "alone.safetensors", tmp_path / "shared.safetensors"
    train_member(
        toy.table,
        toy.targets,
        held_out=toy.held_out,
        model=StructuralSettings(**MODEL),
        training=TrainingSettings(**TRAINING),
        seed=3,
        path=alone,
    )
    script = SCRIPT.format(folder=str(Path(__file__).parent), model=MODEL, training=TRAINING, path=str(shared))
    common = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen([sys.executable, "-c", script], env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    graphs = build_store(toy.table, cutoff=4.0).batch(np.arange(60))
    with torch.inference_mode():
        a, b = (load_checkpoint(path)[0](graphs) for path in (alone, shared))
    torch.testing.assert_close(a, b, atol=1e-3, rtol=0)
    assert not list(tmp_path.glob("*.state"))


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert n_started() == 1
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(SettingsError, match=r"4 processes were started .* torchrun"):
        n_started()
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert n_started() == 8, "torchrun under srun, once per node"
