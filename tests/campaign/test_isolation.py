"""Shards whose worker dies: the parent to blame is found and left out, the others are screened."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from opengnome.campaign import work
from opengnome.campaign.execution import Ended, Rules, Unit, local_executor, run_units
from opengnome.campaign.isolation import run_shards
from opengnome.campaign.shards import shard_counts
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import read_table, write_table
from opengnome.errors import WorkFailedError
from opengnome.generation import GenerationSettings
from report.synthetic_campaign import grid_crystal

FORMULAS = ("NaCl", "KCl", "PbO", "CaO", "MgO")
POISON = "PbO"


def generate_unless_poisoned(*, start: int, stop: int, parents_path: Path, poison: str, path: Path) -> None:
    """A shard, or the death of the worker where one of its parents is called `poison`."""
    if poison in read_table(parents_path).ids[start:stop] or (poison == "all" and stop > start):
        os.kill(os.getpid(), signal.SIGKILL)
    work.generate_shard(
        path=path,
        parents_path=parents_path,
        start=start,
        stop=stop,
        formulas_path=parents_path.with_name("formulas.txt"),
        formulas_digest="none",
        generation=GenerationSettings(max_substitutions_per_parent=3, max_partial_per_parent=2),
        seed=0,
    )


def run(_stage: str, units: Sequence[Unit]) -> Iterator[Ended]:
    return run_units(units, lambda: local_executor(1), rules=Rules(attempts=1))


def shards(folder: Path, poison: str) -> list[Unit]:
    write_table(folder / "parents.parquet", CrystalTable.from_crystals([grid_crystal(f) for f in FORMULAS], FORMULAS))
    (folder / "formulas.txt").write_text("")
    return [
        Unit(
            path := folder / f"{start}.parquet",
            generate_unless_poisoned,
            {
                "path": path,
                "parents_path": folder / "parents.parquet",
                "start": start,
                "stop": min(start + 3, len(FORMULAS)),
                "poison": poison,
            },
        )
        for start in (0, 3)
    ]


def run_all(folder: Path, poison: str, told: list[str]) -> list[Path]:
    units = shards(folder, poison)
    parents = folder / "parents.parquet"
    return list(run_shards(units, run, stage="screening", parents_path=parents, tell=told.append))


def test_the_parent_that_kills_its_worker_is_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "poisoned").mkdir()
    (tmp_path / "whole").mkdir()
    told: list[str] = []
    poisoned = run_all(tmp_path / "poisoned", POISON, told)
    whole = run_all(tmp_path / "whole", "none", told)
    assert [path.name for path in poisoned] == ["3.parquet", "0.parquet"], "what is well is there first"
    (line,) = told
    assert line.startswith("the parent PbO is left out: its process died 1 times; the last time")
    counts, all_counts = (shard_counts(folder / "0.parquet") for folder in (poisoned[0].parent, whole[0].parent))
    assert counts["parents: took its worker down"] == 1
    assert counts["parents: parents"] == all_counts["parents: parents"] == 3
    made, all_made = (read_table(folder / "0.parquet") for folder in (poisoned[0].parent, whole[0].parent))
    of_others = [i for i, p in zip(all_made.ids, all_made.column("parent_ids"), strict=True) if POISON not in p]
    assert set(made.ids) == set(of_others)
    assert not list(tmp_path.glob("*/*.parents")), "the parts are gone"


def test_what_takes_every_parent_down_is_no_fault_of_a_parent(tmp_path: Path) -> None:
    with pytest.raises(WorkFailedError, match=r"SIGKILL.*machine with more memory; the same command goes on"):
        run_all(tmp_path, "all", [])
