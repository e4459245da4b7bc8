"""Cheap units of work, and units that do what calculations do at their worst."""

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from opengnome.campaign.limits import killed_when_hung
from opengnome.crystals.replacement import replace_file


def content(path: Path) -> str:
    """What a unit writes: a function of its name alone."""
    return hashlib.sha256(path.name.encode()).hexdigest()


def work(path: Path, seconds: float, ledger: Path) -> None:
    """Take `seconds`, note in the ledger that the work is done, and leave the file."""
    time.sleep(seconds)
    with ledger.open("ab") as file:
        file.write(f"{path.name}\n".encode())  # one write: whole lines, whoever else writes
    replace_file(path, lambda temporary: temporary.write_text(content(path)))


def go_on(path: Path, seconds: float, ledger: Path) -> None:
    """The same in ten steps that survive their process, as those of a relaxation do."""
    progress = path.with_suffix(".progress")
    done = int(progress.read_text()) if progress.exists() else 0
    for step in range(done, 10):
        time.sleep(seconds / 10)
        replace_file(progress, lambda temporary, step=step: temporary.write_text(str(step + 1)))
        with ledger.open("ab") as file:
            file.write(f"{path.name} step {step}\n".encode())
    work(path, 0.0, ledger)


def die(path: Path) -> None:
    """Crash as compiled code does."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(path: Path) -> None:
    """Never come back from compiled code that holds the lock of the interpreter."""
    with killed_when_hung(path, timeout_s=0.5):
        re.match(r"(a+)+$", "a" * 64 + "b")  # takes 2^64 steps


def hog(path: Path) -> None:
    """Take memory without end."""
    hoard = []
    while True:
        hoard.append(bytearray(64 * 2**20))


def raise_error(path: Path) -> None:
    """A fault of the program."""
    raise ZeroDivisionError("a fault of the program")


def run_on_all_nodes(path: Path) -> None:
    """A stand-in for an MPI program: every rank tells its node."""
    prefix = os.environ["PARSL_MPI_PREFIX"]
    command = f"{prefix} bash -c 'echo rank $SLURM_PROCID on $SLURMD_NODENAME'"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, check=True)
    replace_file(path, lambda temporary: temporary.write_text("\n".join(sorted(ran.stdout.split("\n"))).strip()))
