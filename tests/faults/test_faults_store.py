"""What happens to the folder of a campaign: kills at any moment, a full or read-only disk, a cut journal, the clock.

Whatever happened, the same command ends in the state of an undisturbed campaign, and no finished work is done again.
"""

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest

from faults.driving import TESTS, kill_group, wait_until
from faults.own_mount import CannotMountError, OwnMount
from faults.test_faults_campaign import DEADLINE_S, SETTINGS, comparable
from opengnome.campaign.journal import Journal

KILLS = int(os.environ.get("FAULT_KILLS", "50"))
AT_WORK_S = 5.0
"""Kills come up to this long after a driver has begun to work: workers start, train, screen, relax."""
FULL = re.compile("No space left on device|database or disk is full")
_launched: list[subprocess.Popen[str]] = []


def launch(*arguments: str | Path, inside: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The command line in a process group of its own; `inside` goes in front."""
    process = subprocess.Popen(
        [*inside, sys.executable, "-m", "opengnome", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _launched.append(process)
    return process


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what was said; a traceback is never that."""
    said, complaint = process.communicate(timeout=DEADLINE_S)
    assert "Traceback" not in complaint, complaint
    return process.returncode, said + complaint


def opengnome(*arguments: str | Path, inside: Sequence[str] = ()) -> tuple[int, str]:
    return ended(launch(*arguments, inside=inside))


@pytest.fixture(autouse=True)
def nothing_goes_on_after_a_test() -> Iterator[None]:
    yield
    while _launched:
        if (process := _launched.pop()).poll() is None:
            kill_group(process)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "settings.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Path:
    root = tmp_path_factory.mktemp("undisturbed") / "campaign"
    code, said = opengnome("discover", root, "--settings", settings, "--quiet")
    assert code == 0, said
    return root


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Path:
    """A campaign whose driver and workers were killed when the first round was closed and the second trained."""
    root = tmp_path_factory.mktemp("halfway") / "campaign"
    process = launch("discover", root, "--settings", settings, "--quiet")
    members = root / "rounds" / "02" / "members"
    wait_until(lambda: any(members.glob("*.starts")), timeout_s=DEADLINE_S, what="round 2", processes=[process])
    kill_group(process)
    assert len(done(root)) > 2, "nothing was finished before the kill: nothing would be tested"
    return root


@pytest.fixture
def root(tmp_path: Path, halfway: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(halfway, tmp_path / "campaign")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OwnMount]:
    try:
        disk = OwnMount(tmp_path / "disk")
    except (CannotMountError, FileNotFoundError) as reason:
        pytest.skip(str(reason))
    yield disk
    disk.close()


def done(root: Path) -> dict[Path, int]:
    """Finished work and when it was written: calculations, networks, shards."""
    patterns = ("calculations/[!.]*.parquet", "rounds/*/members/[!.]*.safetensors", "rounds/*/shards/[!.]*.parquet")
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in root.glob(pattern)}


def assert_kept(before: dict[Path, int]) -> None:
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written, f"{path} was written again"


def keys(root: Path) -> set[str]:
    """Of all events."""
    with Journal(root / "journal.sqlite", read_only=True) as journal:
        return {row.key for row in journal.rows()}


def assert_ends_as(undisturbed: Path, root: Path, before: dict[Path, int], disk: OwnMount | None = None) -> None:
    """The same command goes on to the end, and does nothing again that was done `before`."""
    for command in ("discover", "check"):
        code, said = opengnome(command, root, "--quiet", inside=disk.inside if disk else ())
        assert code == 0, said
    assert_kept(before)
    seen = root if disk is None else shutil.copytree(disk.outside / root.name, disk.folder.with_name("seen"))
    assert comparable(seen) == comparable(undisturbed)


def traces(root: Path) -> set[tuple[Path, int]]:
    """Of work: every file, also half done ones, and when it was written."""
    found = set()
    for path in root.glob("[cr]*/**/*"):  # calculations and rounds
        with suppress(FileNotFoundError):
            found.add((path, path.stat().st_mtime_ns))
    return found


