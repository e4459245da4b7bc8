"""One run of VASP under custodian (doi:10.1016/j.commatsci.2012.10.028), imported only when VASP is to run.

Custodian starts VASP in a folder, looks at its files every few seconds, and on a known error stops it, changes
the inputs and starts it again; custodian.json of the folder has every correction.
"""

import os
import shlex
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from custodian import Custodian
from custodian.custodian import CustodianError, ErrorHandler
from custodian.vasp import handlers as vasp_handlers
from custodian.vasp.interpreter import VaspModder
from custodian.vasp.jobs import VaspJob
from custodian.vasp.validators import VaspFilesValidator, VasprunXMLValidator

from opengnome.errors import OracleSetupError
from opengnome.oracles.tether import CANNOT_START, PROCESS_FILE, note_process, tethered
from opengnome.oracles.vasp_folder import described
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


class TetheredJob(VaspJob):  # type: ignore[misc, unused-ignore]
    """A run of VASP that ends with this process, and is noted in the folder in case it does not."""

    def run(self, directory: str = "./") -> Any:
        """Start VASP; the `Popen` of it."""
        process = super().run(directory)
        note_process(Path(directory), process.pid)
        return process

    def end(self) -> None:
        """Kill VASP if it still runs, which it does only after an error that is not VASP's (a full disk)."""
        process = getattr(self, "_vasp_process", None)
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # custodian makes VASP the leader of a group
            process.wait()


def change_inputs(folder: Path, actions: list[dict[str, Any]]) -> None:
    """Make custodian's earlier changes in the input files of `folder` again: the errors they answer would come back."""
    if actions:
        VaspModder(directory=str(folder)).apply_actions(actions)


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
    finally:
        job.end()
        (folder / PROCESS_FILE).unlink(missing_ok=True)
    if error:
        _check_that_it_started(folder)
    corrections = described(custodian.run_log)[: settings.max_corrections]  # one more is written and never run
    return Ended(error, timed_out=limit.has_stopped, corrections=corrections)


def _handlers(settings: VaspSettings) -> list[Any]:
    options = {"FrozenJobErrorHandler": {"timeout": settings.frozen_s}}
    return [getattr(vasp_handlers, name)(**options.get(name, {})) for name in HANDLERS]


def _job(settings: VaspSettings) -> TetheredJob:
    gamma = None if settings.gamma_command is None else _command(settings.gamma_command, "gamma_command")
    return TetheredJob(
        _command(settings.command, "command"),
        auto_gamma=gamma is not None,
        gamma_vasp_cmd=gamma,
        graceful_termination=settings.stop_s > 0,
        graceful_termination_timeout=settings.stop_s,
    )


def _command(line: str, setting: str) -> list[str]:
    words = shlex.split(line)
    if shutil.which(words[0]) is None:  # it was there when the oracle was made
        raise OracleSetupError(f"there is no executable {words[0]!r} on the PATH any more; set vasp.{setting}")
    return tethered(words)


def _check_that_it_started(folder: Path) -> None:
    with suppress(OSError):
        for line in (folder / "std_err.txt").read_text(errors="replace").splitlines():
            if line.startswith(CANNOT_START):
                raise OracleSetupError(f"{line}; set vasp.command, or vasp.gamma_command")


def _explain(problem: CustodianError, log: list[dict[str, Any]]) -> str:
    """Custodian's last word, with the handler that gave up and what it saw."""
    text, handler = str(problem.message).split(" for handler")[0].rstrip(" ."), getattr(problem, "handler", None)
    if handler is None:
        return text
    corrections = [correction for run in log for correction in run["corrections"]]
    seen = [str(e) for c in corrections if c["handler"] is handler and not c["actions"] for e in c["errors"]]
    return f"{text}: {type(handler).__name__} ({', '.join(seen) or 'too often'})"
