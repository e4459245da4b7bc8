"""What units may not do: hang, eat memory, run on another version, be charged for a lost block, outlast a stop."""

import errno
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opengnome.campaign import limits, work
from opengnome.campaign.execution import (
    BlockLostError,
    BlocksFailError,
    EngineDiedError,
    Rules,
    Unit,
    local_executor,
    run_units,
)
from opengnome.campaign.execution_settings import ExecutionSettings
from opengnome.campaign.executors import Crew, rules_of
from opengnome.campaign.limits import Limits, code_identity, hang_note, how_it_died, is_out_of_memory, killed_when_hung
from opengnome.campaign.local_workers import WorkerDiedError
from opengnome.campaign.stopping import EXIT_STOPPED, StoppedError, StopRequest, stopping
from opengnome.errors import SettingsError, WorkFailedError
from opengnome.oracles import OracleSettings, Status, read_calculation
from opengnome.settings import validate
from report.synthetic_campaign import grid_crystal


def write(path: Path) -> None:
    path.write_text("done")


def crash(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path: Path) -> None:
    with killed_when_hung(path, timeout_s=0.2):
        re.match(r"(a+)+$", "a" * 64 + "b")  # years, with the lock of the interpreter held


def hog(path: Path) -> None:
    hoard = []
    while True:
        hoard.append(bytearray(64 * 2**20))


def unit(folder: Path, function: Callable[..., None], name: str = "") -> Unit:
    path = folder / (name or function.__name__)
    return Unit(path, function, {"path": path})


class Scripted(Executor):
    """Runs units in this process, after it has thrown what is scripted for their next starts."""

    def __init__(
        self,
        script: Sequence[BaseException | None],
        *,
        begin: bool = True,
        before: Callable[[int], object] = lambda n: None,
    ) -> None:
        """`before` is called with the number of each start."""
        self.script, self.begin, self.before = list(script), begin, before
        self.n_submitted = 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.n_submitted += 1
        self.before(self.n_submitted)
        future: Future[Any] = Future()
        error = self.script.pop(0) if self.script else None
        if error is None:
            future.set_result(function(*args, **kwargs))
            return future
        if self.begin:
            path = args[0].path
            with path.with_name(path.name + ".starts").open("ab") as mark:
                mark.write(b".")
        future.set_exception(error)
        return future


def test_what_crashes_hangs_or_eats_memory_is_told_and_the_others_end(tmp_path: Path) -> None:
    rules = Rules(attempts=1, limits=Limits(memory_gb=2.0, hang_factor=1.0, hang_grace_s=0.2))
    good = [unit(tmp_path, write, f"good-{i}") for i in range(3)]
    bad = [unit(tmp_path, function) for function in (hang, hog, crash)]
    ended = {e.unit.path.name: e.lost for e in run_units([*good, *bad], lambda: local_executor(2), rules=rules)}
    assert [ended[f"good-{i}"] for i in range(3)] == ["", "", ""]
    assert re.match(r"hung: killed after .* in File .*test_execution_limits.py.* in hang|hung: .*re/__", ended["hang"])
    assert ended["hog"].startswith("out of memory: ")
    assert "died 1 times; the last time its process was ended by SIGSEGV" in ended["crash"]
    assert not list(tmp_path.glob("*.hung"))


def test_a_lost_block_is_not_charged_to_its_unit(tmp_path: Path) -> None:
    pool = Scripted([BlockLostError("walltime")] * 5)
    (ended,) = run_units([unit(tmp_path, write)], lambda: pool, rules=Rules(attempts=1, interruptions=5))
    assert not ended.lost
    assert pool.n_submitted == 6


def test_blocks_are_not_lost_for_ever(tmp_path: Path) -> None:
    pool = Scripted([BlockLostError("walltime")] * 99)
    (ended,) = run_units([unit(tmp_path, write)], lambda: pool, rules=Rules(interruptions=5))
    assert ended.lost == "the block that ran it was lost 6 times"


