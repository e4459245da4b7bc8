"""Engines end with the program that started them; real processes, really killed."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opengnome.oracles.tether import CANNOT_START, PROCESS_FILE, end_orphan, note_process, tethered

DRIVER = """
import subprocess, sys, time
from opengnome.oracles.tether import tethered
subprocess.Popen(tethered(sys.argv[1:], patience_s=0.5), start_new_session=True)
time.sleep(600)
"""


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(tethered(shlex.split(command)), capture_output=True, text=True, start_new_session=True)


def wait_for(condition, *, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


needs_proc = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")


def test_output_and_exit_code_are_those_of_the_command():
    ended = run("sh -c 'echo out; echo err >&2; exit 7'")
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "out\n", "err\n")
    assert run("sh -c 'kill -SEGV $$'").returncode == 128 + signal.SIGSEGV


def test_a_program_that_is_not_there():
    ended = run("no_such_program -in x")
    assert ended.returncode == 127
    assert ended.stderr == f"{CANNOT_START}no_such_program: No such file or directory\n"


def test_a_signal_to_the_group_ends_the_command():
    process = subprocess.Popen(tethered(["sleep", "600"]), start_new_session=True)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=10) in (128 + signal.SIGTERM, -signal.SIGTERM)


@needs_proc
@pytest.mark.parametrize("command", ["exec sleep 600", "sleep 600 & wait", "trap '' TERM; sleep 600 & wait; sleep 600"])
def test_the_command_ends_with_a_killed_program(tmp_path, command):
    """A program, a script around a program, and a script that does not want to end."""
    pids = tmp_path / "pids"
    script = f"echo $$ > {pids}; {command.replace('&', f'& echo $! >> {pids};')}"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, "sh", "-c", script])
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 1 + ("&" in command))
    started = [int(word) for word in pids.read_text().split()]
    assert all(is_running(pid) for pid in started)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    wait_for(lambda: not any(is_running(pid) for pid in started), seconds=60.0)


@needs_proc
def test_an_orphan_is_ended_by_its_note(tmp_path):
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    note_process(tmp_path, process.pid)
    end_orphan(tmp_path)
    assert process.wait(timeout=5) == -signal.SIGKILL
    assert not (tmp_path / PROCESS_FILE).exists()


@needs_proc
def test_an_orphan_without_its_tether_is_ended_where_it_works(tmp_path):
    """Killed with the program: nobody is left to end the engine but who finds it in the folder."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    pids = tmp_path / "pids"
    for folder in (here, elsewhere):
        folder.mkdir()
    script = f"cd {here}; sleep 600 & echo $! >> {pids}; cd {elsewhere}; sleep 600 & echo $! >> {pids}; wait"
    process = subprocess.Popen(tethered(["sh", "-c", script]), start_new_session=True)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    first, second = (int(word) for word in pids.read_text().split())
    note_process(here, process.pid)
    process.kill()
    process.wait()
    try:
        end_orphan(here)
        assert (is_running(first), is_running(second)) == (False, True)
    finally:
        os.kill(second, signal.SIGKILL)


@needs_proc
def test_no_other_process_is_taken_for_the_orphan(tmp_path):
    """The id was given to another process since, or the note is of another machine, or it is no note."""
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        note_process(tmp_path, process.pid)
        note = json.loads((tmp_path / PROCESS_FILE).read_text())
        for other in (note | {"started": "before"}, note | {"host": "elsewhere"}, {"pid": process.pid}, [1]):
            (tmp_path / PROCESS_FILE).write_text(json.dumps(other))
            end_orphan(tmp_path)
            assert process.poll() is None
            assert not (tmp_path / PROCESS_FILE).exists()
    finally:
        process.kill()
        process.wait()
    note_process(tmp_path, process.pid)
    assert not (tmp_path / PROCESS_FILE).exists()  # it has ended
