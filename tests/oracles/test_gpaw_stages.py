"""The way of a relaxation through its stages, with ASE's effective medium theory in the place of GPAW."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.cell import Cell
from test_calculation_store import assert_identical

from opengnome.crystals import Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.crystals.symmetry import space_group_number
from opengnome.errors import OracleSetupError
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, read_calculation, write_calculation
from opengnome.oracles.folder_lock import locked
from opengnome.oracles.gpaw_oracle import GpawOracle
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.oracles.settings import engine_digest
from opengnome.settings import validate


class ConvergenceError(Exception):
    """By name the base of what GPAW raises when the self-consistent cycle does not converge."""


class NotConverged(ConvergenceError):  # noqa: N818 (a stand-in for KohnShamConvergenceError)
    pass


class EmtEngine:
    """EMT that counts its evaluations over all calculators and fails where it is told to."""

    def __init__(self, *, fail_at=(), error=NotConverged, sleep_s=0.0, sleep=time.sleep, gap=None, pull=0.0):
        self.fail_at, self.error, self.sleep_s, self.gap, self.pull = set(fail_at), error, sleep_s, gap, pull
        self.sleep = sleep
        self.n_calls = self.n_closed = 0
        self.parameters = []

    def missing_elements(self, symbols):
        return [symbol for symbol in symbols if symbol == "Tc"]

    def calculator(self, parameters, log, *, n_kpoints):
        engine = self
        engine.parameters.append(parameters)
        log.write_text(repr(parameters))

        class Counted(EMT):
            def calculate(self, *arguments, **keywords):
                engine.n_calls += 1
                engine.sleep(engine.sleep_s)
                if engine.n_calls - 1 in engine.fail_at:
                    raise engine.error(f"call {engine.n_calls - 1}")
                super().calculate(*arguments, **keywords)
                if engine.pull:
                    self.results["stress"] = np.array([engine.pull] * 3 + [0.0] * 3)

        return Counted()

    def close(self, calculator):
        self.n_closed += 1

    def band_gap(self, calculator):
        return self.gap


def bent() -> Crystal:
    """Cu4 with a tetragonal cell, 4 % too small; the space group is I4/mmm."""
    frac = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return Crystal(np.diag([3.45, 3.45, 3.6]), np.array(frac), np.full(4, 29))


@pytest.fixture
def bent_copper() -> Crystal:
    return bent()


def oracle(folder, engine, *, relaxation=None, **settings):
    settings = GpawSettings(folder=folder, functional="pbe", **settings)
    return GpawOracle(settings, relaxation or RelaxationSettings(fmax=0.01), engine=engine)


def test_two_relaxations_and_a_static_calculation(tmp_path, bent_copper):
    engine = EmtEngine(gap=0.0)
    calculation = oracle(tmp_path, engine).relax(bent_copper)
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert len(calculation.frames) == calculation.n_steps + 1 == engine.n_calls
    assert engine.n_closed == len(engine.parameters) == 3
    assert calculation.energy == calculation.frames.energies[-1]
    assert calculation.fmax < 0.01
    assert (calculation.band_gap, calculation.corrections) == (0.0, ())
    # fcc copper of EMT has a = 3.59 A (ASE's documentation); the cell keeps its axes
    np.testing.assert_allclose(calculation.crystal.lattice, 3.594 * np.eye(3), atol=0.02)
    meshes = [parameters["kpts"]["size"] for parameters in engine.parameters]
    assert np.prod(meshes[2]) > max(np.prod(meshes[0]), np.prod(meshes[1]))
    assert sorted(path.name for path in next(tmp_path.iterdir()).iterdir()) == [
        "01-relax-1.txt",
        "02-relax-2.txt",
        "03-static.txt",
        "calculation.parquet",
        "lock",
    ]


def test_a_finished_crystal_is_read_and_not_calculated(tmp_path, bent_copper):
    first = oracle(tmp_path, EmtEngine()).relax(bent_copper)
    engine = EmtEngine()
    assert_identical(oracle(tmp_path, engine).relax(bent_copper), first)
    assert engine.n_calls == 0
    other = oracle(tmp_path, engine, cutoff=600.0).relax(bent_copper)
    assert engine.n_calls > 0
    assert other.oracle.level == "gpaw-pbe-600eV" != first.oracle.level


def test_the_space_group_of_a_noisy_crystal_is_kept(tmp_path):
    frac = np.array([[0, 0, 0], [0.502, 0.4985, 0], [0.4985, 0.001, 0.5], [0, 0.5, 0.4985]])
    noisy = Crystal(np.diag([3.45, 3.454, 3.6]), frac, np.full(4, 29))
    assert space_group_number(noisy, symprec=1e-4) < 139
    calculation = oracle(tmp_path, EmtEngine(), symprec=0.05).relax(noisy)
    assert calculation.initial is noisy
    for index in range(len(calculation.frames)):
        frame = calculation.frames.crystal(index, noisy.atomic_numbers)
        assert space_group_number(frame, symprec=1e-5) in (139, 225)
    assert np.abs(calculation.frames.positions[0] - noisy.positions).max() < 0.05


@pytest.mark.parametrize(("fail_at", "names"), [({0}, ["mixing"]), ({2, 3}, ["mixing", "bands"])])
def test_the_ladder_is_climbed_and_logged(tmp_path, bent_copper, fail_at, names):
    engine = EmtEngine(fail_at=fail_at)
    calculation = oracle(tmp_path, engine).relax(bent_copper)
    assert calculation.status == Status.CONVERGED
    assert [text.split()[1] for text in calculation.corrections] == names
    assert calculation.corrections[0] == f"relax-1: mixing after NotConverged: call {min(fail_at)}"
    assert engine.parameters[-1]["mixer"]["name"] == "pulay"  # corrections stay for this crystal
    assert ("nbands" in engine.parameters[-1]) == ("bands" in names)
    straight = oracle(tmp_path / "straight", EmtEngine()).relax(bent_copper)
    assert calculation.energy == pytest.approx(straight.energy, abs=1e-3)
    assert len(calculation.frames) == calculation.n_steps + 1


def test_the_top_of_the_ladder_is_a_failure(tmp_path, bent_copper):
    engine = EmtEngine(fail_at=range(1, 100))
    calculation = oracle(tmp_path, engine).relax(bent_copper)
    assert calculation.status == Status.FAILED
    assert calculation.reason.startswith("relax-1: NotConverged: call 4")
    assert [text.split()[1] for text in calculation.corrections] == ["mixing", "bands", "smearing"]
    assert len(calculation.frames) == 1
    assert calculation.energy is None
    assert oracle(tmp_path, EmtEngine(), max_corrections=0).relax(bent_copper).status == Status.CONVERGED


def test_another_error_is_not_retried(tmp_path, bent_copper):
    engine = EmtEngine(fail_at={1}, error=ValueError)
    calculation = oracle(tmp_path, engine).relax(bent_copper)
    assert (calculation.status, calculation.reason) == (Status.FAILED, "relax-1: ValueError: call 1")
    assert engine.n_calls == 2


def test_an_exploded_relaxation_is_tried_with_smaller_steps(tmp_path, bent_copper):
    pulled = EmtEngine(pull=0.5)  # eV/A^3, whatever the volume: the cell gets smaller and smaller
    settings = GpawSettings(folder=tmp_path, functional="pbe")
    relaxation = RelaxationSettings(fmax=0.01, min_volume_ratio=0.9)
    calculation = GpawOracle(settings, relaxation, engine=pulled).relax(bent_copper)
    assert calculation.status == Status.EXPLODED
    assert len(calculation.corrections) == 1
    assert calculation.corrections[0].startswith("relax-1: smaller steps after volume / initial volume is 0.")


class Clock:
    """In the place of the module `time`."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def test_step_limit(tmp_path, bent_copper):
    few = oracle(tmp_path / "few", EmtEngine(), relaxation=RelaxationSettings(fmax=0.001, max_steps=2))
    calculation = few.relax(bent_copper)
    assert (calculation.status, calculation.n_steps) == (Status.UNCONVERGED, 2)
    assert calculation.reason.startswith("relax-1: fmax is")


