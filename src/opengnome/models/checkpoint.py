"""Checkpoints: weights as safetensors, everything else in a JSON file of the same name beside them.

Nothing is ever unpickled. Both files are written to a temporary name and renamed, the weights
last, so a new checkpoint whose weights exist is complete.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from opengnome.crystals import CrystalTable
from opengnome.crystals.replacement import replace_file
from opengnome.errors import CheckpointError
from opengnome.models.structural import Constants, ModelSettings, StructuralModel

FORMAT_VERSION = 1
TARGET_NAME = "formation_energy_per_atom"
_KIND = "opengnome structural model"


def save_checkpoint(path: Path, model: StructuralModel, *, card: Mapping[str, Any]) -> None:
    """Write `model` to `path` (.safetensors) and `card` with the settings and units beside it (.json)."""
    constants = model.constants
    content = {
        "format_version": FORMAT_VERSION,
        "kind": _KIND,
        "target": {"name": TARGET_NAME, "unit": "eV/atom"},
        "settings": model.settings.model_dump(mode="json"),
        "constants": {
            "mean_neighbours": constants.mean_neighbours,
            "shift": constants.shift,
            "scale": constants.scale,
        },
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        **card,
    }
    write_json(card_path(path), content)
    # last: whoever sees the weights finds the card, also after a kill between the two
    write_bytes(path, save({k: v.contiguous() for k, v in model.state_dict().items()}))


def load_checkpoint(path: Path) -> tuple[StructuralModel, dict[str, Any]]:
    """The model in evaluation mode and its card.

    Raises `CheckpointError` when a file is missing or damaged, or the format is not version 1.
    """
    card = read_json(card_path(path))
    if card.get("format_version") != FORMAT_VERSION or card.get("kind") != _KIND:
        raise CheckpointError(
            f"{card_path(path)} is {card.get('kind')!r} of format {card.get('format_version')!r}; this "
            f"version reads {_KIND!r} of format {FORMAT_VERSION}; train again"
        )
    try:
        settings = ModelSettings.model_validate(card["settings"])
        constants = Constants(**card["constants"])
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{card_path(path)} is damaged: {error}") from error
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        model = StructuralModel(settings, constants)
    try:
        model.load_state_dict(load(read_bytes(path)))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights its card describes: {error}") from error
    return model.eval(), card


def data_digest(table: CrystalTable, targets: np.ndarray) -> str:
    """SHA-256 of the ids and targets of a training table: the name of the data."""
    content = hashlib.sha256()
    for identifier in table.ids:
        content.update(identifier.encode() + b"\0")
    content.update(np.ascontiguousarray(targets, dtype="<f8").tobytes())
    return content.hexdigest()


def card_path(path: Path) -> Path:
    """The JSON file beside a checkpoint."""
    return path.with_suffix(".json")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; raises `CheckpointError` when there is none."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got a {type(content).__name__}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object so that a reader sees all of it or the old file."""
    write_bytes(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def read_bytes(path: Path) -> bytes:
    """Content of a file; raises `CheckpointError` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint file {path}: {error.strerror}") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    replace_file(path, lambda temporary: temporary.write_bytes(content))
