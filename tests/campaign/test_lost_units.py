"""Which unit is blamed when a pool breaks, and when the pool itself is: on an executor that breaks on demand."""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from opengnome.campaign.execution import Unit, run_units
from opengnome.errors import OpenGnomeError


class ProcessDiedError(Exception):
    """Raised by a unit that would have taken its process down."""


def write(path: Path) -> None:
    path.write_text("done")


def die(path: Path) -> None:
    raise ProcessDiedError


def die_twice(path: Path) -> None:
    deaths = path.with_suffix(".deaths")
    n = len(deaths.read_text()) if deaths.exists() else 0
    if n < 2:
        deaths.write_text("x" * (n + 1))
        raise ProcessDiedError
    write(path)


class OneWorker(Executor):
    """Runs units in this process, one at a time; broken for good once a unit has died, as a pool of processes is."""

    def __init__(self, *, stillborn: bool = False) -> None:
        self.broken = stillborn

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self.broken:
            raise BrokenExecutor
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except ProcessDiedError:
            self.broken = True
            future.set_exception(BrokenExecutor())
        return future


class Pools:
    """Makes executors, the numbered ones stillborn; more than twenty are taken for an endless loop."""

    def __init__(self, *stillborn: int) -> None:
        self.stillborn = stillborn
        self.n_made = 0

    def __call__(self) -> Executor:
        self.n_made += 1
        assert self.n_made <= 20, "new executors are made without end"
        return OneWorker(stillborn=self.n_made in self.stillborn)


def unit(folder: Path, name: str, function: Callable[..., None]) -> Unit:
    return Unit(folder / name, function, {"path": folder / name})


def outcome(units: list[Unit], pools: Pools, *, attempts: int) -> dict[str, bool]:
    """Whether each unit was lost, by name."""
    ended = list(run_units(units, pools, attempts=attempts))
    assert len(ended) == len(units)
    for each in ended:
        assert each.unit.path.exists() != bool(each.lost)
    return {each.unit.path.name: bool(each.lost) for each in ended}


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_only_the_deadly_units_are_given_up(tmp_path: Path, attempts: int) -> None:
    deadly = [unit(tmp_path, name, die) for name in ("x", "y")]
    harmless = [unit(tmp_path, name, write) for name in ("a", "b", "c")]
    pools = Pools()
    lost = outcome([harmless[0], deadly[0], harmless[1], deadly[1], harmless[2]], pools, attempts=attempts)
    assert lost == {"x": True, "y": True, "a": False, "b": False, "c": False}


@pytest.mark.parametrize(("attempts", "lost"), [(1, True), (2, True), (3, False)])
def test_a_unit_that_dies_twice_needs_three_attempts(tmp_path: Path, attempts: int, lost: bool) -> None:
    found = outcome([unit(tmp_path, "x", die_twice), unit(tmp_path, "a", write)], Pools(), attempts=attempts)
    assert found == {"x": lost, "a": False}


def test_workers_that_never_begin_stop_everything(tmp_path: Path) -> None:
    with pytest.raises(OpenGnomeError, match="before they began"):
        outcome([unit(tmp_path, "a", write)], Pools(*range(1, 21)), attempts=3)


def test_workers_that_stop_beginning_stop_everything_too(tmp_path: Path) -> None:
    units = [unit(tmp_path, "x", die), unit(tmp_path, "a", write)]
    with pytest.raises(OpenGnomeError, match="before they began"):
        outcome(units, Pools(*range(2, 21)), attempts=3)


def test_a_pool_that_fails_to_start_once_is_made_again(tmp_path: Path) -> None:
    pools = Pools(1, 3)
    units = [unit(tmp_path, "a", write), unit(tmp_path, "x", die), unit(tmp_path, "b", write)]
    assert outcome(units, pools, attempts=2) == {"a": False, "x": True, "b": False}
