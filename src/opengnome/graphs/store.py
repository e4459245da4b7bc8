"""Graphs of many crystals as flat arrays, in memory or memory-mapped from disk."""

import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from opengnome.crystals import CrystalTable
from opengnome.errors import CheckpointError, InvalidCrystalError
from opengnome.graphs.neighbours import MAX_NEIGHBOURS_PER_ATOM
from opengnome.graphs.orbit_batch import FIELDS, OrbitBatch, as_batch
from opengnome.graphs.orbits import EMPTY, OrbitGraph, orbit_graph

FORMAT_VERSION = 2
_MANIFEST = "graphs.json"
_ROWS_PER_CHUNK = 1024
_STILL_WRITTEN_S = 3600.0
"""A folder that is being written gets another file more often than this, seconds."""
_OF_EDGES = ("senders", "receivers", "distances", "counts")

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class GraphStore:
    """Symmetry-reduced graphs of n crystals laid one after another; `batch` picks any of them."""

    graphs: OrbitGraph
    """The arrays of all crystals; memory-mapped when opened from disk."""
    node_counts: np.ndarray
    """Orbits per crystal, shape (n,), int64."""
    edge_counts: np.ndarray
    """Edges per crystal, shape (n,), int64."""
    cutoff: float
    """A."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why a crystal, by row, has no graph; it has no nodes then."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_first_node", np.cumsum(self.node_counts) - self.node_counts)
        object.__setattr__(self, "_first_edge", np.cumsum(self.edge_counts) - self.edge_counts)

    def __len__(self) -> int:
        return len(self.node_counts)

    @property
    def sizes(self) -> np.ndarray:
        """What a crystal costs a network, shape (n,): edges, and a little for each node."""
        return self.edge_counts + 4 * self.node_counts

    @property
    def usable(self) -> np.ndarray:
        """Whether a crystal has a graph, shape (n,)."""
        return self.node_counts > 0

    def mean_neighbours(self, rows: np.ndarray) -> float:
        """Mean number of neighbours of an atom of the crystals at `rows`."""
        pairs, atoms = 0.0, 0.0
        for start in range(0, len(rows), _ROWS_PER_CHUNK):
            batch = self.batch(rows[start : start + _ROWS_PER_CHUNK])
            pairs += float((batch.counts * batch.multiplicities[batch.senders]).sum())
            atoms += float(batch.multiplicities.sum())
        return pairs / atoms

    def batch(self, rows: np.ndarray) -> OrbitBatch:
        """The crystals at `rows` (any order, repeats allowed) as tensors."""
        part = self.part(rows)
        return as_batch(part.graphs, part.node_counts, part.edge_counts)

    def part(self, rows: np.ndarray) -> "GraphStore":
        """A store of the crystals at `rows` only, in memory."""
        nodes = _members(self._first_node[rows], self.node_counts[rows])  # type: ignore[attr-defined]
        edges = _members(self._first_edge[rows], self.edge_counts[rows])  # type: ignore[attr-defined]
        picked = {name: getattr(self.graphs, name)[edges if name in _OF_EDGES else nodes] for name in FIELDS}
        return GraphStore(OrbitGraph(**picked), self.node_counts[rows], self.edge_counts[rows], self.cutoff)

    def save(self, directory: Path) -> None:
        """Write the arrays as .npy files; the folder appears whole or not at all.

        A whole store that is there already is kept: another process was quicker with the same crystals.
        """
        for old in directory.parent.glob(f".{directory.name}.*.tmp"):
            if time.time() - old.stat().st_mtime > _STILL_WRITTEN_S:  # of a process that was killed
                shutil.rmtree(old, ignore_errors=True)
        # No process number: that of one that was killed comes back, in a container or on another node.
        temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
        temporary.mkdir(parents=True)
        try:
            self._write(temporary)
        except BaseException:  # of a full disk, above all: what cannot be finished must not take the room that is left
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        try:
            temporary.rename(directory)
        except OSError:
            self._save_beside(temporary, directory)

    def _write(self, directory: Path) -> None:
        for name, values in self._arrays().items():
            np.save(directory / f"{name}.npy", values)
        manifest = {
            "format_version": FORMAT_VERSION,
            "cutoff": self.cutoff,
            "n_crystals": len(self),
            "reasons": {str(row): reason for row, reason in self.reasons.items()},
        }
        (directory / _MANIFEST).write_text(json.dumps(manifest) + "\n")

    @classmethod
    def _save_beside(cls, temporary: Path, directory: Path) -> None:
        """Settle a folder that is there already: a whole one stays, as others may be reading it."""
        try:
            cls.open(directory)
        except CheckpointError:
            damaged = temporary.with_suffix(".damaged")
            directory.rename(damaged)
            temporary.rename(directory)
            shutil.rmtree(damaged)
        else:
            shutil.rmtree(temporary)

    @classmethod
    def open(cls, directory: Path) -> "GraphStore":
        """Map the arrays of a saved store into memory; pages are read when they are used.

        Raises `CheckpointError` when the folder is not a store of this version.
        """
        try:
            manifest = json.loads((directory / _MANIFEST).read_text())
            if manifest["format_version"] != FORMAT_VERSION:
                raise CheckpointError(f"{directory} has graphs of another format; delete it, it is made again")
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in FIELDS}
            counts = [np.load(directory / f"{name}.npy") for name in ("node_counts", "edge_counts")]
            reasons = {int(row): str(reason) for row, reason in manifest["reasons"].items()}
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{directory} is not a folder of graphs ({error}); delete it") from None
        return cls(OrbitGraph(**arrays), counts[0], counts[1], float(manifest["cutoff"]), reasons)

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {name: getattr(self.graphs, name) for name in FIELDS}
        return arrays | {"node_counts": self.node_counts, "edge_counts": self.edge_counts}


def build_store(
    table: CrystalTable,
    *,
    cutoff: float,
    max_neighbours_per_atom: float = MAX_NEIGHBOURS_PER_ATOM,
    workers: int = 1,
    progress: Progress | None = None,
) -> GraphStore:
    """Graphs of all crystals of `table`, by `workers` processes.

    A crystal that has no graph (`orbit_graph`) does not stop the others: it has no nodes, and `reasons` says why.
    Raises `InvalidCrystalError` for an empty table.
    """
    if not len(table):
        raise InvalidCrystalError("a graph store needs at least one crystal, got none")
    starts = range(0, len(table), _ROWS_PER_CHUNK)
    # `take` copies the rows of a chunk; a slice would send the whole table to the worker
    chunks = (
        (table.take(np.arange(s, min(s + _ROWS_PER_CHUNK, len(table)))), cutoff, max_neighbours_per_atom)
        for s in starts
    )
    parts: list[GraphStore] = []
    for part in _mapped(chunks, workers):
        parts.append(part)
        if progress is not None:
            progress(f"graphs: {sum(map(len, parts))} of {len(table)} crystals")
    return joined(parts)


def joined(parts: Sequence[GraphStore]) -> GraphStore:
    """Stores of one cutoff, one after another."""
    arrays = {name: np.concatenate([getattr(part.graphs, name) for part in parts]) for name in FIELDS}
    starts = np.cumsum([0, *map(len, parts)]).tolist()
    return GraphStore(
        OrbitGraph(**arrays),
        np.concatenate([part.node_counts for part in parts]),
        np.concatenate([part.edge_counts for part in parts]),
        parts[0].cutoff,
        {start + row: why for start, part in zip(starts, parts, strict=False) for row, why in part.reasons.items()},
    )


def store_of(graphs: Sequence[OrbitGraph], cutoff: float, reasons: Mapping[int, str] | None = None) -> GraphStore:
    """A store of graphs that are already built."""
    arrays = {name: np.concatenate([getattr(graph, name) for graph in graphs]) for name in FIELDS}
    node_counts = np.array([graph.n_nodes for graph in graphs], dtype=np.int64)
    edge_counts = np.array([graph.n_edges for graph in graphs], dtype=np.int64)
    return GraphStore(OrbitGraph(**arrays), node_counts, edge_counts, cutoff, reasons or {})


_Chunk = tuple[CrystalTable, float, float]


def _mapped(chunks: Iterable[_Chunk], workers: int) -> Iterator[GraphStore]:
    if workers == 1:
        yield from map(_graphs_of_chunk, chunks)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_graphs_of_chunk, chunks)


def _graphs_of_chunk(chunk: _Chunk) -> GraphStore:
    table, cutoff, limit = chunk
    graphs: list[OrbitGraph] = []
    reasons: dict[int, str] = {}
    for row in range(len(table)):
        try:
            graphs.append(orbit_graph(table[row], cutoff=cutoff, max_neighbours_per_atom=limit))
        except InvalidCrystalError as error:
            graphs.append(EMPTY)
            reasons[row] = str(error)
    return store_of(graphs, cutoff, reasons)


def _members(first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Indices of the items of groups that begin at `first` and hold `counts` items."""
    before = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) + np.repeat(first - before, counts)
