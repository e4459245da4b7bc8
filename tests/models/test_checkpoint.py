"""Checkpoints survive a round trip, and damaged ones are refused with a reason."""

import json
from pathlib import Path

import pytest
import torch

from opengnome.crystals import Crystal
from opengnome.errors import CheckpointError
from opengnome.graphs import batch_of, orbit_graph
from opengnome.models.checkpoint import card_path, load_checkpoint, save_checkpoint
from opengnome.models.constants import Constants
from opengnome.models.paper import PaperNetwork, PaperSettings


@pytest.fixture
def saved(tmp_path: Path) -> tuple[PaperNetwork, Path]:
    settings = PaperSettings(embedding=8, mlp_widths=(12, 6), steps=2, residual=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = PaperNetwork(settings, Constants(13.5, -1.25, 0.75))
    path = tmp_path / "folder" / "member.safetensors"
    save_checkpoint(path, model, card={"seed": 4})
    return model, path


def test_round_trip(saved: tuple[PaperNetwork, Path], rock_salt: Crystal):
    model, path = saved
    state = torch.get_rng_state()
    read, card = load_checkpoint(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert read.settings == model.settings
    assert read.constants == model.constants
    assert not read.training
    graphs = batch_of([orbit_graph(rock_salt, cutoff=4.0)])
    with torch.inference_mode():
        assert torch.equal(read(graphs), model(graphs))
    assert card["seed"] == 4
    assert card["format_version"] == 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["member.json", "member.safetensors"]


@pytest.mark.parametrize("missing", ["member.json", "member.safetensors"])
def test_missing_file(saved: tuple[PaperNetwork, Path], missing: str):
    (saved[1].parent / missing).unlink()
    with pytest.raises(CheckpointError, match=f"cannot read the checkpoint file .*{missing}"):
        load_checkpoint(saved[1])


def test_truncated_weights(saved: tuple[PaperNetwork, Path]):
    saved[1].write_bytes(saved[1].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_checkpoint(saved[1])


def test_pickled_weights_are_not_opened(saved: tuple[PaperNetwork, Path]):
    torch.save(saved[0].state_dict(), saved[1])
    with pytest.raises(CheckpointError, match="does not hold the weights"):
        load_checkpoint(saved[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 1}, "format 1"),
        ({"kind": "something else"}, "something else"),
        ({"settings": {"configuration": "paper", "embedding": 8, "colour": 1}}, "damaged"),
        ({"settings": {"configuration": "paper", "embedding": 16}}, "does not hold the weights"),
        ({"constants": {"shift": 1.0}}, "damaged"),
    ],
)
def test_changed_card(saved: tuple[PaperNetwork, Path], change: dict, message: str):
    card = card_path(saved[1])
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved[1])


@pytest.mark.parametrize("text", ["{", "[1, 2]"])
def test_card_that_is_no_object(saved: tuple[PaperNetwork, Path], text: str):
    card_path(saved[1]).write_text(text)
    with pytest.raises(CheckpointError, match="JSON"):
        load_checkpoint(saved[1])
