"""The VASP oracle with a stand-in for VASP (`vasp_stand_in.py`), which replays recorded outputs where they are."""

import errno
import importlib
import importlib.util
import json
import multiprocessing
import os
import pickle
import shlex
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_potcars import write_potcar

from opengnome.crystals import Crystal, with_volume
from opengnome.crystals.interop import from_pymatgen
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, make_oracle, read_calculation
from opengnome.oracles import write_calculation as write
from opengnome.oracles.folder_lock import locked
from opengnome.oracles.vasp import VaspOracle
from opengnome.oracles.vasp_folder import how_it_ended, note_end, prepare_folder, seconds_spent
from opengnome.oracles.vasp_inputs import PoscarOrder, plan_steps
from opengnome.oracles.vasp_settings import VaspSettings

pytest.importorskip("custodian", reason="the VASP oracle needs custodian: pip install opengnome[vasp]")
psutil = pytest.importorskip("psutil")  # comes with custodian
# the potentials are not real, and custodian and pymatgen warn about much else while they run
pytestmark = pytest.mark.filterwarnings("ignore")

STAND_IN = Path(__file__).with_name("vasp_stand_in.py")
LIMITS = RelaxationSettings(timeout_s=60.0)


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """What is loaded on first use takes seconds, which are no part of a time limit here."""
    importlib.import_module("opengnome.oracles.vasp_run")
    importlib.import_module("pymatgen.io.vasp.sets")


@pytest.fixture(autouse=True)
def _no_search_for_the_fakes(monkeypatch):
    """pymatgen compares each potential with all it knows, every time custodian reads one: half of the time here."""
    from pymatgen.io.vasp.inputs import PotcarSingle

    monkeypatch.setattr(PotcarSingle, "is_valid", True)
    monkeypatch.setattr(PotcarSingle, "_summary_stats", {}, raising=False)


@pytest.fixture(scope="module")
def potcars(tmp_path_factory):
    root = tmp_path_factory.mktemp("potcars")
    for symbol in ("Na_pv", "Cl", "Li_sv", "Fe_pv", "P", "O", "V_pv", "F"):
        write_potcar(root, symbol, "PBE")
        write_potcar(root, symbol, "PBE_54")
    return root


@pytest.fixture
def salt() -> Crystal:
    """NaCl in a primitive cell, Cl first: VASP gets the atoms the other way round."""
    lattice = 2.8 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return Crystal(lattice, np.array([[0.5, 0.5, 0.5], [0.001, 0, 0]]), np.array([17, 11]))


@pytest.fixture
def vasp(tmp_path, potcars):
    """A function that makes the oracle with a stand-in of given behaviours."""

    def make(behaviours=None, *, recorded=None, relaxation=LIMITS, **settings):
        parts = [sys.executable, str(STAND_IN), json.dumps(behaviours or {})]
        command = shlex.join(parts if recorded is None else [*parts, str(recorded)])
        given = {"command": command, "potcar_dir": potcars, "folder": tmp_path / "vasp"}
        quick = {"poll_s": 0.02, "monitor_s": 0.2, "stop_s": 1.0, "n_relaxations": 1, "static": False}
        return VaspOracle(VaspSettings.model_validate(given | quick | settings), relaxation)

    return make


def starts(oracle, crystal):
    """How often VASP was started in each step's folder, by its name."""
    files = sorted(oracle.folder_of(crystal).glob("*/starts.txt"))
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}


def test_two_relaxations_and_a_static_calculation(vasp, salt, tmp_path):
    oracle = vasp(n_relaxations=2, static=True)
    calculation = oracle.relax(salt)
    assert (calculation.status, calculation.reason) == (Status.CONVERGED, "")
    assert starts(oracle, salt) == {"relax1": 1, "relax2": 1, "static": 1}
    # the stand-in lengthens the cell by 2 % in each relaxation, but for 2**-9 of it
    assert calculation.crystal.volume == pytest.approx(salt.volume * 1.02**6, rel=1e-3)
    assert calculation.crystal.symbols == ("Cl", "Na")
    assert calculation.energy == pytest.approx(
        -6.0 + 20 * 0.02**2 + 1e-5
    )  # of the static calculation, smearing removed
    assert len(calculation.frames) == 21 == calculation.n_steps + 1
    assert np.abs(calculation.frames.forces[0]).tolist() == [[0, 0, 0], [0.4, 0, 0]]  # on Na, the first of the POSCAR
    np.testing.assert_allclose(calculation.frames.positions[0], salt.positions, atol=1e-7)
    pressure = 40 * 0.02 / 3 / calculation.crystal.volume  # the cell of the static calculation wants to be larger
    np.testing.assert_allclose(calculation.stress, -pressure * np.eye(3), rtol=1e-5)
    assert calculation.fmax == pytest.approx(40 * 0.02 / 3 / 2, rel=1e-5)
    assert calculation.band_gap == 2.5
    assert json.loads((oracle.folder_of(salt) / "static" / "ended.json").read_text())["magnetization"] == 0.5
    assert (calculation.oracle.version, oracle.identity.version) == ("6.4.2", "")
    assert calculation.oracle.level == "vasp-pbe+u-mp"
    write(tmp_path / "stored.parquet", calculation)
    assert read_calculation(tmp_path / "stored.parquet").band_gap == 2.5


