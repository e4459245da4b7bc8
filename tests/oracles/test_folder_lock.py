"""One process at a time in a folder, also when the one before removes it."""

import errno
import multiprocessing
import os
import shutil
import threading
import time

import pytest

from opengnome.errors import OracleSetupError
from opengnome.oracles import folder_lock
from opengnome.oracles.folder_lock import locked


def test_a_second_one_is_told_and_a_later_one_gets_it(tmp_path):
    folder = tmp_path / "crystal"
    with locked(folder, setting="gpaw.folder") as first, locked(folder, setting="gpaw.folder") as second:
        assert (first, second) == (True, False)
    with locked(folder, setting="gpaw.folder") as third:
        assert third


def test_a_second_one_waits_and_sees_what_the_first_left(tmp_path):
    folder = tmp_path / "crystal"
    release = threading.Event()
    found = []

    def second():
        release.set()
        with locked(folder, setting="gpaw.folder", wait_s=30.0) as is_ours:
            found.append((is_ours, (folder / "result").exists()))

    with locked(folder, setting="gpaw.folder"):
        thread = threading.Thread(target=second)
        thread.start()
        assert release.wait(10.0)
        time.sleep(0.1)
        assert found == []
        (folder / "result").touch()
    thread.join(10.0)
    assert found == [(True, True)]


def test_a_wait_has_an_end(tmp_path):
    folder = tmp_path / "crystal"
    with locked(folder, setting="gpaw.folder"):
        begun = time.monotonic()
        with locked(folder, setting="gpaw.folder", wait_s=0.2) as is_ours:
            assert not is_ours
        assert 0.2 <= time.monotonic() - begun < 5.0


def _hold(folder, is_held):
    with locked(folder, setting="gpaw.folder"):
        is_held.set()
        time.sleep(60.0)


def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    is_held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "crystal", is_held))
    holder.start()
    try:
        assert is_held.wait(30.0)
        with locked(tmp_path / "crystal", setting="gpaw.folder") as is_ours:
            assert not is_ours
        holder.kill()
        with locked(tmp_path / "crystal", setting="gpaw.folder", wait_s=30.0) as is_ours:
            assert is_ours
    finally:
        holder.kill()
        holder.join()


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(OracleSetupError, match=r"cannot write to .*file.*; set gpaw\.folder"),
        locked(tmp_path / "file" / "crystal", setting="gpaw.folder"),
    ):
        pass


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def no_lock(_lock, _operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder_lock.fcntl, "flock", no_lock)
    with (
        pytest.raises(
            OracleSetupError, match=r"crystal gives no locks \(No locks available\).*set vasp\.folder to a pla"
        ),
        locked(tmp_path / "crystal", setting="vasp.folder"),
    ):
        pass


def test_a_lock_on_a_removed_folder_is_taken_anew(tmp_path, monkeypatch):
    """The holder before removes the folder after this one opened its lock file."""
    folder = tmp_path / "crystal"
    flock, calls = folder_lock.fcntl.flock, []

    def late(lock, operation):
        if not calls:
            shutil.rmtree(folder)
        calls.append(operation)
        flock(lock, operation)

    monkeypatch.setattr(folder_lock.fcntl, "flock", late)
    with locked(folder, setting="gpaw.folder") as is_ours:
        assert is_ours
        assert (folder / "lock").exists()
    assert len(calls) == 2