def test_time_limit(tmp_path, bent_copper, monkeypatch):
    clock = Clock()
    for module in ("gpaw_oracle", "relaxation"):
        monkeypatch.setattr(f"opengnome.oracles.{module}.time", clock)
    asked = oracle(
        tmp_path,
        EmtEngine(sleep_s=10.0, sleep=clock.sleep),
        relaxation=RelaxationSettings(fmax=0.001, timeout_s=25.0),
    )
    first = asked.relax(bent_copper)
    assert (first.status, first.reason) == (Status.TIMED_OUT, "relax-1: 25 s passed after 2 steps")
    assert (first.seconds, len(first.frames)) == (30.0, 3)
    second = asked.relax(bent_copper)  # asked again, it goes on
    assert (second.status, second.seconds, len(second.frames)) == (Status.TIMED_OUT, 60.0, 5)
    np.testing.assert_array_equal(second.frames.energies[:3], first.frames.energies)


@pytest.mark.parametrize(("short_s", "status"), [(5.0, Status.CONVERGED), (15.0, Status.TIMED_OUT)])
def test_a_static_calculation_that_ends_after_the_limit_counts(tmp_path, bent_copper, monkeypatch, short_s, status):
    """One that would begin after it does not."""
    clock = Clock()
    for module in ("gpaw_oracle", "relaxation"):
        monkeypatch.setattr(f"opengnome.oracles.{module}.time", clock)
    engine = EmtEngine(sleep_s=10.0, sleep=clock.sleep)
    whole = oracle(tmp_path / "whole", engine, relaxation=RelaxationSettings(fmax=0.01)).relax(bent_copper)
    assert whole.seconds == 10.0 * engine.n_calls
    limit = RelaxationSettings(fmax=0.01, timeout_s=whole.seconds - short_s)
    calculation = oracle(tmp_path / "late", engine, relaxation=limit).relax(bent_copper)
    assert calculation.status is status
    if status is Status.CONVERGED:
        assert (calculation.energy, calculation.reason) == (whole.energy, "")


