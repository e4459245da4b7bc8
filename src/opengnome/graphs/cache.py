"""Graphs kept on disk, named by the crystals they belong to."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from opengnome.crystals import CrystalTable
from opengnome.errors import CheckpointError
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM
from opengnome.graphs.store import FORMAT_VERSION, GraphStore, build_store


def cached_store(
    table: CrystalTable,
    folder: Path,
    *,
    cutoff: float,
    max_neighbours_per_atom: float = MAX_NEIGHBOURS_PER_ATOM,
    workers: int = 1,
    progress: Callable[[str], None] | None = None,
) -> GraphStore:
    """Graphs of `table` within `cutoff` A, memory-mapped from a subfolder of `folder`; built when not there.

    The subfolder is named by the content of the table, so a changed table never finds old graphs; a damaged one
    is built again. Memory needed afterwards is what a batch needs, however large the table.
    """
    directory = folder / f"graphs-{_digest(table, cutoff, max_neighbours_per_atom)}"
    try:
        return GraphStore.open(directory)
    except CheckpointError:
        pass
    store = build_store(
        table, cutoff=cutoff, max_neighbours_per_atom=max_neighbours_per_atom, workers=workers, progress=progress
    )
    store.save(directory)
    return GraphStore.open(directory)


def _digest(table: CrystalTable, cutoff: float, limit: float) -> str:
    content = hashlib.sha256(f"{FORMAT_VERSION}\n{cutoff!r}\n{limit!r}\n".encode())
    for values in (table.n_atoms, table.lattices, table.flat_atomic_numbers, table.flat_frac_coords):
        content.update(np.ascontiguousarray(values).tobytes())
    return content.hexdigest()[:20]