def test_without_steps_one_static_calculation(vasp, salt):
    single = vasp(relaxation=RelaxationSettings(timeout_s=60.0, max_steps=0))
    calculation = single.relax(salt)
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert len(calculation.frames) == 1
    assert single.folder_of(salt) != vasp().folder_of(salt)
    assert [path.name for path in single.folder_of(salt).iterdir() if path.is_dir()] == ["static"]


def test_a_finished_calculation_is_not_run_again(vasp, salt):
    first = vasp().relax(salt)
    begun = time.monotonic()
    again = pickle.loads(pickle.dumps(vasp({"default": "crash"}))).relax(salt)
    assert again.status == Status.CONVERGED
    assert (again.energy, again.crystal) == (first.energy, first.crystal)
    assert again.seconds == pytest.approx(first.seconds, abs=1.0 + time.monotonic() - begun)
    # but other inputs are another calculation
    assert vasp(incar={"ENCUT": 600}).folder_of(salt) != vasp().folder_of(salt)
    assert vasp(incar={"NCORE": 4}).folder_of(salt) == vasp().folder_of(salt)


def test_r2scan_counts_only_its_own_frames(vasp, salt):
    oracle = vasp(functional="r2scan", static=True)
    calculation = oracle.relax(salt)
    assert calculation.status == Status.CONVERGED
    assert starts(oracle, salt) == {"pbe-relax": 1, "relax": 1, "static": 1}
    assert len(calculation.frames) == 11
    incar = (oracle.folder_of(salt) / "relax" / "INCAR").read_text()
    assert "METAGGA = R2scan" in incar
    assert "ISMEAR = -5" in incar  # the PBE relaxation found a gap


def test_the_static_calculation_begins_with_the_moments_of_the_relaxation(vasp, salt):
    oracle = vasp(static=True, n_relaxations=2)
    oracle.relax(salt)
    moments = [
        next(line for line in (oracle.folder_of(salt) / step / "INCAR").read_text().splitlines() if "MAGMOM" in line)
        for step in ("relax1", "relax2", "static")
    ]
    assert moments == ["MAGMOM = 2*0.6", "MAGMOM = 2*0.6", "MAGMOM = 2*0.25"]


def test_a_metal_has_its_smearing_from_the_second_relaxation_on(vasp, salt):
    """Custodian runs the first one again with it; frames of the tetrahedron method, with other forces, do not count."""
    oracle = vasp({"default": "metal"}, n_relaxations=2, static=True)
    calculation = oracle.relax(salt)
    assert calculation.status == Status.CONVERGED
    assert (calculation.band_gap, starts(oracle, salt)) == (0.0, {"relax1": 2, "relax2": 1, "static": 1})
    assert calculation.corrections == (
        "IncorrectSmearing: INCAR ISMEAR = 2, INCAR SIGMA = 0.2 (IncorrectSmearingHandler)",
    )
    incars = {step: (oracle.folder_of(salt) / step / "INCAR").read_text() for step in ("relax1", "relax2", "static")}
    assert [f"ISMEAR = {n}" in incars[step] for step, n in (("relax1", 2), ("relax2", 2), ("static", -5))] == [True] * 3
    assert len(calculation.frames) == 10 + 10 + 1
    np.testing.assert_allclose(calculation.frames.positions[0], salt.positions, atol=1e-7)


