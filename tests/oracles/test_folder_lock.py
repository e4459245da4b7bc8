"""One process at a time in a folder, also when the one before removes it."""

import shutil

from opengnome.oracles import folder_lock
from opengnome.oracles.folder_lock import locked


def test_a_second_one_is_told_and_a_later_one_gets_it(tmp_path):
    folder = tmp_path / "crystal"
    with locked(folder, setting="gpaw.folder") as first, locked(folder, setting="gpaw.folder") as second:
        assert (first, second) == (True, False)
    with locked(folder, setting="gpaw.folder") as third:
        assert third


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
