"""Engines that end when the program that started them ends, even by ``kill -9``.

A killed program cannot end what it has started: VASP or pw.x would go on, hold its cores, and write into a folder
that a restarted program works in. So each is started by this file, which stays beside it as the leader of a process
group and ends the group when its own parent is gone. What is left in spite of that (the tether was killed too) is
found by the note in its folder.

This file is run by its path, not imported: it must need nothing but the standard library.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

PROCESS_FILE = "process.json"
"""Who runs the engine in a folder: left behind when the program is killed."""
CANNOT_START = "the engine cannot be started: "
"""Begins the line that the tether writes to its error stream, with exit code 127, when there is no such program."""

_NO_SPACE = ("no space left on device", "disk quota exceeded")
"""What the system calls a full disk (ENOSPC, EDQUOT), in lower case; the Fortran and MPI runtimes repeat its words."""
_LOOK_S = 0.5
"""Seconds between two looks whether the parent is alive."""
_GONE_S = 10.0
"""Seconds that a killed process may take to be gone."""


def tethered(command: Sequence[str], *, patience_s: float = 10.0) -> list[str]:
    """The command line that starts `command` so that it ends with this process.

    When this process is gone, the command is asked to end (SIGTERM), and killed `patience_s` seconds later. Start
    the line with ``start_new_session=True``. Its exit code is that of `command`, or 128 plus the number of the signal
    that ended it.
    """
    file = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", file, str(os.getpid()), str(patience_s), *command]


def note_process(folder: Path, pid: int) -> None:
    """Write down that the process group `pid` of this machine works in `folder`."""
    started = _started(pid)
    if started is not None:  # else it has ended already
        note = {"host": socket.gethostname(), "pid": pid, "started": started}
        (folder / PROCESS_FILE).write_text(json.dumps(note))


def end_orphan(folder: Path) -> None:
    """End what a killed program has left running in `folder`, if it is on this machine.

    That is the process group of the note. Where only its leader, the tether, is gone: whatever of its session still
    has `folder` as its working directory (looked up in /proc, so on Linux only).
    """
    try:
        note = json.loads((folder / PROCESS_FILE).read_text())
        pid, is_here = int(note["pid"]), note["host"] == socket.gethostname()
        # process ids are used again: only the process that started when ours did is ours
        is_ours = is_here and _started(pid) == note["started"]
    except (OSError, ValueError, KeyError, TypeError):
        is_here = is_ours = False
    if is_ours:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _wait_until(lambda: _started(pid) != note["started"])
    if is_here:
        for left in _of_session(pid, folder):
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
        _wait_until(lambda: not _of_session(pid, folder))
    (folder / PROCESS_FILE).unlink(missing_ok=True)


def no_space(*logs: Path) -> str:
    """The line in which an engine, or what it is built on, says that there was no space to write to; else empty."""
    for log in logs:
        with suppress(OSError):
            for line in log.read_text(errors="replace").splitlines():
                if any(said in line.lower() for said in _NO_SPACE):
                    return line.strip(" |")[:200]
    return ""


def _of_session(session: int, folder: Path) -> list[int]:
    """The processes of a session that run in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX" and (entry / "cwd").samefile(folder):
                found.append(int(entry.name))
    return found


def _wait_until(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _GONE_S
    while not is_done() and time.monotonic() < deadline:
        time.sleep(0.02)


def _started(pid: int) -> str | None:
    """When a process was started, in words of the system; None when it has ended."""
    with suppress(OSError, IndexError):
        # after the name in brackets, which may hold anything: the state, and 19 fields on the start in ticks
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    if Path("/proc/self").exists():
        return None
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip() or None


def _main(parent: int, patience_s: float, command: Sequence[str]) -> int:
    """Run `command` to its end, or until the process `parent` is gone; its exit code."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    woken = _wake_on_signals()
    if os.getppid() != parent:
        return 1
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        sys.stderr.write(f"{CANNOT_START}{command[0]}: {error.strerror}\n")
        return 127
    while (code := child.poll()) is None:
        if os.getppid() != parent:
            _end_group(child, patience_s)
        if select.select([woken], [], [], _LOOK_S)[0]:
            os.read(woken, 4096)
    return code if code >= 0 else 128 - code


def _wake_on_signals() -> int:
    """A descriptor that is readable after the end of the child; a SIGTERM is for the rest of the group only."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return woken


def _end_group(child: "subprocess.Popen[bytes]", patience_s: float) -> None:
    """Ask the whole group to end (mpirun ends the ranks that are in groups of their own), then kill it and this."""
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(timeout=patience_s)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
