"""The file that makes a folder of checkpoints an ensemble."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opengnome.errors import CheckpointError
from opengnome.models.calibration import Calibration
from opengnome.models.checkpoint import read_bytes, read_json

FORMAT_VERSION = 2
MANIFEST = "ensemble.json"


def read_manifest(directory: Path, kind: str | None = None) -> dict[str, Any]:
    """Content of the manifest.

    Raises `CheckpointError` when it is missing, damaged, of another version, or of another kind of ensemble than
    `kind` (`structural` or `compositional`).
    """
    manifest = read_json(directory / MANIFEST)
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{directory / MANIFEST} has format {manifest.get('format_version')!r}; this version reads "
            f"format {FORMAT_VERSION}; assemble the ensemble again"
        )
    if kind is not None and manifest.get("kind") != kind:
        raise CheckpointError(f"{directory} is a {manifest.get('kind')} ensemble, asked for is a {kind} one")
    return manifest


def member_paths(directory: Path) -> list[Path]:
    """Checkpoints of the members of an ensemble, in order; raises as `read_manifest`."""
    try:
        return [directory / name for name in read_manifest(directory)["members"]]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{directory / MANIFEST} is damaged: {error} is missing") from None


def ensemble_digest(paths: Sequence[Path], calibration: Calibration) -> str:
    """SHA-256 over the members' weights and the calibration: the name of an ensemble."""
    content = hashlib.sha256()
    for path in paths:
        content.update(hashlib.sha256(read_bytes(path)).digest())
    content.update(repr(calibration).encode())
    return content.hexdigest()