def test_positions_only(vasp, salt):
    oracle = vasp(relaxation=RelaxationSettings(relax_cell=False))
    calculation = oracle.relax(salt)
    assert "ISIF = 2" in (oracle.folder_of(salt) / "relax1" / "INCAR").read_text()
    assert calculation.fmax == pytest.approx(0.4 / 2**9)  # the stress does not count


def test_a_known_error_is_corrected_and_told(vasp, salt):
    oracle = vasp({"relax1": "brmix_once"})
    calculation = oracle.relax(salt)
    assert calculation.status == Status.CONVERGED
    assert starts(oracle, salt) == {"relax1": 2}
    assert calculation.corrections == ("brmix: INCAR IMIX = 1 (VaspErrorHandler)",)
    assert vasp().relax(salt).corrections == calculation.corrections  # from the folder


def test_the_frames_before_a_correction_are_kept(vasp, salt):
    """Three ionic steps, an error, and the whole relaxation again; unconverged electrons are no evidence."""
    oracle = vasp({"relax1": "late_brmix_once"})
    calculation = oracle.relax(salt)
    assert calculation.status == Status.CONVERGED
    assert starts(oracle, salt) == {"relax1": 2}
    assert (len(calculation.frames), calculation.n_steps) == (2 + 10, 11)
    forces = calculation.frames.forces[:, 1, 0]  # halved in every ionic step
    np.testing.assert_allclose(forces, [0.4, 0.1, *(0.4 / 2**number for number in range(10))])
    for first in (0, 2):
        np.testing.assert_allclose(calculation.frames.positions[first], salt.positions, atol=1e-7)
    again = vasp().relax(salt)  # from the folder
    np.testing.assert_array_equal(again.frames.positions, calculation.frames.positions)
    assert starts(oracle, salt) == {"relax1": 2}


def test_a_damaged_archive_has_no_frames(vasp, salt):
    oracle = vasp({"relax1": "late_brmix_once"})
    oracle.relax(salt)
    archive = oracle.folder_of(salt) / "relax1" / "error.1.tar.gz"
    archive.write_bytes(archive.read_bytes()[:200])
    assert len(vasp().relax(salt).frames) == 10


def test_corrections_before_an_interruption_are_kept(vasp, salt):
    """One error, corrected; then a kill; then, asked again, to the end: all in order."""
    oracle = vasp({"relax1": "late_brmix_once"})
    first = oracle.relax(salt)
    folder = oracle.folder_of(salt) / "relax1"
    (folder / "ended.json").unlink()  # as if the program had been killed before this was written
    calculation = vasp().relax(salt)
    assert calculation.status == Status.CONVERGED
    assert [path.name for path in (folder / "interrupted.1").glob("error*")] == ["error.1.tar"]
    assert calculation.corrections == first.corrections == ("brmix: INCAR IMIX = 1 (VaspErrorHandler)",)
    assert "IMIX = 1" in (folder / "INCAR").read_text()  # the error is not made again
    assert len(calculation.frames) == 2 + 10 + 10
    np.testing.assert_array_equal(calculation.frames.positions[:12], first.frames.positions)


def test_r2scan_energies_of_heavy_elements(vasp, salt):
    """Far below what PBE energies can be: the cores differ, and nothing has exploded."""
    behaviours = {"relax": "deep", "static": "deep"}
    calculation = vasp(behaviours, functional="r2scan", static=True).relax(salt)
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert calculation.energy_per_atom == pytest.approx(-60.0, abs=0.1)
    # a range that is set holds, and for PBE the energies have left physics
    narrow = RelaxationSettings(timeout_s=60.0, energy_per_atom_range=(-50.0, 0.0))
    folder = vasp().settings.folder / "narrow"
    calculation = vasp(behaviours, functional="r2scan", folder=folder, relaxation=narrow).relax(salt)
    assert calculation.reason.startswith("relax: energy per atom in eV is -60, outside -50..0")
    assert vasp({"default": "deep"}).relax(salt).status == Status.EXPLODED


def test_ionic_steps_that_do_not_converge(vasp, salt):
    oracle = vasp({"relax1": "unconverged"}, incar={"EDIFFG": -0.01}, max_corrections=1)
    calculation = oracle.relax(salt)
    assert calculation.status == Status.UNCONVERGED
    assert calculation.reason.startswith("relax1: the ionic steps did not converge: Max errors per job reached")
    assert str(oracle.folder_of(salt) / "relax1") in calculation.reason
    assert starts(oracle, salt) == {"relax1": 2}
    assert len(calculation.frames) == 2 * 99  # the first run is in custodian's archive, which has the second one too
    np.testing.assert_allclose(calculation.frames.positions[0], salt.positions, atol=1e-7)
    assert calculation.energy == calculation.frames.energies[-1]
    assert "IBRION = 1" in calculation.corrections[0]
    # asked again, with a VASP that converges now, it goes on from there
    assert vasp(incar={"EDIFFG": -0.01}).relax(salt).status == Status.CONVERGED