def test_without_steps_the_input_is_evaluated_once(tmp_path, bent_copper):
    engine = EmtEngine(gap=1.5)
    calculation = oracle(tmp_path, engine, relaxation=RelaxationSettings(max_steps=0)).relax(bent_copper)
    assert (calculation.status, engine.n_calls, calculation.n_steps) == (Status.UNCONVERGED, 1, 0)
    np.testing.assert_allclose(calculation.crystal.positions, bent_copper.positions, atol=1e-12)
    assert calculation.energy is not None
    assert calculation.band_gap == 1.5


def test_r2scan_begins_with_pbe_whose_energies_do_not_count(tmp_path, bent_copper):
    engine = EmtEngine()
    settings = GpawSettings(folder=tmp_path, functional="r2scan")
    calculation = GpawOracle(settings, RelaxationSettings(fmax=0.01), engine=engine).relax(bent_copper)
    assert calculation.status == Status.CONVERGED
    assert [parameters["xc"] for parameters in engine.parameters] == ["PBE", *["MGGA_X_R2SCAN+MGGA_C_R2SCAN"] * 2]
    assert len(calculation.frames) == calculation.n_steps + 1 < engine.n_calls


def test_chgnet_brings_the_first_relaxation_near(tmp_path, bent_copper):
    far, near = EmtEngine(), EmtEngine()
    alone = oracle(tmp_path / "far", far).relax(bent_copper)
    helped = oracle(tmp_path / "near", near, prerelax="chgnet").relax(bent_copper)
    assert helped.initial is bent_copper
    assert helped.corrections == ()
    # CHGNet's copper is 1 % off that of EMT, the input 4 %
    assert helped.frames.energies[0] < alone.frames.energies[0] - 0.01
    assert near.n_calls < far.n_calls
    assert helped.energy == pytest.approx(alone.energy, abs=1e-3)


