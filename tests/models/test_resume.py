"""A training that is killed and started again ends in the same weights as one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from opengnome.models import StructuralSettings, TrainingSettings, train_member

SMALL = StructuralSettings(width=16, edge_width=16, layers=2, cutoff=4.0)
TRAINING = {"epochs": 12, "batch_size": 10, "averaging": 0.9, "volume_noise": 0.02, "save_every": 1e-6}

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from toy_energies import make_toy_data
from opengnome.models import StructuralSettings, TrainingSettings, train_member
toy = make_toy_data(150, n_held_out=50, seed=1)
train_member(
    toy.table, toy.targets, held_out=toy.held_out, model=StructuralSettings(**{model!r}),
    training=TrainingSettings(**{training!r}), seed=3, path=Path({path!r}),
)
"""


def start(path: Path) -> subprocess.Popen:
    script = SCRIPT.format(
        folder=str(Path(__file__).parent), model=SMALL.model_dump(), training=TRAINING, path=str(path)
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def step_of(state: Path) -> int:
    """Step of the saved state, 0 when there is none."""
    import json

    if not state.exists():
        return 0
    with safe_open(state, framework="pt") as file:
        return int(json.loads(file.metadata()["numbers"])["step"])


def kill_after(process: subprocess.Popen, state: Path, step: int) -> None:
    deadline = time.monotonic() + 600
    while step_of(state) < step:
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_kill_9_and_resume_gives_the_same_weights(toy, tmp_path: Path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    train_member(
        toy.table,
        toy.targets,
        held_out=toy.held_out,
        model=SMALL,
        training=TrainingSettings(**TRAINING),
        seed=3,
        path=whole,
    )
    state = killed.with_suffix(".state")
    for step in (7, 55):  # within the first epoch, and within the sixth
        kill_after(start(killed), state, step)
        assert not killed.exists()
    assert step_of(state) >= 55
    assert start(killed).wait(timeout=600) == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert not state.exists()


def test_the_state_of_another_training_is_not_taken_up(toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from opengnome.models.fitting import Fit

    monkeypatch.setattr(Fit, "finish", lambda self: None)  # keeps the state
    path = tmp_path / "m.safetensors"
    options = {"held_out": toy.held_out, "model": SMALL, "path": path}
    training = TrainingSettings(**TRAINING | {"epochs": 2})
    train_member(toy.table, toy.targets, training=training, seed=0, **options)
    first = path.read_bytes()
    lines: list[str] = []
    train_member(toy.table, toy.targets, training=training, seed=1, progress=lines.append, **options)
    assert not any("goes on" in line for line in lines)
    assert path.read_bytes() != first


def test_a_damaged_state_is_ignored(toy, tmp_path: Path):
    path = tmp_path / "m.safetensors"
    path.with_suffix(".state").write_bytes(b"nonsense")
    options = {"held_out": toy.held_out, "model": SMALL, "training": TrainingSettings(epochs=1), "seed": 0}
    train_member(toy.table, toy.targets, path=path, **options)
    clean = tmp_path / "clean.safetensors"
    train_member(toy.table, toy.targets, path=clean, **options)
    assert path.read_bytes() == clean.read_bytes()


def test_early_stop_keeps_the_best_weights(toy, tmp_path: Path):
    lines: list[str] = []
    training = TrainingSettings(epochs=60, batch_size=10, learning_rate=0.05, schedule="constant", patience=2)
    report = train_member(
        toy.table,
        toy.targets,
        held_out=toy.held_out,
        model=SMALL,
        training=training,
        seed=0,
        path=tmp_path / "m.safetensors",
        progress=lines.append,
    )
    assert len(lines) < 60
    reported = [float(line.split("held out ")[1].split(" ")[0]) for line in lines]
    assert report.held_out_mae is not None
    assert 1000 * report.held_out_mae == pytest.approx(min(reported), abs=0.1)
    assert int(np.argmin(reported)) == len(reported) - 3