def is_gone(group: int) -> bool:
    """Whether all processes of a group have ended."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def kill_at_random(root: Path, settings: Path, rng: random.Random, at_most: int) -> int:
    """Start and kill until the campaign ends, and not more than `at_most` times; how often it was killed."""
    for n_killed in range(at_most):
        before, finished = traces(root), done(root)
        process = launch("discover", root, "--settings", settings, "--quiet")
        wait_until(
            lambda p=process, b=before: traces(root) != b or p.poll() is not None, timeout_s=DEADLINE_S, what="work"
        )
        time.sleep(rng.uniform(0.0, AT_WORK_S))
        if process.poll() is not None:
            assert ended(process)[0] == 0
            return n_killed
        told = keys(root)
        if rng.random() < 0.5:  # the driver alone: its workers die with it
            process.kill()
            process.wait()
            wait_until(lambda p=process: is_gone(p.pid), timeout_s=60, what="the end of its workers")
        kill_group(process)
        assert_kept(finished)
        assert told <= keys(root), "an event that was written is lost"
    return at_most


def test_killed_at_random_moments_it_ends_in_the_same_state(undisturbed: Path, settings: Path, tmp_path: Path) -> None:
    rng = random.Random(20261130)
    left = KILLS
    while left:
        root = tmp_path / str(left)
        left -= kill_at_random(root, settings, rng, left)
        assert_ends_as(undisturbed, root, done(root))


@pytest.mark.parametrize("step_kb", [60, 150])
def test_a_full_disk_stops_it_and_with_more_room_it_goes_on(
    undisturbed: Path, settings: Path, disk: OwnMount, step_kb: int
) -> None:
    """The disk gets a bit more room each time, so that it is full at every stage, under all kinds of files."""
    here, there = disk.folder / "campaign", disk.outside / "campaign"
    n_stops, code = 0, None
    while code != 0:
        disk.remount(f"size={(n_stops + 1) * step_kb}k")
        finished = done(there)
        code, said = opengnome("discover", here, "--settings", settings, "--quiet", inside=disk.inside)
        assert_kept(finished)
        if code != 0:
            n_stops += 1
            assert FULL.search(said), said
            assert n_stops * step_kb < 10_000, "it does not end, however much room there is"
    assert n_stops > 4
    disk.remount("size=64m")
    assert_ends_as(undisturbed, here, done(there), disk)


def test_a_new_campaign_where_nothing_can_be_written_is_refused(disk: OwnMount, settings: Path) -> None:
    disk.remount("ro")
    here = disk.folder / "campaign"
    code, said = opengnome("discover", here, "--settings", settings, inside=disk.inside)
    assert code == 2, said
    assert f"cannot write to {here}: Read-only file system" in said
    assert not list(disk.outside.iterdir())


def test_a_campaign_on_a_read_only_disk_is_read_and_goes_on_later(
    undisturbed: Path, root: Path, disk: OwnMount
) -> None:
    here, there = disk.folder / "campaign", shutil.copytree(root, disk.outside / "campaign")
    finished = done(there)
    disk.remount("ro")
    for command, status in (("discover", 2), ("status", 0), ("check", 0)):
        code, said = opengnome(command, here, inside=disk.inside)
        assert code == status, said
        assert status == 0 or f"cannot write to {here}: Read-only file system" in said
    disk.remount("rw")
    assert_ends_as(undisturbed, here, finished, disk)


def test_a_disk_that_becomes_read_only_under_a_campaign_stops_it(undisturbed: Path, root: Path, disk: OwnMount) -> None:
    here, there = disk.folder / "campaign", shutil.copytree(root, disk.outside / "campaign")
    before = traces(there)
    process = launch("discover", here, "--quiet", inside=disk.inside)
    wait_until(lambda: traces(there) != before, timeout_s=DEADLINE_S, what="work", processes=[process])
    disk.bind()  # a file system with open files cannot be made read-only: only what is opened from now on
    disk.remount("bind,ro")
    code, said = ended(process)
    assert code in (1, 2), said
    assert "Read-only file system" in said
    finished = done(there)
    disk.remount("bind,rw")
    assert_ends_as(undisturbed, here, finished, disk)


CUTS: dict[str, Callable[[int], int]] = {
    "a byte": lambda size: size - 1,
    "1000 bytes": lambda size: size - 1000,
    "half": lambda size: size // 2,
    "all": lambda size: 0,
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_journal_is_told_and_mended(undisturbed: Path, root: Path, cut: str) -> None:
    finished, journal = done(root), root / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # else it is all in its log
    os.truncate(journal, CUTS[cut](journal.stat().st_size))
    code, said = opengnome("check", root, "--quiet")
    assert code == 1, said
    assert re.search("journal.sqlite: .*(damaged|cannot be read|is empty)", said)
    if cut != "all":  # with no event at all, nothing has to be mended
        code, said = opengnome("discover", root, "--quiet")
        assert code == 2, said
        assert "journal" in said
        code, said = opengnome("check", root, "--mend", "--quiet")
        assert code == 0, said
    assert_ends_as(undisturbed, root, finished)


@pytest.mark.parametrize("cut", ["half", "all"])
def test_a_journal_whose_log_is_cut_is_that_of_an_earlier_moment(undisturbed: Path, root: Path, cut: str) -> None:
    finished, log = done(root), root / "journal.sqlite-wal"
    os.truncate(log, CUTS[cut](log.stat().st_size))
    assert_ends_as(undisturbed, root, finished)


@pytest.mark.parametrize("days", [1, 3650])
def test_clock_set_back_all_files_lie_in_the_future(
    undisturbed: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    source, library, finished = TESTS / "faults" / "clock_set_back.c", tmp_path / "clock.so", done(root)
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    subprocess.run(["cc", "-shared", "-fPIC", f"-DBEHIND_S={days * 86400}L", "-o", library, source], check=True)
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(library))  # of workers, too
        assert_ends_as(undisturbed, root, finished)
    with Journal(root / "journal.sqlite", read_only=True) as journal:
        written = [moment for moment, _ in journal.dated()]
    assert (written[0] - written[-1]).days in (days - 1, days)


def test_of_two_processes_at_once_the_second_is_refused(undisturbed: Path, root: Path) -> None:
    finished, before = done(root), traces(root)
    first = launch("discover", root, "--quiet")
    wait_until(lambda: traces(root) != before, timeout_s=DEADLINE_S, what="work", processes=[first])
    for second in (["discover", root], ["check", root, "--mend"]):
        code, said = opengnome(*second, "--quiet")
        assert code == 2, said
        assert f"another process is running the campaign in {root}" in said
    code, said = ended(first)
    assert code == 0, said
    assert_ends_as(undisturbed, root, finished)
