"""`opengnome generate`: the same candidates from any number of workers, and after a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from opengnome.campaign import candidates
from opengnome.campaign.candidates import composition_rows, generate_candidates, generate_random
from opengnome.campaign.progress import Progress
from opengnome.campaign.shards import COUNT_PREFIX
from opengnome.crystals import CrystalTable, supercell
from opengnome.crystals.io import read_crystals, write_table
from opengnome.generation import CompositionSettings, GenerationSettings, RandomStructureSettings

MARK = 1_000_000
SETTINGS = GenerationSettings(max_substitutions_per_parent=20, max_partial_per_parent=20)


@pytest.fixture(scope="module")
def parents(rock_salt, perovskite, tmp_path_factory) -> Path:
    """Parents enough for five shards, some of them the same crystal, so that shards repeat each other."""
    cells = [rock_salt, perovskite, supercell(rock_salt, (2, 1, 1)), supercell(perovskite, (1, 1, 2))]
    path = tmp_path_factory.mktemp("parents") / "parents.parquet"
    n = 4 * candidates.PARENTS_PER_SHARD + 1
    write_table(path, CrystalTable.from_crystals([cells[i % 4] for i in range(n)], [f"p{i}" for i in range(n)]))
    return path


def generated(parents: Path, output: Path, workers: int):
    return generate_candidates(
        [parents], output, known=None, seed=3, settings=SETTINGS, workers=workers, progress=Progress(quiet=True)
    )


@pytest.fixture(scope="module")
def expected(parents, tmp_path_factory):
    output = tmp_path_factory.mktemp("one") / "out.parquet"
    counts, failed = generated(parents, output, 1)
    assert not failed
    return pq.read_table(output), counts


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_changes_nothing(parents, expected, tmp_path, workers):
    counts = generated(parents, tmp_path / "out.parquet", workers)[0]
    assert pq.read_table(tmp_path / "out.parquet").equals(expected[0])
    assert counts == expected[1]


def test_candidates_are_written_once_and_all_are_counted(expected):
    table, counts = expected
    assert len(set(table["id"].to_pylist())) == table.num_rows == counts["kept"] > 100
    assert counts["duplicate"] > 10 * counts["kept"]
    assert counts["proposed"] == sum(n for name, n in counts.items() if name != "proposed")


@pytest.mark.slow
def test_killed_it_goes_on(parents, expected, tmp_path):
    """Killed after the first shard, the same command computes the others only."""
    output, shards = tmp_path / "out.parquet", tmp_path / "out.parquet.shards"
    command = [sys.executable, "-m", "opengnome", "generate", str(parents), "-o", str(output), "--seed", "3", "-j", "1"]
    command += ["--set", "max_substitutions_per_parent=20", "--set", "max_partial_per_parent=20"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (first := list(shards.glob("000000000-*.parquet"))):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    _mark(first[0])
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert pq.read_table(output).equals(expected[0])
    assert f"volume per atom out of range: {expected[1]['volume per atom out of range'] + MARK}" in ended.stdout
    assert not shards.exists()


def _mark(shard: Path) -> None:
    """Make the counts of a finished shard wrong: they reach the end only if it is not computed again."""
    table = pq.read_table(shard)
    key = f"{COUNT_PREFIX}volume per atom out of range".encode()
    metadata = dict(table.schema.metadata)
    metadata[key] = str(int(metadata[key]) + MARK).encode()
    pq.write_table(table.replace_schema_metadata(metadata), shard)


def test_random_crystals_of_formulas(tmp_path):
    counts = generate_random(
        ["NaCl", "TiO2"], tmp_path / "starts.extxyz", number=3, seed=1, settings=RandomStructureSettings(max_atoms=8)
    )
    assert counts == {"NaCl": 3, "TiO2": 3}
    rows = read_crystals(tmp_path / "starts.extxyz")
    assert [row.crystal.reduced_formula for row in rows] == ["NaCl"] * 3 + ["TiO2"] * 3


def test_formulas_of_a_system_are_new_and_ranked(parents):
    rows = composition_rows(
        ["Na-Cl", "Li-Si"], known=parents, model=None, seed=0, settings=CompositionSettings(max_atoms=19)
    )
    formulas = [row["reduced_formula"] for row in rows]
    assert "Li15Si4" in formulas
    assert "NaCl" not in formulas  # a parent
    energies = [row["formation_energy_per_atom"] for row in rows]
    assert energies == sorted(energies)
