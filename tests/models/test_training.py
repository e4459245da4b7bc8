"""Training: it learns, it is reproducible, it refuses what it cannot use."""

from pathlib import Path

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, CrystalTable, concatenate
from opengnome.errors import CheckpointError, SettingsError
from opengnome.models import StructuralSettings, TrainingSettings, train_member
from opengnome.models.checkpoint import card_path, data_digest, load_checkpoint, read_json
from opengnome.models.schedule import learning_rate

SMALL = StructuralSettings(width=16, edge_width=16, layers=2, cutoff=4.0)
SHORT = TrainingSettings(epochs=2, batch_size=25)


def train(toy, path: Path, **changes):
    options = {"model": SMALL, "training": SHORT, "seed": 0} | changes
    return train_member(toy.table, toy.targets, held_out=toy.held_out, path=path, **options)


def test_training_learns(toy, tmp_path: Path):
    lines: list[str] = []
    training = TrainingSettings(epochs=25, batch_size=10, learning_rate=5e-3)
    report = train(toy, tmp_path / "m.safetensors", training=training, progress=lines.append)
    scatter = np.abs(toy.targets[toy.held_out] - np.median(toy.targets[~toy.held_out])).mean()
    assert report.held_out_mae is not None
    assert report.held_out_mae < 0.2 * scatter
    assert report.train_mae < 0.2 * scatter
    assert (report.n_train, report.n_held_out) == (100, 50)
    assert len(lines) == 25
    assert lines[0].startswith("epoch 1/25: train ")
    assert "crystals/s" in lines[0]


def test_reported_error_is_that_of_the_saved_model(toy, tmp_path: Path):
    from opengnome.graphs import build_store

    path = tmp_path / "m.safetensors"
    report = train(toy, path)
    model, card = load_checkpoint(path)
    with torch.inference_mode():
        predicted = model(build_store(toy.table.filter(toy.held_out), cutoff=4.0).batch(np.arange(50))).numpy()
    assert report.held_out_mae == pytest.approx(np.abs(predicted - toy.targets[toy.held_out]).mean(), abs=1e-6)
    assert card["metrics"]["held_out_mae"] == report.held_out_mae
    assert card["target"] == {"name": "formation_energy_per_atom", "unit": "eV/atom"}
    assert card["data_digest"] == data_digest(toy.table.ids, toy.targets)
    assert card["seed"] == 0


def test_same_seed_same_weights_other_seed_other_weights(toy, tmp_path: Path):
    paths = [tmp_path / f"{name}.safetensors" for name in "abc"]
    torch.manual_seed(123)
    state = torch.get_rng_state()
    train(toy, paths[0])
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not touched
    torch.manual_seed(5)
    train(toy, paths[1])
    train(toy, paths[2], seed=1)
    contents = [path.read_bytes() for path in paths]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert read_json(card_path(paths[0])) == read_json(card_path(paths[1]))