def test_a_single_point_whose_electrons_do_not_converge_has_failed(vasp, salt):
    """Nothing may learn from its energy; a relaxation has other geometries."""
    single = vasp(
        {"static": "electronic"}, max_corrections=0, relaxation=RelaxationSettings(timeout_s=60.0, max_steps=0)
    )
    calculation = single.relax(salt)
    assert calculation.status == Status.FAILED
    assert "the electronic steps did not converge" in calculation.reason


def test_electronic_steps_that_do_not_converge(vasp, salt):
    calculation = vasp({"relax1": "electronic"}, max_corrections=0).relax(salt)
    assert calculation.status == Status.UNCONVERGED
    assert calculation.reason.startswith("relax1: the electronic steps did not converge")


def test_a_crash_is_a_failure_and_starts_anew(vasp, salt):
    oracle = vasp({"relax2": "crash"}, n_relaxations=2)
    calculation = oracle.relax(salt)
    assert calculation.status == Status.FAILED
    assert calculation.reason.startswith("relax2: Validation failed: VasprunXMLValidator")
    assert "VASP said: forrtl: severe (174): SIGSEGV" in calculation.reason
    assert (calculation.crystal, calculation.energy, calculation.band_gap) == (None, None, None)
    assert len(calculation.frames) == 10 + 3  # evidence, no result
    assert vasp(n_relaxations=2).relax(salt).status == Status.CONVERGED
    assert starts(oracle, salt) == {"relax1": 1, "relax2": 1, "relax2.failed.1": 1}


def test_an_exploded_cell(vasp, salt):
    calculation = vasp({"relax1": "explode"}).relax(salt)
    assert calculation.status == Status.EXPLODED
    assert calculation.reason.startswith("relax1: volume / initial volume is")
    assert calculation.crystal is None


def test_atoms_that_cross_the_border_stay_together(vasp, salt):
    calculation = vasp({"relax1": "drift"}).relax(salt)
    fractions = calculation.crystal.frac_coords
    assert fractions[1, 0] == pytest.approx(0.001 - 9 * 0.02)
    assert np.abs(np.diff(calculation.frames.positions[:, 1], axis=0)).max() < 0.3


@pytest.mark.parametrize("behaviour", ["hang", "sloppy_hang"])
def test_the_time_limit_ends_vasp(vasp, salt, behaviour):
    """It ends at the STOPCAR; an ionic step that this cuts short is no frame."""
    oracle = vasp({"relax1": behaviour}, relaxation=RelaxationSettings(timeout_s=1.0))
    begun = time.monotonic()
    calculation = oracle.relax(salt)
    assert time.monotonic() - begun < 30.0
    assert calculation.status == Status.TIMED_OUT
    assert calculation.reason.startswith("relax1: 1 s passed; see ")
    assert set(calculation.frames.energies) == {-6.0 + 20 * 0.02**2 + 0.1 * 0.4}
    assert calculation.crystal.volume == pytest.approx(salt.volume)
    assert vasp().relax(salt).status == Status.CONVERGED  # with more time it goes on
    assert starts(oracle, salt)["relax1"] == 2


def test_no_step_is_started_after_the_limit(vasp, salt):
    calculation = vasp(relaxation=RelaxationSettings(timeout_s=1e-3)).relax(salt)
    assert calculation.status == Status.TIMED_OUT
    assert "passed before it was started" in calculation.reason
    assert (calculation.crystal, calculation.frames) == (None, None)


