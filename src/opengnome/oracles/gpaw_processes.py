"""GPAW in MPI processes that this one starts for one calculator, and talks to by pipes."""

import os
import pickle
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from opengnome.errors import OracleSetupError
from opengnome.oracles.tether import tethered

_PATIENCE_S = 10.0
"""Seconds that processes have to end by themselves, then again when they are asked to, before they are killed."""


_START_S = 300.0
"""Seconds that MPI processes may take to start and to say how many they are."""
_SAYS_NUMBER = "from gpaw.mpi import world; world.rank or print(world.size)"
"""The first process says it: what several write at once may arrive as one word. Strangers are each the first of one."""


class ProcessesLostError(Exception):
    """The MPI processes ended, or never began, without an answer."""


@lru_cache
def check_mpi(n_processes: int, mpi_command: str) -> None:
    """Start so many processes once and have them counted.

    Raises `OracleSetupError` with what was said when that fails, as it would for every crystal: no such command, not
    enough slots, a GPAW built without MPI or with another one.
    """
    command = _mpi_line(n_processes, mpi_command, ["-c", _SAYS_NUMBER])
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=_START_S, start_new_session=True, check=False
        )
        said, numbers = ended.stderr or ended.stdout, ended.stdout.split()
    except subprocess.TimeoutExpired:
        said, numbers = f"nothing in {_START_S:g} s", []
    if numbers != [str(n_processes)]:
        lines = [line.strip() for line in said.splitlines() if line.strip(" -!")]
        raise OracleSetupError(
            f"{mpi_command} -n {n_processes} does not give {n_processes} processes of GPAW that know each other: "
            f"{' '.join(lines)[:400]}; set gpaw.ranks and gpaw.mpi_command, and see whether `gpaw info` has MPI"
        )


def parallel_calculator(parameters: dict[str, Any], log: Path, *, n_processes: int, mpi_command: str) -> Any:
    """An ASE calculator whose `n_processes` run ``GPAW(**parameters)``; they end with this process.

    What they say on their error stream goes to a file beside `log`. A calculation raises what GPAW raises, or
    `ProcessesLostError` with the last line of that file.
    """
    from ase.calculators.subprocesscalculator import MPICommand, NamedPackedCalculator, PythonSubProcessCalculator

    errors = log.with_suffix(".err")
    command = _mpi_line(n_processes, mpi_command, ["-m", "ase.calculators.subprocesscalculator", "standard"])

    class _Command(MPICommand):
        def execute(self) -> Any:
            with errors.open("wb") as stream:
                return subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, start_new_session=True
                )

    class _Processes(PythonSubProcessCalculator):
        def calculate(self, *arguments: Any, **keywords: Any) -> None:
            try:
                super().calculate(*arguments, **keywords)
            except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
                raise ProcessesLostError(
                    f"the MPI processes of GPAW ended without an answer, saying: {_last_line(errors)}; see {errors}"
                ) from error

    packed = NamedPackedCalculator("gpaw", parameters | {"txt": str(log)})
    return _Processes(packed, _Command(command)).__enter__()


def is_parallel(calculator: Any) -> bool:
    """Whether `calculator` is one of `parallel_calculator`."""
    from ase.calculators.subprocesscalculator import PythonSubProcessCalculator

    return isinstance(calculator, PythonSubProcessCalculator)


def end_processes(calculator: Any) -> None:
    """End the processes of a parallel calculator; kill them where they do not.

    After an error in one process the others may wait for it for ever.
    """
    protocol, calculator.protocol = calculator.protocol, None
    if protocol is None:
        return
    with suppress(OSError):  # they may be gone
        protocol.send("stop")
    process = protocol.proc
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        if number is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_PATIENCE_S)
            return


def _mpi_line(n_processes: int, mpi_command: str, program: list[str]) -> list[str]:
    """The command line of ``gpaw python PROGRAM`` in so many processes, which end with this one."""
    gpaw_python = [sys.executable, "-m", "gpaw", "python"]
    return tethered([*shlex.split(mpi_command), "-n", str(n_processes), *gpaw_python, *program])


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip(" -")]
    return lines[-1] if lines else "nothing"