def test_held_out_targets_do_not_reach_the_weights(toy, tmp_path: Path):
    train(toy, tmp_path / "a.safetensors")
    changed = np.where(toy.held_out, 99.0, toy.targets)
    train_member(
        toy.table,
        changed,
        held_out=toy.held_out,
        model=SMALL,
        training=SHORT,
        seed=0,
        path=tmp_path / "b.safetensors",
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_constants_come_from_the_training_crystals(toy, tmp_path: Path):
    train(toy, tmp_path / "m.safetensors")
    constants = load_checkpoint(tmp_path / "m.safetensors")[0].constants
    used = toy.targets[~toy.held_out]
    assert constants.shift == pytest.approx(used.mean(), rel=1e-6)
    assert constants.scale == pytest.approx(used.std(), rel=1e-6)
    # CsCl type within 4 A: 8 neighbours in the first shell, 6 in the second when the edge is shorter
    edges = toy.table.lattices[~toy.held_out, 0, 0]
    expected = np.mean(np.where(edges < 4.0, 14.0, 8.0))
    assert constants.mean_neighbours == pytest.approx(expected, rel=1e-6)


def test_fine_tuning_starts_from_the_checkpoint(toy, tmp_path: Path):
    first = tmp_path / "a.safetensors"
    train(toy, first, training=TrainingSettings(epochs=10, batch_size=10, learning_rate=5e-3))
    start = load_checkpoint(first)[0]
    still = TrainingSettings(epochs=1, batch_size=50, learning_rate=1e-12)
    train(toy, tmp_path / "b.safetensors", training=still, seed=7, initial=first)
    after = load_checkpoint(tmp_path / "b.safetensors")[0]
    for a, b in zip(start.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    assert after.constants == start.constants
    with pytest.raises(SettingsError, match="other model settings"):
        train(toy, tmp_path / "c.safetensors", model=StructuralSettings(width=8), initial=first)


def test_without_held_out_crystals(toy, tmp_path: Path):
    report = train_member(
        toy.table,
        toy.targets,
        held_out=np.zeros(len(toy.table), dtype=bool),
        model=SMALL,
        training=SHORT,
        seed=0,
        path=tmp_path / "m.safetensors",
    )
    assert report.held_out_mae is None


@pytest.mark.parametrize("loss", ["l1", "huber", "mse"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_every_loss_and_precision_trains(toy, tmp_path: Path, loss: str, bfloat16: bool):
    training = TrainingSettings(epochs=6, batch_size=10, learning_rate=5e-3, loss=loss, bfloat16=bfloat16)
    report = train(toy, tmp_path / "m.safetensors", training=training)
    assert report.held_out_mae is not None
    assert report.held_out_mae < 0.8 * np.abs(toy.targets - toy.targets.mean()).mean()


def test_what_cannot_be_trained_on_is_refused(toy, tmp_path: Path):
    options = {"model": SMALL, "training": SHORT, "seed": 0, "path": tmp_path / "m.safetensors"}
    with pytest.raises(SettingsError, match="one per crystal"):
        train_member(toy.table, toy.targets[1:], held_out=toy.held_out, **options)
    with pytest.raises(SettingsError, match="nothing to train on"):
        train_member(toy.table, toy.targets, held_out=np.ones(len(toy.table), dtype=bool), **options)
    targets = toy.targets.copy()
    targets[3] = np.nan
    with pytest.raises(SettingsError, match="'3' is not finite"):
        train_member(toy.table, targets, held_out=toy.held_out, **options)
    with pytest.raises(CheckpointError, match="cannot read"):
        train(toy, tmp_path / "m.safetensors", initial=tmp_path / "none.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_divergence_is_reported(toy, tmp_path: Path):
    training = TrainingSettings(epochs=50, batch_size=10, learning_rate=1e30)
    with pytest.raises(SettingsError, match="diverged"):
        train(toy, tmp_path / "m.safetensors", training=training)


def test_learning_rate_schedules():
    linear = TrainingSettings(schedule="linear", learning_rate=1.0)
    np.testing.assert_allclose([learning_rate(s, 10, linear) for s in (0, 5, 10)], [1.0, 0.5, 0.0])
    cycle = TrainingSettings(schedule="one_cycle", learning_rate=1.0, warm_up=0.1)
    rates = [learning_rate(s, 100, cycle) for s in range(100)]
    assert np.argmax(rates) in (9, 10)
    assert max(rates) == pytest.approx(1.0)
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] < 1e-3
    assert np.isfinite([learning_rate(0, 1, cycle), learning_rate(1, 2, cycle)]).all()


def test_a_crystal_without_a_graph_is_left_out_and_named(toy, tmp_path: Path):
    dense = Crystal(0.5 * np.eye(3), np.zeros((1, 3)), np.array([1]))
    table = concatenate([toy.table, CrystalTable.from_crystals([dense], ["dense"])])
    targets, held_out = np.append(toy.targets, 0.0), np.append(toy.held_out, False)
    lines: list[str] = []
    options = {"held_out": held_out, "model": SMALL, "training": SHORT, "seed": 0}
    report = train_member(table, targets, path=tmp_path / "with.safetensors", progress=lines.append, **options)
    assert report.n_train == 100
    assert any("dense has no graph: too dense" in line for line in lines)
    train(toy, tmp_path / "without.safetensors")
    assert (tmp_path / "with.safetensors").read_bytes() == (tmp_path / "without.safetensors").read_bytes()