def test_a_unit_that_advances_in_each_block_is_not_given_up(tmp_path: Path) -> None:
    log = tmp_path / "write.log"
    pool = Scripted([BlockLostError("walltime")] * 9, before=lambda n: log.write_text(f"{n} of 9\n"))
    (ended,) = run_units([replace(unit(tmp_path, write), log=log)], lambda: pool, rules=Rules(interruptions=3))
    assert not ended.lost
    stuck = Scripted([BlockLostError("walltime")] * 9)
    units = [replace(unit(tmp_path, write, "stuck"), log=log)]
    (ended,) = run_units(units, lambda: stuck, rules=Rules(interruptions=3))
    assert ended.lost == "the block that ran it was lost 4 times"


def test_deaths_before_a_unit_advanced_are_not_counted(tmp_path: Path) -> None:
    """As a search goes on behind the crystal that killed its worker."""
    log = tmp_path / "write.log"
    two_at_each = Scripted([WorkerDiedError("killed")] * 6, before=lambda n: log.write_text(f"{n // 2} of 9\n"))
    (ended,) = run_units([replace(unit(tmp_path, write), log=log)], lambda: two_at_each, rules=Rules(attempts=3))
    assert not ended.lost
    stuck = Scripted([WorkerDiedError("killed")] * 6)
    (ended,) = run_units([replace(unit(tmp_path, write, "stuck"), log=log)], lambda: stuck, rules=Rules(attempts=3))
    assert "died 3 times" in ended.lost


def test_blocks_that_never_work_stop_everything_at_once(tmp_path: Path) -> None:
    pool = Scripted([BlocksFailError("module: command not found")] * 9, begin=False)
    with pytest.raises(WorkFailedError, match="no block of workers stays alive: module: command not found"):
        list(run_units([unit(tmp_path, write)], lambda: pool))
    assert pool.n_submitted == 1


def test_an_executor_that_breaks_after_work_began_is_made_again(tmp_path: Path) -> None:
    pools = [Scripted([BrokenExecutor("the interchange has died")]), Scripted([])]
    (ended,) = run_units([unit(tmp_path, write)], lambda: pools.pop(0))
    assert not ended.lost


def test_the_end_of_the_engine_is_charged_to_no_unit(tmp_path: Path) -> None:
    """Neither to one that was under way, nor, ever, to one that had not begun."""
    rules = Rules(attempts=1, interruptions=1, window=1)
    pools = [Scripted([EngineDiedError("the interchange has died")]), Scripted([])]
    (ended,) = run_units([unit(tmp_path, write, "begun")], lambda: pools.pop(0), rules=rules)
    assert not ended.lost
    pools = [Scripted([EngineDiedError("no interchange")], begin=False) for _ in range(2)] + [Scripted([])]
    (ended,) = run_units([unit(tmp_path, write, "waiting")], lambda: pools.pop(0), rules=rules)
    assert not ended.lost


def test_a_full_disk_under_a_worker_is_told_with_the_remedy(tmp_path: Path) -> None:
    pool = Scripted([OSError(errno.ENOSPC, "No space left on device")])
    with pytest.raises(WorkFailedError, match=r"cannot write .*write: .*No space left.* make room there"):
        list(run_units([unit(tmp_path, write)], lambda: pool))


def test_a_worker_that_serves_another_campaign_has_its_limits(tmp_path: Path) -> None:
    """In a process of its own: limits are those of a process."""
    with local_executor(1) as pool:
        assert pool.submit(limit_after, Limits(memory_gb=4.0)).result() == 4 * 2**30
        assert pool.submit(limit_after, Limits()).result() == resource.RLIM_INFINITY


def limit_after(limits_of_unit: Limits) -> int:
    limits.apply(limits_of_unit)
    return resource.getrlimit(resource.RLIMIT_DATA)[0]


def test_memory_that_is_too_small_is_no_fault_of_the_program(tmp_path: Path) -> None:
    pool = Scripted([MemoryError("no 4 GiB")])
    (ended,) = run_units([unit(tmp_path, write)], lambda: pool)
    assert ended.lost == "out of memory: no 4 GiB"


