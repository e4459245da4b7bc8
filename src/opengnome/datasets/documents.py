"""JSON files of many documents, as lists of dictionaries."""

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opengnome.errors import SettingsError


def read_json(path: Path) -> Any:
    """What a JSON file holds (``.json``, ``.jsonl``: the list of its lines; gzipped or not, by its first bytes).

    NaN and Infinity, which Python and pymatgen write, are read. Raises `SettingsError` when the file is
    missing or is not JSON.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            return [json.loads(line) for line in content.splitlines() if line.strip()]
        return json.loads(content)
    except OSError as error:
        raise SettingsError(
            f"there is no file {path}" if not path.exists() else f"{path} cannot be read: {error}"
        ) from error
    except (ValueError, EOFError, zlib.error) as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error


def read_documents(path: Path, *, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The documents of a JSON file: its list, or the list that its object has under one of `keys`.

    Raises `SettingsError` when there is no such list of objects.
    """
    return documents_of(read_json(path), keys=keys, name=str(path))


def documents_of(content: Any, *, keys: Sequence[str], name: str) -> list[dict[str, Any]]:
    """The documents in a list, or in an object under one of `keys`. Raises `SettingsError` when there are none."""
    if isinstance(content, dict):
        content = next((content[key] for key in keys if isinstance(content.get(key), list)), content)
    if not isinstance(content, list):
        raise SettingsError(f"{name} holds no list of documents, nor an object with one under {' or '.join(keys)}")
    if not content:
        raise SettingsError(f"{name} holds an empty list; there must be at least one document")
    strange = [item for item in content if not isinstance(item, dict)]
    if strange:
        raise SettingsError(f"{name} holds {type(strange[0]).__name__} {str(strange[0])[:40]!r} among its documents")
    return content
