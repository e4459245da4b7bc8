"""Shards that took their worker down: made of their parents one by one, without those that do so again."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from opengnome.campaign.execution import Ended, Unit
from opengnome.campaign.learning import refuse_lost
from opengnome.campaign.shards import PARENTS_PREFIX, concatenate_shards
from opengnome.crystals.io import read_table

LOST = "took its worker down"
"""Count of the parents that are left out."""


def run_shards(
    units: Sequence[Unit],
    run: Callable[[str, Sequence[Unit]], Iterator[Ended]],
    *,
    stage: str,
    parents_path: Path,
    tell: Callable[[str], None],
) -> Iterator[Path]:
    """Run units whose arguments `start` and `stop` are rows of the table `parents_path`; the file of each as it ends.

    `run` runs units under the name of a stage. One that is given up is made of its parents one by one; those that take
    a worker down again are left out and counted, and `tell` hears of each. Raises `WorkFailedError` when the fault is
    not the parents': when a shard without any parent is lost too, or all of several.
    """
    lost: list[Ended] = []
    for ended in run(stage, units):
        if ended.lost:
            lost.append(ended)
        else:
            shutil.rmtree(_folder(ended.unit.path), ignore_errors=True)  # of a run that was killed in `_isolate`
            yield ended.unit.path
    for ended in lost:
        _isolate(ended, lambda parts: run(f"{stage}, one parent at a time", parts), parents_path, tell)
        yield ended.unit.path


def _isolate(
    lost: Ended, run: Callable[[Sequence[Unit]], Iterator[Ended]], parents_path: Path, tell: Callable[[str], None]
) -> None:
    shard = lost.unit
    rows = range(shard.arguments["start"], shard.arguments["stop"])
    without = _part(shard, "none", rows.start, rows.start)
    alone = {(unit := _part(shard, f"{row:09d}", row, row + 1)).path: (row, unit) for row in rows}
    units = [without, *(unit for _, unit in alone.values())]
    why = {ended.unit.path: ended.lost for ended in run(units) if ended.lost}
    if without.path in why or (len(why) == len(rows) > 1):
        refuse_lost(lost)
    ids = read_table(parents_path).ids
    for path, reason in sorted(why.items()):
        tell(f"the parent {ids[alone[path][0]]} is left out: {reason}")
    left_out = {f"{PARENTS_PREFIX}{name}": len(why) for name in ("parents", LOST) if why}
    concatenate_shards(shard.path, [unit.path for unit in units if unit.path not in why], left_out)
    shutil.rmtree(_folder(shard.path))


def _folder(shard: Path) -> Path:
    """Of what a shard is made of when its parents are taken one by one."""
    return shard.with_suffix(".parents")


def _part(shard: Unit, name: str, start: int, stop: int) -> Unit:
    path = _folder(shard.path) / f"{name}.parquet"
    return Unit(path, shard.function, {**shard.arguments, "path": path, "start": start, "stop": stop})
