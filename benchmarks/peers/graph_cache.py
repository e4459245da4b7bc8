"""Crystals of the table, and their graphs in one folder on disk: built once, read at random, never all in memory."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch

Graph = dict[str, np.ndarray]
"""One crystal as named arrays; a field has the same dtype and the same trailing shape in every graph."""

TARGET = "formation_energy_per_atom"
SPLIT = "megnet_split"


class Crystal(NamedTuple):
    lattice: np.ndarray  # (3, 3) rows, Angstrom
    frac_coords: np.ndarray  # (n, 3)
    atomic_numbers: np.ndarray  # (n,)


@dataclass(frozen=True)
class Split:
    """Training crystals first, then validation crystals."""

    crystals: list[Crystal]
    targets: np.ndarray  # eV/atom
    n_train: int

    @property
    def train(self) -> np.ndarray:
        return np.arange(self.n_train)

    @property
    def validation(self) -> np.ndarray:
        return np.arange(self.n_train, len(self.targets))


def read_split(path: Path, limit: int | None) -> Split:
    """Both parts of the split, or a random `limit` of the first and a tenth as many of the second."""
    columns = ["lattice", "frac_coords", "atomic_numbers", SPLIT, TARGET]
    table = pq.read_table(path, columns=columns)
    names = np.array(table[SPLIT].to_pylist(), dtype=object)
    rows = [np.flatnonzero(names == name) for name in ("train", "val")]
    if limit is not None:
        rng = np.random.default_rng(0)
        rows = [np.sort(rng.permutation(part)[:n]) for part, n in zip(rows, (limit, max(limit // 10, 64)))]
    table = table.take(np.concatenate(rows))
    columns = (table[name].to_pylist() for name in columns[:3])
    crystals = [
        Crystal(np.array(lattice).reshape(3, 3), np.array(frac, dtype=float).reshape(-1, 3), np.array(numbers))
        for lattice, frac, numbers in zip(*columns)
    ]
    return Split(crystals, table[TARGET].to_numpy().astype(np.float64), len(rows[0]))


class GraphCache:
    """The graphs in `folder`: one flat file per field and an index of where each graph starts."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self.build: dict[str, float] = index["build"]
        self._fields = []
        for name, (dtype, shape) in index["fields"].items():
            file = os.open(folder / f"{name}.bin", os.O_RDONLY)
            offsets = np.load(folder / f"{name}.offsets.npy")
            self._fields.append((name, np.dtype(dtype), tuple(shape), file, offsets))

    def __getitem__(self, i: int) -> Graph:
        graph = {}
        for name, dtype, shape, file, offsets in self._fields:
            start, stop = offsets[i : i + 2].tolist()
            graph[name] = np.frombuffer(os.pread(file, stop - start, start), dtype).reshape(-1, *shape)
        return graph


def open_cache(
    folder: Path, crystals: Sequence[Crystal], prepare: Callable[[Crystal], Graph], *, workers: int
) -> GraphCache:
    """The cache in `folder`, built first where it is missing."""
    if not (folder / "index.json").exists():
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        start = time.perf_counter()
        with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            fields = _write(partial, pool.map(prepare, crystals, chunksize=32))
        build = {"seconds": time.perf_counter() - start, "workers": workers, "crystals": len(crystals)}
        (partial / "index.json").write_text(json.dumps({"fields": fields, "build": build}))
        partial.rename(folder)
    return GraphCache(folder)


def _write(folder: Path, graphs: Iterable[Graph]) -> dict[str, tuple[str, tuple[int, ...]]]:
    fields: dict[str, tuple[str, tuple[int, ...]]] = {}
    lengths: dict[str, list[int]] = {}
    files = {}
    with ExitStack() as stack:
        for graph in graphs:
            for name, array in graph.items():
                described = (array.dtype.str, array.shape[1:])
                if name not in fields:
                    fields[name] = described
                    lengths[name] = [0]
                    files[name] = stack.enter_context((folder / f"{name}.bin").open("wb"))
                if fields[name] != described:
                    raise ValueError(f"{name}: {described} after {fields[name]}")
                files[name].write(np.ascontiguousarray(array).tobytes())
                lengths[name].append(array.nbytes)
    for name, sizes in lengths.items():
        np.save(folder / f"{name}.offsets.npy", np.cumsum(sizes))
    return fields


def joined(graphs: Sequence[Graph], name: str) -> torch.Tensor:
    """One field of all graphs, one after the other."""
    return torch.from_numpy(np.concatenate([graph[name] for graph in graphs]))


def counts(graphs: Sequence[Graph], name: str) -> torch.Tensor:
    """Length of one field in each graph."""
    return torch.tensor([len(graph[name]) for graph in graphs])


def joined_indices(graphs: Sequence[Graph], name: str, sizes: torch.Tensor) -> torch.Tensor:
    """`joined`, int64, shifted by the sum of the `sizes` of the graphs before (n_graphs,)."""
    shifts = torch.repeat_interleave(sizes.cumsum(0) - sizes, counts(graphs, name))
    indices = joined(graphs, name).long()
    return indices + shifts.view(-1, *[1] * (indices.ndim - 1))
