"""Checkpoints: weights as safetensors, everything else in a JSON file of the same name beside them.

Nothing is ever unpickled. Both files are written to a temporary name and renamed, the weights
last, so a new checkpoint whose weights exist is complete.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from opengnome.crystals.replacement import replace_file
from opengnome.errors import CheckpointError
from opengnome.models.constants import Constants
from opengnome.models.energy_network import EnergyNetwork
from opengnome.models.network import AnyNetworkSettings, NetworkSettings, make_network

FORMAT_VERSION = 2
TARGET_NAME = "formation_energy_per_atom"
_KIND = "opengnome energy network"
_SETTINGS: TypeAdapter[AnyNetworkSettings] = TypeAdapter(NetworkSettings)


def save_checkpoint(
    path: Path, model: EnergyNetwork, *, card: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write `model` to `path` (.safetensors) and `card` with the settings and units beside it (.json).

    `dtype` is that of the numbers in the file; a network read back computes in float32 whatever it is.
    """
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
    write_bytes(path, save({k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}))


def load_checkpoint(path: Path) -> tuple[EnergyNetwork, dict[str, Any]]:
    """The model in evaluation mode and its card.

    Raises `CheckpointError` when a file is missing or damaged, or the format is another version.
    """
    card = read_json(card_path(path))
    if card.get("format_version") != FORMAT_VERSION or card.get("kind") != _KIND:
        raise CheckpointError(
            f"{card_path(path)} is {card.get('kind')!r} of format {card.get('format_version')!r}; this "
            f"version reads {_KIND!r} of format {FORMAT_VERSION}; train again"
        )
    try:
        settings = _SETTINGS.validate_python(card["settings"])
        constants = Constants(**card["constants"])
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(f"{card_path(path)} is damaged: {error}") from error
    with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
        model = make_network(settings, constants)
    try:
        model.load_state_dict(load(read_bytes(path)))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold the weights its card describes: {error}") from error
    return model.eval(), card


def copy_checkpoint(source: Path, target: Path) -> None:
    """Copy weights and card; raises `CheckpointError` when it cannot be done."""
    if source.resolve() == target.resolve():
        return
    try:
        for original, copy in ((card_path(source), card_path(target)), (source, target)):
            replace_file(copy, partial(shutil.copyfile, original))
    except OSError as error:
        raise CheckpointError(f"cannot copy the member {source}: {error.strerror}") from None


def data_digest(ids: Sequence[str], targets: np.ndarray) -> str:
    """SHA-256 of the ids and targets of training data: the name of the data."""
    content = hashlib.sha256()
    for identifier in ids:
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