def test_elements_without_data_set(tmp_path):
    technetium = Crystal(2.7 * np.eye(3), np.zeros((1, 3)), np.array([43]))
    calculation = oracle(tmp_path, EmtEngine()).relax(technetium)
    assert (calculation.status, calculation.reason) == (Status.FAILED, "there is no PAW data set of PBE for Tc")


def test_a_crystal_under_way_elsewhere_is_waited_for(tmp_path, bent_copper):
    is_under_way, may_go_on = threading.Event(), threading.Event()

    def sleep(seconds):
        is_under_way.set()
        assert may_go_on.wait(30.0)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(oracle(tmp_path, EmtEngine(sleep=sleep)).relax, bent_copper)
        assert is_under_way.wait(30.0)
        engine = EmtEngine()
        second = pool.submit(oracle(tmp_path, engine).relax, bent_copper)
        time.sleep(0.2)
        assert not second.done()
        may_go_on.set()
        assert first.result().status == Status.CONVERGED
        assert_identical(second.result(), first.result())
    assert engine.n_calls == 0


def test_waiting_ends_at_the_time_limit(tmp_path, bent_copper):
    asked = oracle(tmp_path, EmtEngine(), relaxation=RelaxationSettings(fmax=0.01, timeout_s=0.2))
    folder = asked.folder_of(bent_copper)
    with (
        locked(folder, setting="gpaw.folder"),
        pytest.raises(OracleSetupError, match=f"another process .* in {folder} for more than 0.2 s"),
    ):
        asked.relax(bent_copper)
    assert oracle(tmp_path, EmtEngine()).relax(bent_copper).status == Status.CONVERGED


def test_waiting_counts_for_the_limit_and_not_for_the_calculation(tmp_path, bent_copper, monkeypatch):
    clock = Clock()
    for module in ("gpaw_oracle", "relaxation"):
        monkeypatch.setattr(f"opengnome.oracles.{module}.time", clock)

    @contextmanager
    def late(folder, *, setting, wait_s):
        assert wait_s == 60.0
        clock.sleep(35.0)
        folder.mkdir(parents=True, exist_ok=True)
        yield True

    monkeypatch.setattr("opengnome.oracles.gpaw_oracle.locked", late)
    engine = EmtEngine(sleep_s=10.0, sleep=clock.sleep)
    asked = oracle(tmp_path, engine, relaxation=RelaxationSettings(fmax=0.001, timeout_s=60.0))
    calculation = asked.relax(bent_copper)
    assert (calculation.status, calculation.reason) == (Status.TIMED_OUT, "relax-1: 60 s passed after 2 steps")
    assert calculation.seconds == 30.0


@pytest.mark.parametrize(("keep", "stays"), [("all", True), ("failed", False), ("none", False)])
def test_folders_that_stay(tmp_path, bent_copper, keep, stays):
    asked = oracle(tmp_path, EmtEngine(), keep=keep)
    asked.relax(bent_copper)
    assert asked.folder_of(bent_copper).exists() == stays


def test_a_longer_limit_goes_on_in_the_same_folder(tmp_path, bent_copper, monkeypatch):
    clock = Clock()
    for module in ("gpaw_oracle", "relaxation"):
        monkeypatch.setattr(f"opengnome.oracles.{module}.time", clock)
    short = RelaxationSettings(fmax=0.001, timeout_s=25.0)
    first = oracle(tmp_path, EmtEngine(sleep_s=10.0, sleep=clock.sleep), relaxation=short).relax(bent_copper)
    assert first.status == Status.TIMED_OUT
    longer = RelaxationSettings(fmax=0.001)
    second = oracle(tmp_path, EmtEngine(), relaxation=longer).relax(bent_copper)
    assert (second.status, len(list(tmp_path.iterdir()))) == (Status.CONVERGED, 1)
    np.testing.assert_array_equal(second.frames.energies[:3], first.frames.energies)
    assert second.oracle.settings_digest != first.oracle.settings_digest  # each says how it was asked


