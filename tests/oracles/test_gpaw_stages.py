"""The way of a relaxation through its stages, with ASE's effective medium theory in the place of GPAW."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from test_calculation_store import assert_identical

from opengnome.crystals import Crystal
from opengnome.crystals.symmetry import space_group_number
from opengnome.errors import OracleSetupError
from opengnome.oracles import RelaxationSettings, Status, read_calculation, write_calculation
from opengnome.oracles.gpaw_oracle import GpawOracle
from opengnome.oracles.gpaw_settings import GpawSettings


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

    def calculator(self, parameters, log):
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


def test_a_crystal_under_way_elsewhere_is_left_alone(tmp_path, bent_copper):
    import fcntl

    asked = oracle(tmp_path, EmtEngine())
    folder = asked.folder_of(bent_copper)
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert asked.relax(bent_copper).reason == f"another process is calculating this crystal in {folder}"
    assert asked.relax(bent_copper).status == Status.CONVERGED


@pytest.mark.parametrize(("keep", "stays"), [("all", True), ("failed", False), ("none", False)])
def test_folders_that_stay(tmp_path, bent_copper, keep, stays):
    asked = oracle(tmp_path, EmtEngine(), keep=keep)
    asked.relax(bent_copper)
    assert asked.folder_of(bent_copper).exists() == stays


def test_a_damaged_progress_file_is_a_beginning(tmp_path, bent_copper):
    asked = oracle(tmp_path, EmtEngine())
    folder = asked.folder_of(bent_copper)
    folder.mkdir(parents=True)
    (folder / "progress.npz").write_bytes(b"PK\x03\x04 cut off")
    (folder / "calculation.parquet").write_bytes(b"cut off")
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
        def calculator(self, parameters, log):
            raise MemoryError("no memory")

    assert oracle(tmp_path, Broken()).relax(bent_copper).status == Status.FAILED
    assert oracle(tmp_path, EmtEngine()).relax(bent_copper).status == Status.CONVERGED
