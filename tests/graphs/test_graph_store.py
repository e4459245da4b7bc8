"""Stores of graphs: the same batches from memory, from disk and from several processes."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, CrystalTable
from opengnome.errors import CheckpointError, InvalidCrystalError
from opengnome.graphs import GraphStore, OrbitBatch, batch_of, build_store, cached_store, orbit_graph

CUTOFF = 4.5
NAMES = ("atomic_numbers", "multiplicities", "graph_of_node", "senders", "receivers", "distances", "counts")


@pytest.fixture
def table(rock_salt: Crystal, perovskite: Crystal) -> CrystalTable:
    lonely = Crystal(20.0 * np.eye(3), np.zeros((1, 3)), np.array([2]))
    return CrystalTable.from_crystals([rock_salt, lonely, perovskite, rock_salt])


def assert_same(a: OrbitBatch, b: OrbitBatch) -> None:
    assert a.n_graphs == b.n_graphs
    for name in NAMES:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.mark.parametrize("rows", [[0], [1], [2, 0], [3, 1, 2, 0], [2, 2]])
def test_batch_picks_rows_in_any_order(table: CrystalTable, rows: list[int]):
    expected = batch_of([orbit_graph(table[row], cutoff=CUTOFF) for row in rows])
    assert_same(build_store(table, cutoff=CUTOFF).batch(np.array(rows)), expected)


def test_processes_do_not_change_the_graphs(table: CrystalTable):
    rows = np.arange(4)
    assert_same(build_store(table, cutoff=CUTOFF, workers=2).batch(rows), build_store(table, cutoff=CUTOFF).batch(rows))


def test_store_on_disk_is_memory_mapped(table: CrystalTable, tmp_path: Path):
    store = cached_store(table, tmp_path, cutoff=CUTOFF)
    assert isinstance(store.graphs.distances, np.memmap)
    assert_same(store.batch(np.array([2, 0])), build_store(table, cutoff=CUTOFF).batch(np.array([2, 0])))
    folder = next(tmp_path.iterdir())
    before = (folder / "distances.npy").stat().st_mtime_ns
    cached_store(table, tmp_path, cutoff=CUTOFF)
    assert (folder / "distances.npy").stat().st_mtime_ns == before  # found, not built again
    cached_store(table, tmp_path, cutoff=4.0)
    cached_store(table.slice(0, 2), tmp_path, cutoff=CUTOFF)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_store_is_built_again(table: CrystalTable, tmp_path: Path):
    cached_store(table, tmp_path, cutoff=CUTOFF)
    folder = next(tmp_path.iterdir())
    (folder / "senders.npy").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="delete it"):
        GraphStore.open(folder)
    assert len(cached_store(table, tmp_path, cutoff=CUTOFF)) == 4


def test_a_store_that_others_read_is_not_replaced(table: CrystalTable, tmp_path: Path):
    """Two processes that build the same graphs at once: the second must not pull the folder from under the first."""
    folder = tmp_path / "graphs"
    build_store(table, cutoff=CUTOFF).save(folder)
    inode = folder.stat().st_ino
    build_store(table, cutoff=CUTOFF).save(folder)
    assert folder.stat().st_ino == inode
    assert list(tmp_path.iterdir()) == [folder]


def test_mean_neighbours(rock_salt: Crystal):
    store = build_store(CrystalTable.from_crystals([rock_salt]), cutoff=3.0)
    assert store.mean_neighbours(np.array([0])) == pytest.approx(6.0)


def test_a_crystal_without_a_graph_does_not_stop_the_others(rock_salt: Crystal, tmp_path: Path):
    dense = Crystal(0.5 * np.eye(3), np.zeros((1, 3)), np.array([1]))
    table = CrystalTable.from_crystals([rock_salt, dense, rock_salt], ["good", "bad", "same"])
    for store in (build_store(table, cutoff=CUTOFF), cached_store(table, tmp_path, cutoff=CUTOFF)):
        assert store.usable.tolist() == [True, False, True]
        assert list(store.reasons) == [1]
        assert "too dense" in store.reasons[1]
        assert_same(store.batch(np.array([2])), store.batch(np.array([0])))


def test_an_empty_table_is_refused(table: CrystalTable):
    with pytest.raises(InvalidCrystalError, match="at least one"):
        build_store(table.slice(0, 0), cutoff=CUTOFF)


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(table: CrystalTable, tmp_path: Path):
    store, directory = build_store(table, cutoff=4.0), tmp_path / "graphs"
    old, young = tmp_path / ".graphs.0123.tmp", tmp_path / ".graphs.4567.tmp"
    for folder in (old, young):
        folder.mkdir()
        (folder / "senders.npy").write_bytes(b"half")
    os.utime(old, (0, 0))
    store.save(directory)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".graphs.4567.tmp", "graphs"]
    assert len(GraphStore.open(directory)) == len(table)


@pytest.mark.parametrize("name", ["distances.npy", "node_counts.npy", "graphs.json"])
def test_a_file_that_a_crash_has_emptied_is_damage(table: CrystalTable, tmp_path: Path, name: str):
    cached_store(table, tmp_path, cutoff=CUTOFF)
    (folder,) = tmp_path.glob("graphs-*")
    (folder / name).write_bytes(b"")
    assert len(cached_store(table, tmp_path, cutoff=CUTOFF)) == len(table)


def test_what_a_full_disk_cut_short_leaves_nothing_behind(
    table: CrystalTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each try would take of the room that was made for it."""
    saved: list[Path] = []

    def save(path: Path, values: np.ndarray) -> None:
        saved.append(path)
        if len(saved) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        path.write_bytes(values.tobytes())

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(OSError, match="No space left"):
        build_store(table, cutoff=CUTOFF).save(tmp_path / "graphs")
    assert len(saved) == 3
    assert not list(tmp_path.iterdir())