def test_a_folder_that_a_time_limit_named_is_found(tmp_path, bent_copper):
    relaxation = RelaxationSettings(fmax=0.01, timeout_s=3600.0)
    asked = oracle(tmp_path, EmtEngine(), relaxation=relaxation)
    first = asked.relax(bent_copper)
    named = hashlib.sha256(engine_digest(asked.settings, relaxation).encode())
    for array in (bent_copper.lattice, bent_copper.frac_coords, bent_copper.atomic_numbers):
        named.update(array.tobytes())
    of_before = tmp_path / f"Cu-{named.hexdigest()[:16]}"
    asked.folder_of(bent_copper).rename(of_before)
    assert asked.folder_of(bent_copper) == of_before
    engine = EmtEngine()
    assert_identical(oracle(tmp_path, engine, relaxation=relaxation).relax(bent_copper), first)
    assert engine.n_calls == 0


def cell_lengths_and_angles(lattice):
    cell = Cell(lattice).cellpar()
    return cell[:3], cell[3:]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_under_the_log_stops_everything(tmp_path, bent_copper):
    """What GPAW raises when its log cannot be written, also from inside another error."""

    def wrapped(text):
        error = RuntimeError(text)
        error.__cause__ = FULL
        return error

    for kind, error in (("bare", lambda _: FULL), ("wrapped", wrapped)):
        asked = oracle(tmp_path / kind, EmtEngine(fail_at={3}, error=error))
        folder = asked.folder_of(bent_copper)
        with pytest.raises(OracleSetupError, match=rf"cannot write to {folder}: .*set gpaw\.folder"):
            asked.relax(bent_copper)
        assert not (folder / "calculation.parquet").exists()
        engine = EmtEngine()
        calculation = oracle(tmp_path / kind, engine).relax(bent_copper)
        assert (calculation.status, calculation.corrections) == (Status.CONVERGED, ())
        assert len(calculation.frames) == 2 + engine.n_calls  # three before, the last of which is evaluated again


def test_a_full_disk_when_the_log_is_opened(tmp_path, bent_copper):
    class Full(EmtEngine):
        def calculator(self, parameters, log, *, n_kpoints):
            raise FULL

    with pytest.raises(OracleSetupError, match=r"No space left on device; make room there, or set gpaw\.folder"):
        oracle(tmp_path, Full()).relax(bent_copper)
    assert oracle(tmp_path, EmtEngine()).relax(bent_copper).status == Status.CONVERGED


@pytest.mark.parametrize("written", ["progress.npz", "calculation.parquet"])
def test_a_full_disk_under_our_own_files(tmp_path, bent_copper, monkeypatch, written):
    def full(path, write):
        if path.name == written and (written != "progress.npz" or path.exists()):
            raise FULL
        replace_file(path, write)

    for module in ("oracles.gpaw_progress", "oracles.store"):
        monkeypatch.setattr(f"opengnome.{module}.replace_file", full)
    asked = oracle(tmp_path, EmtEngine())
    with pytest.raises(OracleSetupError, match=r"cannot write to .*No space left on device"):
        asked.relax(bent_copper)
    assert not (asked.folder_of(bent_copper) / "calculation.parquet").exists()
    monkeypatch.undo()
    engine = EmtEngine()
    calculation = oracle(tmp_path, engine).relax(bent_copper)
    assert calculation.status == Status.CONVERGED
    # all geometries are in the file when only the result could not be written
    assert (engine.n_calls == 0) == (written == "calculation.parquet")