def test_a_worker_of_another_version_stops_everything(tmp_path: Path) -> None:
    rules = Rules(limits=Limits(code="0.0.1+000000000000"))
    with pytest.raises(WorkFailedError, match=r"driver 0\.0\.1\+0.*two versions must not mix"):
        list(run_units([unit(tmp_path, write)], lambda: ThreadPoolExecutor(1), rules=rules))
    assert not (tmp_path / "write").exists()
    same = Rules(limits=Limits(code=code_identity()))
    (ended,) = run_units([unit(tmp_path, write)], lambda: ThreadPoolExecutor(1), rules=same)
    assert not ended.lost


def test_asked_to_stop_what_waits_for_a_worker_is_not_begun(tmp_path: Path) -> None:
    stop = StopRequest(grace_s=20.0)

    def ask_and_write(path: Path) -> None:
        stop.by = "SIGTERM"
        time.sleep(1.5)  # the driver looks once a second
        write(path)

    units = [unit(tmp_path, ask_and_write, "running"), *(unit(tmp_path, write, f"next-{i}") for i in range(9))]
    ended = []
    with pytest.raises(StoppedError):
        ended += run_units(units, lambda: ThreadPoolExecutor(1), rules=Rules(window=10), stop=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["running"]


def test_asked_to_stop_a_worker_that_dies_is_not_to_blame(tmp_path: Path) -> None:
    """The signal that asked the driver may have ended its workers."""
    stop = StopRequest(grace_s=0.0)
    died = WorkerDiedError("ended by SIGTERM")
    pool = Scripted([died] * 9, before=lambda n: setattr(stop, "by", "SIGTERM"))
    ended = []
    with pytest.raises(StoppedError):
        ended += run_units([unit(tmp_path, write)], lambda: pool, rules=Rules(attempts=1), stop=stop)
    assert not ended


def test_asked_to_stop_nothing_more_is_submitted_and_what_runs_may_end(tmp_path: Path) -> None:
    begun, asked = threading.Event(), threading.Event()
    stop = StopRequest(grace_s=20.0)

    def wait_for_it(path: Path) -> None:
        begun.set()
        asked.wait()
        write(path)

    def ask() -> None:
        begun.wait()
        stop.by = "SIGTERM"
        asked.set()

    asking = threading.Thread(target=ask)
    asking.start()
    units = [unit(tmp_path, wait_for_it, "running"), *(unit(tmp_path, write, f"next-{i}") for i in range(9))]
    run = run_units(units, lambda: ThreadPoolExecutor(1), rules=Rules(window=1), stop=stop)
    ended = [next(run)]
    with pytest.raises(StoppedError, match=r"stopped by SIGTERM.*the same command goes on"):
        ended += run
    asking.join()
    assert [e.unit.path.name for e in ended] == ["running"]
    assert not (tmp_path / "next-0").exists()
    assert StoppedError.exit_code == EXIT_STOPPED == 75


def test_signals_are_noted_and_the_second_is_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping(StopRequest()) as request:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):  # another thread may be the one that the signal reaches
            if request.by:
                break
            time.sleep(0.01)
        assert request.by == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10.0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_calculation_that_hung_is_recorded_and_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "key.parquet"
    path.with_name("key.parquet.hung").write_text(
        'Timeout (0:20:10)!\nThread 0x1 (most recent call first):\n  File "a.py", line 1 in wait\n'
        'Thread 0x2 (most recent call first):\n  File "scf.py", line 7 in iterate\n  File "b.py", line 2 in main\n'
    )
    settings = OracleSettings.model_validate({"name": "ase", "calculator": "ase.calculators.emt:EMT"})
    work.calculate(path=path, crystal=grid_crystal("NaCl"), settings=settings)
    calculation = read_calculation(path)
    assert calculation.status is Status.FAILED
    assert calculation.reason == 'hung: killed after 0:20:10 h in File "scf.py", line 7 in iterate'
    assert hang_note(path) == ""


