"""The trained ensembles that come with the package."""

from importlib import resources
from pathlib import Path

from opengnome.errors import CheckpointError

SHIPPED = "shipped"
"""Stands for the shipped ensemble where a folder is asked for."""
_DATA = "opengnome.models.data"


def shipped_ensemble(kind: str = "structural") -> Path:
    """Folder of the shipped ensemble of a kind, `structural` or `compositional`.

    Raises `CheckpointError` when this installation has none.
    """
    folder = Path(str(resources.files(_DATA))) / kind
    if not (folder / "ensemble.json").is_file():
        raise CheckpointError(f"this installation has no shipped {kind} ensemble; train one with `opengnome train`")
    return folder