def test_stopped_twice_it_is_where_it_was(vasp, salt):
    """The second time in the first ionic step, when VASP has written no geometry yet."""
    oracle = vasp({"relax1": "unconverged"}, max_corrections=0, incar={"EDIFFG": -0.01})
    far = oracle.relax(salt).crystal
    folder = oracle.folder_of(salt) / "relax1"
    contcar = (folder / "CONTCAR").read_text()
    (step,), order = plan_steps(oracle.settings), PoscarOrder.of(salt)
    for number in (1, 2):
        geometry = prepare_folder(folder, step, salt, order, Status.UNCONVERGED)
        assert geometry.volume == pytest.approx(far.volume)
        assert geometry.frac_coords[1, 0] == pytest.approx(float(contcar.splitlines()[8].split()[0]))
        (folder / "CONTCAR").write_text("")  # VASP makes it when it starts
        assert len(list(folder.glob("interrupted.*"))) == number


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("killed", ["program", "program_and_tether"])
def test_a_killed_calculation_goes_on(vasp, salt, killed):
    """kill -9 of the program during the first relaxation: its VASP ends too, at the latest before the next starts."""
    oracle = vasp({"relax1": "hang"})
    driver = multiprocessing.get_context("fork").Process(target=oracle.relax, args=(salt,))
    driver.start()
    folder = oracle.folder_of(salt) / "relax1"
    wait_for(lambda: (folder / "process.json").exists() and n_ionic_steps(folder) >= 3)
    tether = json.loads((folder / "process.json").read_text())["pid"]
    (engine,) = psutil.Process(tether).children()
    if killed == "program_and_tether":
        os.kill(tether, signal.SIGKILL)
    os.kill(driver.pid, signal.SIGKILL)
    driver.join()
    if killed == "program":
        wait_for(lambda: not is_running(engine))
    else:
        assert is_running(engine)
    calculation = vasp().relax(salt)
    assert calculation.status == Status.CONVERGED
    assert not is_running(engine)
    assert starts(oracle, salt) == {"relax1": 2}
    before = n_ionic_steps(folder / "interrupted.1")
    assert before >= 3
    assert len(calculation.frames) == before + 10
    np.testing.assert_allclose(calculation.frames.positions[0], salt.positions, atol=1e-7)
    # the stand-in moves an atom by 0.002 of the cell in each step, so that it is no longer where it began
    lattices, positions = calculation.frames.lattices, calculation.frames.positions
    first, last, went_on = (positions[k, 1] @ np.linalg.inv(lattices[k]) for k in (0, before - 1, before))
    assert went_on[0] == pytest.approx(last[0], abs=0.0021)
    assert went_on[0] < first[0] - 0.0039


def n_ionic_steps(folder):
    vasprun = folder / "vasprun.xml"
    return vasprun.read_text().count("</calculation>") if vasprun.exists() else 0


