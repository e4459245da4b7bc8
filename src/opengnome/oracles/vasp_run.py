"""One run of VASP under custodian (doi:10.1016/j.commatsci.2012.10.028), imported only when VASP is to run.

Custodian starts VASP in a folder, looks at its files every few seconds, and on a known error stops it, changes
the inputs and starts it again; custodian.json of the folder has every correction.
"""

import json
import os
import shlex
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from custodian import Custodian
from custodian.custodian import CustodianError, ErrorHandler
from custodian.vasp import handlers as vasp_handlers
from custodian.vasp.jobs import VaspJob
from custodian.vasp.validators import VaspFilesValidator, VasprunXMLValidator

from opengnome.errors import OracleSetupError
from opengnome.oracles.vasp_settings import VaspSettings

HANDLERS: tuple[str, ...] = (
    "VaspErrorHandler",
    "MeshSymmetryErrorHandler",
    "UnconvergedErrorHandler",
    "NonConvergingErrorHandler",
    "PotimErrorHandler",
    "PositiveEnergyErrorHandler",
    "FrozenJobErrorHandler",
    "StdErrHandler",
    "LargeSigmaHandler",
    "IncorrectSmearingHandler",
    "KspacingMetalHandler",
)
"""Custodian's handlers, in order of priority. Its WalltimeHandler is not among them: it keeps the start of the
first calculation of the process in an environment variable, so that every later one would be out of time."""

PROCESS_FILE = "process.json"
"""Who runs VASP in a folder: left behind when the program is killed, while VASP may go on."""


@dataclass(frozen=True)
class Ended:
    """How custodian left a run."""

    error: str
    """What custodian could not correct; empty when nothing is wrong."""
    timed_out: bool
    corrections: tuple[str, ...]
    """What custodian changed, in order, e.g. "brmix: INCAR IMIX = 1 (VaspErrorHandler)"."""


class DeadlineHandler(ErrorHandler):  # type: ignore[misc, unused-ignore]
    """Ends a running VASP at a point of time; nothing is corrected."""

    is_monitor = True
    is_terminating = True

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        """Of `time.monotonic`, seconds."""
        self.job: VaspJob | None = None
        """What is watched."""
        self.has_stopped = False
        """Whether VASP was ended: its last geometry looks converged to whoever counts the ionic steps only."""

    def check(self, directory: str = "./") -> bool:  # noqa: ARG002 (custodian's signature)
        """Whether time is up and VASP still runs; custodian asks once more when it has ended."""
        is_running = self.job is not None and self.job._vasp_process.poll() is None
        self.has_stopped = self.has_stopped or (is_running and time.monotonic() > self.deadline)
        return self.has_stopped

    def correct(self, directory: str = "./") -> dict[str, Any]:  # noqa: ARG002
        """No correction, which makes custodian give up."""
        return {"errors": ["the time limit was reached"], "actions": None}


class RecordedJob(VaspJob):  # type: ignore[misc, unused-ignore]
    """A run of VASP that notes its process in the folder."""

    def run(self, directory: str = "./") -> Any:
        """Start VASP; the `Popen` of it."""
        process = super().run(directory)
        with suppress(psutil.NoSuchProcess):  # it has ended already
            started = psutil.Process(process.pid).create_time()
            note = {"host": socket.gethostname(), "pid": process.pid, "started": started}
            (Path(directory) / PROCESS_FILE).write_text(json.dumps(note))
        return process


def run_vasp(folder: Path, settings: VaspSettings, *, deadline: float) -> Ended:
    """Run VASP on the inputs in `folder` until it ends well, cannot be corrected, or `deadline` has come.

    `deadline` is of `time.monotonic`. Raises `OracleSetupError` when the command cannot be started.
    """
    limit, job = DeadlineHandler(deadline), _job(settings)
    limit.job = job
    custodian = Custodian(
        [limit, *_handlers(settings)],
        [job],
        validators=[VasprunXMLValidator(), VaspFilesValidator()],
        max_errors=settings.max_corrections + 1,  # the error after the last correction is one too
        polling_time_step=settings.poll_s,
        monitor_freq=max(1, round(settings.monitor_s / settings.poll_s)),
        directory=str(folder),
    )
    error = ""
    try:
        custodian.run()
    except CustodianError as problem:
        error = _explain(problem, custodian.run_log)
    except (FileNotFoundError, PermissionError) as problem:
        if not _is_command(problem, settings):
            raise
        raise OracleSetupError(f"vasp.command = {settings.command!r} cannot be started: {problem}") from problem
    finally:
        (folder / PROCESS_FILE).unlink(missing_ok=True)
    described = [_describe(c) for run in custodian.run_log for c in run["corrections"] if c["actions"]]
    corrections = tuple(described[: settings.max_corrections])  # one more is written into the inputs and never run
    return Ended(error, timed_out=limit.has_stopped, corrections=corrections)


def end_orphan(folder: Path) -> None:
    """End the VASP that a killed program has left running in `folder`, if it is on this machine."""
    try:
        note = json.loads((folder / PROCESS_FILE).read_text())
        process = psutil.Process(note["pid"])
        # process ids are used again: only the process that started when ours did is ours
        is_ours = note["host"] == socket.gethostname() and process.create_time() == note["started"]
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        is_ours = False
    if is_ours:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # custodian makes VASP the leader of a group
        with suppress(psutil.TimeoutExpired):
            process.wait(timeout=10)
    (folder / PROCESS_FILE).unlink(missing_ok=True)


def _handlers(settings: VaspSettings) -> list[Any]:
    options = {"FrozenJobErrorHandler": {"timeout": settings.frozen_s}}
    return [getattr(vasp_handlers, name)(**options.get(name, {})) for name in HANDLERS]


def _job(settings: VaspSettings) -> RecordedJob:
    gamma = None if settings.gamma_command is None else shlex.split(settings.gamma_command)
    return RecordedJob(
        shlex.split(settings.command),
        auto_gamma=gamma is not None,
        gamma_vasp_cmd=gamma,
        graceful_termination=settings.stop_s > 0,
        graceful_termination_timeout=settings.stop_s,
    )


def _explain(problem: CustodianError, log: list[dict[str, Any]]) -> str:
    """Custodian's last word, with the handler that gave up and what it saw."""
    text, handler = str(problem.message).split(" for handler")[0].rstrip(" ."), getattr(problem, "handler", None)
    if handler is None:
        return text
    corrections = [correction for run in log for correction in run["corrections"]]
    seen = [str(e) for c in corrections if c["handler"] is handler and not c["actions"] for e in c["errors"]]
    return f"{text}: {type(handler).__name__} ({', '.join(seen) or 'too often'})"


def _describe(correction: dict[str, Any]) -> str:
    """One correction in one line."""
    changes = []
    for action in correction["actions"]:
        where = str(action.get("dict") or action.get("file") or "")
        for verb, values in action.get("action", {}).items():
            if verb == "_set":
                changes += [f"{where} {tag} = {value}" for tag, value in values.items()]
            elif verb == "_file_copy":
                changes.append(f"{where} copied to {values['dest']}")
            else:
                changes.append(f"{where} {verb} {values}")
    errors = ", ".join(map(str, correction["errors"]))
    return f"{errors}: {', '.join(changes)} ({type(correction['handler']).__name__})"


def _is_command(problem: OSError, settings: VaspSettings) -> bool:
    commands = [settings.command, settings.gamma_command or settings.command]
    return str(problem.filename) in {shlex.split(command)[0] for command in commands}