def test_progress_that_cannot_be_read_is_not_thrown_away(tmp_path, bent_copper):
    asked = oracle(tmp_path, EmtEngine())
    progress = asked.folder_of(bent_copper) / "progress.npz"
    progress.mkdir(parents=True)  # reading it is an OSError, also for root
    with pytest.raises(OracleSetupError, match="Is a directory"):
        asked.relax(bent_copper)


def test_volumes_count_from_the_start_of_the_calculation(tmp_path, bent_copper):
    """Stopped and resumed again and again: no part goes beyond the limit that one run would have ended at."""
    settings = GpawSettings(folder=tmp_path, functional="pbe", max_corrections=0)
    relaxation = RelaxationSettings(fmax=0.01, min_volume_ratio=0.9, max_step=0.02)
    n_stopped, calculation = 0, None
    while calculation is None:
        stopping = EmtEngine(pull=0.5, fail_at={3}, error=lambda _: FULL)
        try:
            calculation = GpawOracle(settings, relaxation, engine=stopping).relax(bent_copper)
        except OracleSetupError:
            n_stopped += 1
            assert n_stopped < 100
    assert n_stopped > 1
    assert calculation.status == Status.EXPLODED
    volumes = np.linalg.det(calculation.frames.lattices)
    assert (volumes[:-1] >= 0.9 * bent_copper.volume).all()
    assert volumes[-1] < 0.9 * bent_copper.volume


FACE_CENTRED = 1.7 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]])
BODY_CENTRED = np.array([[-1.3, 1.3, 1.75], [1.3, -1.3, 1.75], [1.3, 1.3, -1.75]])
"""Tetragonal, 5 % short of the height at which it is face-centred cubic."""


@pytest.mark.parametrize("lattice", [FACE_CENTRED, BODY_CENTRED])
def test_a_cell_of_one_atom(tmp_path, lattice):
    """Forces vanish by symmetry, the cell alone is relaxed; fcc copper of EMT has 11.6 A^3."""
    calculation = oracle(tmp_path, EmtEngine()).relax(Crystal(lattice, np.full((1, 3), 0.3), np.array([29])))
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert np.abs(calculation.frames.forces).max() < 1e-12
    assert calculation.crystal.volume == pytest.approx(11.6, rel=0.03)


def test_a_rhombohedral_cell_stays_one(tmp_path):
    vectors = 2.5 * np.array([[1.0, 0.0, 1.3], [-0.5, np.sqrt(0.75), 1.3], [-0.5, -np.sqrt(0.75), 1.3]])
    frac = np.array([[0.0] * 3, [0.47] * 3])
    strained = Crystal(vectors, frac, np.array([29, 79]))
    calculation = oracle(tmp_path, EmtEngine()).relax(strained)
    assert calculation.status == Status.CONVERGED, calculation.reason
    for index in range(len(calculation.frames)):
        lengths, angles = cell_lengths_and_angles(calculation.frames.lattices[index])
        assert np.ptp(lengths) < 1e-9
        assert np.ptp(angles) < 1e-7


def test_missing_data_sets_are_told_together(tmp_path):
    asked = oracle(tmp_path, EmtEngine())
    asked.check_elements([29, 8])
    with pytest.raises(OracleSetupError, match=r"no PAW data set of PBE for Tc; put one into .*GPAW_SETUP_PATH"):
        asked.check_elements([43, 29])


def test_the_time_limit_is_a_day_however_the_oracle_is_made(tmp_path):
    asked = {"name": "gpaw", "gpaw": {"folder": tmp_path}}
    for given, relaxation in (({}, None), ({"fmax": 0.01}, RelaxationSettings(fmax=0.01))):
        direct = GpawOracle(GpawSettings(folder=tmp_path), relaxation, engine=EmtEngine()).relaxation
        assert direct == validate(OracleSettings, asked | {"relaxation": given}).relaxation
        assert direct.timeout_s == 86400.0
    short = RelaxationSettings(timeout_s=600.0)
    assert GpawOracle(None, short, engine=EmtEngine()).relaxation.timeout_s == 600.0


