"""Crystals of several files and folders as one list of rows."""

from collections.abc import Sequence
from pathlib import Path

from opengnome.crystals.io import ReadRow, read_crystals


def read_all(paths: Sequence[Path]) -> list[ReadRow]:
    """All rows of all paths, with ids made unique by the file they came from."""
    rows: list[ReadRow] = []
    taken: set[str] = set()
    for path in paths:
        for row in read_crystals(path):
            identifier = row.id
            n = 2
            while identifier in taken:
                identifier, n = f"{row.id}-{n}", n + 1
            taken.add(identifier)
            rows.append(ReadRow(identifier, row.crystal, row.reason))
    return rows
