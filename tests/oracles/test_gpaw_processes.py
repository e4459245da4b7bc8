"""MPI processes that end, hang or never begin, with a shell in the place of MPI; GPAW is not needed."""

import time

import pytest
from ase.build import bulk

from opengnome.errors import OracleSetupError
from opengnome.oracles import gpaw_processes
from opengnome.oracles.gpaw_engine import GpawEngine
from opengnome.oracles.gpaw_processes import (
    ProcessesLostError,
    check_mpi,
    end_processes,
    is_parallel,
    parallel_calculator,
)


def started(tmp_path, script):
    command = f"sh -c '{script}' --"
    return parallel_calculator({}, tmp_path / "01-static.txt", n_processes=2, mpi_command=command)


def test_processes_that_end_leave_what_they_said(tmp_path):
    calculator = started(tmp_path, "echo there are no slots >&2; exit 1")
    atoms = bulk("Cu")
    atoms.calc = calculator
    with pytest.raises(ProcessesLostError, match=r"saying: there are no slots; see .*01-static\.err"):
        atoms.get_potential_energy()
    end_processes(calculator)
    end_processes(calculator)  # ending them twice is no error


def test_processes_that_do_not_end_are_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpaw_processes, "_PATIENCE_S", 0.2)
    calculator = started(tmp_path, 'trap "" TERM; sleep 600')
    process = calculator.protocol.proc
    begun = time.monotonic()
    end_processes(calculator)
    assert process.poll() is not None
    assert time.monotonic() - begun < 10.0


def test_the_engine_ends_only_what_is_parallel(tmp_path):
    calculator = started(tmp_path, "exit 0")
    assert is_parallel(calculator)
    GpawEngine(ranks=2).close(calculator)
    assert calculator.protocol is None
    GpawEngine(ranks=2).close(object())


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sh -c 'echo there are not enough slots >&2; exit 1' --", "there are not enough slots"),
        ("sh -c 'echo 1; echo 1' --", "1 1"),  # each is alone: GPAW and mpiexec are of different MPIs
        ("no-such-mpiexec", "no-such-mpiexec: No such file or directory"),
    ],
)
def test_mpi_that_does_not_work_is_told(command, said):
    with pytest.raises(
        OracleSetupError, match=rf"-n 2 does not give 2 processes of GPAW .*: .*{said}; set gpaw\.ranks"
    ):
        check_mpi(2, command)


def test_mpi_that_works():
    check_mpi(2, "sh -c 'echo 2' --")


@pytest.mark.parametrize(
    ("ranks", "n_kpoints", "scalapack", "expected"),
    [
        (1, 10, False, (1, {})),
        (4, 10, False, (4, {"kpt": 4, "domain": 1, "band": 1})),
        (4, 3, False, (3, {"kpt": 3, "domain": 1, "band": 1})),
        (4, 1, False, (1, {"kpt": 1, "domain": 1, "band": 1})),
        (4, 1, True, (4, {})),
    ],
)
def test_number_of_processes(monkeypatch, ranks, n_kpoints, scalapack, expected):
    monkeypatch.setattr("opengnome.oracles.gpaw_engine.divides_bands", lambda: scalapack)
    assert GpawEngine(ranks).n_processes(n_kpoints) == expected