def test_a_damaged_progress_file_is_a_beginning(tmp_path, bent_copper):
    asked = oracle(tmp_path, EmtEngine())
    folder = asked.folder_of(bent_copper)
    folder.mkdir(parents=True)
    for content in (b"PK\x03\x04 cut off", b"", b"text"):
        (folder / "progress.npz").write_bytes(content)
        (folder / "calculation.parquet").write_bytes(content)
        assert asked.relax(bent_copper).status == Status.CONVERGED


def test_no_place_to_write(tmp_path, bent_copper):
    (tmp_path / "file").write_text("")
    with pytest.raises(OracleSetupError, match=r"cannot write to .*; set gpaw\.folder"):
        oracle(tmp_path / "file", EmtEngine()).relax(bent_copper)


def test_band_gap_and_corrections_are_stored_and_old_files_have_none(tmp_path, bent_copper):
    import pyarrow.parquet as pq

    calculation = oracle(tmp_path, EmtEngine(fail_at={1}, gap=2.5)).relax(bent_copper)
    path = tmp_path / "a.parquet"
    write_calculation(path, calculation)
    assert_identical(read_calculation(path), calculation)
    assert (calculation.band_gap, len(calculation.corrections)) == (2.5, 1)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.drop_columns(["band_gap", "corrections"]), path)
    assert_identical(read_calculation(path), replace(calculation, band_gap=None, corrections=()))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_gpaw_stages import EmtEngine, bent, oracle
oracle(Path(sys.argv[1]), EmtEngine(sleep_s=0.1)).relax(bent())
"""


def test_kill_9_in_the_middle_goes_on_from_the_last_step(tmp_path, bent_copper):
    whole = oracle(tmp_path / "whole", EmtEngine()).relax(bent_copper)
    script = KILLED.format(tests=str(Path(__file__).parent))
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)], env=dict(os.environ))
    try:
        progress = oracle(folder, EmtEngine()).folder_of(bent_copper) / "progress.npz"
        deadline = time.monotonic() + 60
        while not (progress.exists() and np.load(progress)["energies_0"].size >= 2):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = np.load(progress)["energies_0"]
        assert not (progress.parent / "calculation.parquet").exists()
        engine = EmtEngine()
        calculation = oracle(folder, engine).relax(bent_copper)
    finally:
        process.kill()
        process.wait()
    assert calculation.status == Status.CONVERGED
    # the last geometry is evaluated again, those before it are not, and none is there twice
    assert len(calculation.frames) == len(before) - 1 + engine.n_calls == calculation.n_steps + 1
    np.testing.assert_array_equal(calculation.frames.energies[: len(before)], before)
    assert calculation.energy == pytest.approx(whole.energy, abs=1e-4)
    assert calculation.seconds > 0.1 * (len(before) - 1)  # what the killed process spent counts
    assert not progress.exists()


def test_the_group_is_that_of_where_the_relaxation_starts(tmp_path, bent_copper, monkeypatch):
    """A pre-relaxation that breaks the input's symmetry: forces must not be averaged over operations that are gone."""
    rng = np.random.default_rng(0)

    def broken(crystal, relaxation, symprec, log):
        return Crystal(crystal.lattice, crystal.frac_coords + rng.normal(0, 0.02, (4, 3)), crystal.atomic_numbers)

    monkeypatch.setattr("opengnome.oracles.gpaw_oracle._prerelaxed", broken)
    calculation = oracle(tmp_path, EmtEngine(), prerelax="chgnet").relax(bent_copper)
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert np.linalg.norm(calculation.forces, axis=1).max() < 0.02


def test_a_failure_is_tried_again_when_asked_again(tmp_path, bent_copper):
    class Broken(EmtEngine):
        def calculator(self, parameters, log, *, n_kpoints):
            raise MemoryError("no memory")

    assert oracle(tmp_path, Broken()).relax(bent_copper).status == Status.FAILED
    assert oracle(tmp_path, EmtEngine()).relax(bent_copper).status == Status.CONVERGED