def test_the_watchdog_waits_for_the_limit_of_the_calculation(tmp_path: Path) -> None:
    assert Limits(hang_factor=2.0, hang_grace_s=600.0).seconds_to_hang(86400.0) == 2 * 86400 + 600
    with killed_when_hung(tmp_path / "x", timeout_s=1.0):
        assert hang_note(tmp_path / "x") == "", "it runs"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), killed_when_hung(tmp_path / "x", timeout_s=1.0):
        raise ZeroDivisionError
    assert limits.hang_note(tmp_path / "x") == ""


def test_deaths_and_shortages_in_words() -> None:
    assert how_it_died(-9) == "by SIGKILL (memory ran out?)"
    assert how_it_died(3) == "with exit code 3"
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"engine": "dask"}, "dask.scheduler or dask.scheduler_file"),
        ({"engine": "dask", "dask": {"scheduler": "tcp://a:1", "scheduler_file": "f"}}, "either scheduler"),
        ({"parsl": {"where": "hosts"}}, 'needs hosts = \\["name"'),
        ({"parsl": {"hosts": ["a"]}}, 'hosts are used with where = "hosts"'),
        ({"parsl": {"walltime": "2 days"}}, "HH:MM:SS"),
        (
            {"parsl": {"where": "slurm", "nodes_per_block": 3, "nodes_per_calculation": 2}},
            "a multiple",
        ),
        ({"parsl": {"nodes_per_block": 2, "nodes_per_calculation": 2}}, "batch queue"),
        ({"parsl": {"max_blocks": 2, "init_blocks": 3}}, "must not be above max_blocks"),
        ({"parsl": {"address": "a", "interface": "ib0"}}, "address or interface, not both"),
        ({"parsl": {"partiton": "main"}}, "did you mean 'partition'"),
        ({"memory_gb": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(given: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        validate(ExecutionSettings, given)


def test_the_window_keeps_every_worker_busy() -> None:
    queue = {"where": "slurm", "nodes_per_block": 4, "cores_per_node": 64, "max_blocks": 10}
    given = {"engine": "parsl", "cores_per_calculation": 8, "parsl": queue}
    rules = rules_of(ExecutionSettings.model_validate(given))
    assert rules.window == 2 * 10 * 4 * (64 // 8)
    assert rules.limits.code == code_identity()
    shared = {"engine": "parsl", "parsl": queue | {"nodes_per_calculation": 2}}
    assert rules_of(ExecutionSettings.model_validate(shared)).window == 64, "20 calculations at once"
    local = rules_of(ExecutionSettings(workers=200))  # their package, too, may have been changed since the driver began
    assert (local.window, local.limits.code) == (400, code_identity())


def write_pid(path: Path) -> None:
    path.write_text(str(os.getpid()))


def test_local_workers_stay_from_stage_to_stage(tmp_path: Path) -> None:
    """They load what they need once; one that died is replaced, and none outlives the crew."""
    with Crew(ExecutionSettings(workers=1), tmp_path) as crew:
        for stage in ("a", "b"):
            list(run_units([unit(tmp_path, write_pid, stage)], crew))
        pid = int((tmp_path / "a").read_text())
        assert int((tmp_path / "b").read_text()) == pid
        os.kill(pid, signal.SIGKILL)
        list(run_units([unit(tmp_path, write_pid, "c")], crew))
        last = int((tmp_path / "c").read_text())
        assert last != pid
    assert not Path(f"/proc/{last}").exists()


def test_a_crew_keeps_distributed_workers_from_stage_to_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def connect(crew: Crew) -> Executor:
        made.append(ThreadPoolExecutor(1))
        return made[-1]

    monkeypatch.setattr(Crew, "_connect", connect)
    settings = ExecutionSettings.model_validate({"engine": "parsl"})
    with Crew(settings, tmp_path) as crew:
        for stage in ("a", "b"):
            (ended,) = run_units([unit(tmp_path, write, stage)], crew)
            assert not ended.lost
        assert len(made) == 1
        crew().shutdown(cancel_futures=True)  # as after an error
        list(run_units([unit(tmp_path, write, "c")], crew))
        assert len(made) == 2
    with pytest.raises(RuntimeError, match="after shutdown"):
        made[-1].submit(print)