def is_running(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_cut_contcar_is_replaced_by_the_last_ionic_step(vasp, salt):
    oracle = vasp({"relax1": "hang"}, relaxation=RelaxationSettings(timeout_s=1.0))
    before = oracle.relax(salt).frames
    contcar = oracle.folder_of(salt) / "relax1" / "CONTCAR"
    contcar.write_text(contcar.read_text()[:80])
    calculation = vasp().relax(salt)
    assert calculation.status == Status.CONVERGED
    assert len(calculation.frames) == len(before) + 10
    np.testing.assert_allclose(calculation.frames.positions[len(before)], before.positions[-1], atol=1e-6)


def test_whatever_goes_wrong_is_the_crystals_record(vasp, salt, monkeypatch):
    def wrong(*_args, **_kwargs):
        raise KeyError("magmom")

    monkeypatch.setattr("opengnome.oracles.vasp.vasp_input", wrong)
    calculation = vasp().relax(salt)
    assert calculation.status == Status.FAILED
    assert calculation.reason.startswith("KeyError: 'magmom'; see ")


def test_a_full_disk_is_nobodys_fault_but_the_set_ups(vasp, salt, monkeypatch):
    """Ours, in the inputs or in the middle of a run, which ends with it."""

    def full_disk(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def raises():
        return pytest.raises(OracleSetupError, match=message)

    message = r"cannot write to .*Cl-Na-\w+: No space left on device; make room there, or set vasp\.folder"
    with monkeypatch.context() as patch:
        patch.setattr("opengnome.oracles.vasp.vasp_input", full_disk)
        with raises():
            vasp().relax(salt)
    vasp_run = importlib.import_module("opengnome.oracles.vasp_run")
    started = []

    def note(_folder, pid):
        started.append(psutil.Process(pid))
        full_disk()

    with monkeypatch.context() as patch:
        patch.setattr(vasp_run, "note_process", note)
        with raises():
            vasp({"default": "hang"}).relax(salt)
    assert not is_running(started[0])
    assert vasp().relax(salt).status == Status.CONVERGED


def test_vasp_without_space_is_told_from_a_crash(vasp, salt):
    oracle = vasp({"relax1": "full_disk"})
    with pytest.raises(OracleSetupError, match=r"forrtl: No space left on device; make room there"):
        oracle.relax(salt)
    calculation = vasp().relax(salt)  # with room again it goes on after the three ionic steps
    assert calculation.status == Status.CONVERGED
    assert len(calculation.frames) == 3 + 10


def test_a_program_that_cannot_be_started(vasp, salt, tmp_path):
    """Not found at the start of the oracle, gone since, or no program for this machine."""
    program = tmp_path / "vasp_std"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    oracle = vasp(command=str(program))
    with pytest.raises(OracleSetupError, match=r"the engine cannot be started: .*Exec format error; set vasp\.command"):
        oracle.relax(salt)
    program.unlink()
    with pytest.raises(OracleSetupError, match=r"no executable '.*vasp_std' on the PATH any more; set vasp\.command"):
        oracle.relax(salt)


def wait_for(condition, *, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_crystal_that_another_process_calculates_is_waited_for(vasp, salt):
    """Its result is read: VASP runs once."""
    oracle = vasp({"relax1": "slow"})
    other = multiprocessing.get_context("fork").Process(target=oracle.relax, args=(salt,))
    other.start()
    wait_for(lambda: (oracle.folder_of(salt) / "relax1" / "starts.txt").exists())
    calculation = vasp({"default": "crash"}).relax(salt)
    other.join()
    assert (calculation.status, len(calculation.frames)) == (Status.CONVERGED, 10)
    assert starts(oracle, salt) == {"relax1": 1}


def test_the_wait_for_another_process_ends_at_the_time_limit(vasp, salt):
    oracle = vasp(relaxation=RelaxationSettings(timeout_s=0.2))
    with (
        locked(oracle.folder_of(salt), setting="vasp.folder"),
        pytest.raises(OracleSetupError, match=r"another process .*Cl-Na-\w+ for more than 0\.2 s"),
    ):
        oracle.relax(salt)


def test_time_before_an_interruption_counts(vasp, salt):
    """As it was noted at the time limit, or of a killed run until it last wrote."""
    oracle = vasp(relaxation=RelaxationSettings(timeout_s=1e-3))
    oracle.relax(salt)
    folder = oracle.folder_of(salt) / "relax1"
    assert json.loads((folder / "begun.json").read_text()) == {"earlier_s": 0.0}
    begun = (folder / "begun.json").stat().st_mtime
    (folder / "OSZICAR").touch()
    os.utime(folder / "OSZICAR", (begun + 500.0, begun + 500.0))
    assert seconds_spent(folder, how_it_ended(folder)) == pytest.approx(500.0, abs=0.01)
    again = vasp(relaxation=RelaxationSettings(timeout_s=1e-3)).relax(salt)
    assert 500.0 <= again.seconds < 600.0
    note_end(folder, Status.TIMED_OUT, "", seconds=1000.0, corrections=(), magnetization=None)
    done = vasp().relax(salt)
    assert done.status == Status.CONVERGED
    assert 1000.0 < done.seconds < 1400.0
    assert how_it_ended(folder).seconds > 1000.0


@pytest.mark.parametrize(
    ("keep", "behaviours", "kept"),
    [
        ("failed", {}, False),
        ("failed", {"default": "crash"}, True),
        ("none", {"default": "crash"}, False),
    ],
)
def test_folders_stay_as_asked(vasp, salt, keep, behaviours, kept):
    oracle = vasp(behaviours, keep=keep)
    oracle.relax(salt)
    assert oracle.folder_of(salt).exists() == kept


def test_too_dense_a_crystal_is_not_run(vasp, salt):
    oracle = vasp()
    dense = with_volume(salt, 3.0)
    assert oracle.relax(dense).status == Status.TOO_DENSE
    assert not oracle.settings.folder.exists()


# ---------------------------------------------------------------------------------------------- set-up


def test_without_vasp_or_potentials_nothing_is_written(potcars, tmp_path, salt, monkeypatch):
    from pymatgen.core import SETTINGS

    monkeypatch.delitem(SETTINGS, "PMG_VASP_PSP_DIR", raising=False)
    folder = tmp_path / "vasp"
    with pytest.raises(OracleSetupError, match="no executable 'no_such_vasp' on the PATH; load the module of VASP"):
        VaspOracle(VaspSettings(command="no_such_vasp", potcar_dir=potcars, folder=folder))
    with pytest.raises(OracleSetupError, match=r"no_such_gamma.*set vasp\.gamma_command"):
        VaspOracle(
            VaspSettings(command=sys.executable, gamma_command="no_such_gamma", potcar_dir=potcars, folder=folder)
        )
    with pytest.raises(OracleSetupError, match="come with the VASP licence"):
        VaspOracle(VaspSettings(command=sys.executable, folder=folder))
    oracle = VaspOracle(VaspSettings(command=sys.executable, potcar_dir=potcars, folder=folder))
    oracle.check_elements([11, 17])
    with pytest.raises(OracleSetupError, match="no POTCAR for K_sv of PBE"):
        oracle.check_elements([19])
    potassium = Crystal(salt.lattice, salt.frac_coords, np.array([17, 19]))
    with pytest.raises(OracleSetupError, match="no POTCAR for K_sv of PBE"):
        oracle.relax(potassium)
    assert not folder.exists()


def test_the_package_that_is_missing_is_named(potcars, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "custodian" else find(name))
    with pytest.raises(OracleSetupError, match=r"needs the package custodian: pip install 'opengnome\[vasp\]'"):
        VaspOracle(VaspSettings(command=sys.executable, potcar_dir=potcars))


def test_settings_that_vasp_would_ignore_are_refused(potcars):
    settings = VaspSettings(command=sys.executable, potcar_dir=potcars)
    with pytest.raises(SettingsError, match=r"relaxation\.fmax = 0\.01 is of our own minimizers .*EDIFFG = -0\.02"):
        VaspOracle(settings, RelaxationSettings(fmax=0.01))


def test_a_folder_that_cannot_be_made(vasp, salt, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OracleSetupError, match=r"set vasp\.folder"):
        vasp(folder=tmp_path / "file").relax(salt)


def test_the_oracle_comes_from_settings(potcars, tmp_path):
    section = {"command": sys.executable, "potcar_dir": str(potcars), "folder": str(tmp_path), "functional": "pbe"}
    settings = OracleSettings.model_validate({"name": "vasp", "vasp": section})
    assert settings.relaxation.timeout_s == 86400.0 == VaspOracle(settings.vasp).relaxation.timeout_s
    assert make_oracle(settings).identity.level == "vasp-pbe-mp"


# ---------------------------------------------------------------------------------------------- recorded outputs


@pytest.fixture
def recorded(shared_data):
    return lambda name: shared_data / "vasp_samples" / name


def first_structure(path):
    from pymatgen.io.vasp.outputs import Vasprun

    return from_pymatgen(Vasprun(str(path), parse_dos=False, parse_eigen=False, parse_potcar_file=False).structures[0])


def test_recorded_relaxation(vasp, recorded):
    """LiFePO4, 29 ionic steps (pymatgen's test files), as the only relaxation."""
    path = recorded("pymatgen_vasprun.xml.gz")
    crystal = first_structure(path)
    calculation = vasp({"default": "replay"}, recorded=path).relax(crystal)
    assert (calculation.status, calculation.reason) == (Status.CONVERGED, "")
    assert (calculation.n_steps, calculation.oracle.version) == (28, "5.2.2")
    assert calculation.energy == pytest.approx(-269.38319884)
    assert calculation.band_gap == pytest.approx(2.539, abs=1e-3)
    assert calculation.fmax == pytest.approx(0.110, abs=0.01)


def test_recorded_unconverged_run(vasp, recorded):
    path = recorded("pymatgen_vasprun.unconverged.xml.gz")
    calculation = vasp({"default": "replay"}, recorded=path, max_corrections=1).relax(first_structure(path))
    assert calculation.status == Status.UNCONVERGED
    assert calculation.reason.startswith("relax1: the electronic steps did not converge")
    assert calculation.energy == pytest.approx(-134.33107279)
    assert "Unconverged: INCAR ALGO" in calculation.corrections[0]


def test_recorded_crash(vasp, recorded):
    path = recorded("pymatgen_vasprun.xml.gz")
    calculation = vasp({"default": "replay_cut"}, recorded=path).relax(first_structure(path))
    assert calculation.status == Status.FAILED
    assert "segmentation fault" in calculation.reason
    assert calculation.crystal is None
    assert 1 <= len(calculation.frames) < 29
