"""The Quantum ESPRESSO oracle with a stand-in for pw.x (`pw_stand_in.py`), and with pw.x itself where it is."""

import hashlib
import json
import pickle
import shlex
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointDFTCalculator, SinglePointKPoint

from opengnome.crystals import Crystal, with_volume
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, make_oracle
from opengnome.oracles.espresso import EspressoOracle, band_gap, k_mesh, level_name
from opengnome.oracles.espresso_pseudopotentials import PseudopotentialFolder, cutoffs_ry
from opengnome.oracles.espresso_settings import EspressoSettings
from opengnome.settings import validate

STAND_IN = Path(__file__).with_name("pw_stand_in.py")
DEBIAN_PSEUDOPOTENTIALS = Path("/usr/share/espresso/pseudo")

UPF = """<UPF version="2.0.1">
  <PP_INFO>Generated with nothing in it</PP_INFO>
  <PP_HEADER element="{element}" pseudo_type="NC" functional="{functional}" z_valence="4.0"/>
</UPF>
"""


def write_upf(folder: Path, name: str, functional: str = " SLA  PW   PBX  PBC") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(UPF.format(element=name.partition(".")[0], functional=functional))
    return path


@pytest.fixture
def silicon() -> Crystal:
    """Diamond Si, 5 % too large in volume."""
    lattice = 2.715 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    return with_volume(Crystal(lattice, np.array([[0.0] * 3, [0.25] * 3]), np.array([14, 14])), 42.0)


@pytest.fixture
def pseudo(tmp_path) -> Path:
    folder = tmp_path / "pbe"
    write_upf(folder, "Si.pbe-n-rrkjus_psl.1.0.0.UPF")
    write_upf(folder, "ge_pbe_v1.4.uspp.F.UPF", "PBE")
    write_upf(folder, "Ni.pbe.UPF")
    return folder


@pytest.fixture
def espresso(tmp_path, pseudo):
    """A function that makes the oracle with a stand-in of a given behaviour; equilibrium at 40 A^3."""

    def make(behaviour="good", *, relaxation=None, **settings):
        command = shlex.join([sys.executable, str(STAND_IN), json.dumps({"volume": 40.0, "behaviour": behaviour})])
        given = {"command": command, "pseudo_dir": pseudo, "ecutwfc_ry": 30.0, "folder": tmp_path / "espresso"}
        return EspressoOracle(EspressoSettings.model_validate(given | settings), relaxation)

    return make


def test_a_relaxation(espresso, silicon):
    oracle = espresso(keep="all")
    calculation = pickle.loads(pickle.dumps(oracle)).relax(silicon)
    assert (calculation.status, calculation.reason) == (Status.CONVERGED, "")
    assert calculation.crystal.volume == pytest.approx(40.0, rel=0.01)
    assert calculation.energy == pytest.approx(-200.0, abs=1e-3)
    assert calculation.frames.energies[0] == pytest.approx(-200.0 + 0.25 * 4.0 / 40.0, abs=5e-5)  # two CODATA years
    np.testing.assert_allclose(calculation.frames.stresses[0], 0.5 * 2.0 / 40.0 * np.eye(3), atol=1e-6)
    assert calculation.band_gap == pytest.approx(7.2 - 5.9)
    assert (calculation.oracle.version, calculation.oracle.code) == ("7.3", "pw.x")
    assert calculation.oracle.level == "espresso-pbe-30Ry-k0.25-cold0.01"
    (folder,) = oracle.settings.folder.iterdir()
    assert len((folder / "starts.txt").read_text().split()) == len(calculation.frames)  # no run twice for the stress


def test_what_pw_is_asked(espresso, silicon):
    oracle = espresso(keep="all", input_data={"electrons": {"mixing_beta": 0.2}, "system": {"vdw_corr": "dft-d3"}})
    nickel_silicide = Crystal(silicon.lattice, silicon.frac_coords, np.array([28, 14]))
    oracle.relax(nickel_silicide)
    text = next(oracle.settings.folder.glob("*/espresso.pwi")).read_text()
    for line in (
        "ecutwfc          = 30.0",
        "ecutrho          = 240.0",
        "nspin            = 2",
        "starting_magnetization(1) = 0.5",
        "starting_magnetization(2) = 0.0",
        "mixing_beta      = 0.2",
        "vdw_corr         = 'dft-d3'",
        "conv_thr         = 2e-09",
        "8 8 8  0 0 0",
    ):
        assert line in text
    assert oracle.identity.level.startswith("espresso-pbe-30Ry-k0.25-cold0.01-")  # with a digest: dispersion
    assert espresso(input_data={"electrons": {"mixing_beta": 0.2}}).identity.level == espresso().identity.level


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("scf", "ElectronsError: pw.x: the electrons did not converge in 200 iterations; see "),
        ("routine", "PwError: pw.x: file ./Si.UPF not readable (routine readpp, 1); see "),
        ("crash", "PwError: pw.x ended with code 139 after: Segmentation fault (core dumped); see "),
    ],
)
def test_failures_have_pws_own_words(espresso, silicon, behaviour, reason):
    calculation = espresso(behaviour).relax(silicon)
    assert calculation.status == Status.FAILED
    assert calculation.reason.startswith(reason)
    assert Path(calculation.reason.partition("see ")[2]).is_dir()
    assert (calculation.crystal, calculation.band_gap) == (None, None)


def test_a_metal_has_no_gap(espresso, silicon):
    assert espresso("metal").relax(silicon).band_gap == 0.0


def test_electrons_that_need_other_mixing(espresso, silicon):
    """The first rung helps, and stays: no other geometry fails first."""
    oracle = espresso("mixing", keep="all")
    calculation = oracle.relax(silicon)
    assert calculation.status == Status.CONVERGED
    rung = "mixing_beta = 0.2, mixing_ndim = 12"
    assert calculation.corrections == (f"pw.x: the electrons did not converge in 200 iterations: {rung}",)
    starts = next(oracle.settings.folder.glob("*/starts.txt")).read_text().split()
    assert len(starts) == len(calculation.frames) + 1


def test_every_rung_is_tried(espresso, silicon):
    oracle = espresso("scf")
    calculation = oracle.relax(silicon)
    assert len(calculation.corrections) == 3
    text = next(oracle.settings.folder.glob("*/espresso.pwi")).read_text()
    for line in ("mixing_beta      = 0.1", "mixing_mode      = 'local-TF'", "diagonalization  = 'cg'"):
        assert line in text


def test_frames_before_a_failure_are_kept(espresso, silicon):
    calculation = espresso("third", relaxation=RelaxationSettings(fmax=1e-4)).relax(silicon)
    assert calculation.status == Status.FAILED
    assert len(calculation.frames) == 2


def test_the_time_limit_ends_pw(espresso, silicon):
    begun = time.monotonic()
    calculation = espresso("hang", relaxation=RelaxationSettings(timeout_s=0.5)).relax(silicon)
    assert time.monotonic() - begun < 30.0
    assert (calculation.status, calculation.reason) == (Status.TIMED_OUT, "0.5 s passed after 0 steps")
    assert calculation.crystal is None


def test_step_limit_and_explosion_are_our_own(espresso, silicon):
    calculation = espresso(relaxation=RelaxationSettings(fmax=1e-4, max_steps=1)).relax(silicon)
    assert (calculation.status, len(calculation.frames)) == (Status.UNCONVERGED, 2)
    assert calculation.band_gap == pytest.approx(1.3)
    calculation = espresso(energy_per_atom_range=(-99.0, 0.0)).relax(silicon)
    assert calculation.status == Status.EXPLODED
    assert calculation.reason.startswith("energy per atom in eV is -99.99, outside -99..0")


def test_positions_only_need_no_stress(espresso, silicon):
    oracle = espresso(relaxation=RelaxationSettings(relax_cell=False), keep="all")
    calculation = oracle.relax(silicon)
    assert (calculation.status, calculation.stress) == (Status.CONVERGED, None)
    assert "tstress          = .false." in next(oracle.settings.folder.glob("*/espresso.pwi")).read_text()


def test_folders_stay_as_asked_and_are_never_shared(espresso, silicon):
    oracle = espresso()
    oracle.relax(silicon)
    assert list(oracle.settings.folder.iterdir()) == []  # keep = "failed"
    for _ in range(2):
        espresso("crash").relax(silicon)
    assert sorted(path.suffix for path in oracle.settings.folder.iterdir()) == [".1", ".2"]
    dense = with_volume(silicon, 3.0)
    assert oracle.relax(dense).status == Status.TOO_DENSE


# ---------------------------------------------------------------------------------------------- set-up


def test_what_is_missing_is_named_before_anything_is_written(tmp_path, pseudo, silicon):
    folder = tmp_path / "espresso"
    good = {"command": sys.executable, "pseudo_dir": pseudo, "ecutwfc_ry": 30.0, "folder": folder}
    for wrong, message in (
        ({"command": "no_such_pw"}, r"no executable 'no_such_pw' on the PATH; install Quantum ESPRESSO"),
        ({"pseudo_dir": None}, r"needs a folder of pseudopotentials \(UPF\): set espresso.pseudo_dir"),
        ({"pseudo_dir": tmp_path / "nowhere"}, "nowhere does not exist"),
        ({"pseudo_dir": tmp_path}, "has no UPF file"),
        ({"pseudopotentials": {"Si": "Si.UPF"}}, "espresso.pseudopotentials has Si = 'Si.UPF': no such element"),
    ):
        with pytest.raises(OracleSetupError, match=message):
            EspressoOracle(EspressoSettings.model_validate(good | wrong))
    oracle = EspressoOracle(EspressoSettings.model_validate(good))
    oracle.check_elements([14, 32])
    with pytest.raises(OracleSetupError, match="no pseudopotential for Na, O in"):
        oracle.check_elements([8, 11, 14])
    with pytest.raises(OracleSetupError, match="no pseudopotential for O in"):
        oracle.relax(Crystal(silicon.lattice, silicon.frac_coords, np.array([14, 8])))
    assert not folder.exists()


def test_the_oracle_comes_from_settings(pseudo, tmp_path):
    section = {"command": sys.executable, "pseudo_dir": str(pseudo), "family": "SSSP", "folder": str(tmp_path)}
    settings = OracleSettings.model_validate({"name": "espresso", "espresso": section})
    oracle = make_oracle(settings)
    assert oracle.identity.level == "espresso-SSSP-ssspRy-k0.25-cold0.01"
    assert (oracle.relaxation.timeout_s, oracle.relaxation.energy_per_atom_range) == (86400.0, (-1e5, 0.0))


def test_pseudopotentials_are_chosen_and_compared(pseudo):
    write_upf(pseudo, "Si.pbe-rrkj.UPF")
    folder = PseudopotentialFolder(EspressoSettings(pseudo_dir=pseudo))
    assert folder.of(["Ge"])["Ge"].functional == "pbe"
    with pytest.raises(OracleSetupError, match=r"2 pseudopotentials for Si: .*choose one by espresso.pseudopotentials"):
        folder.of(["Si"])
    chosen = {"Si": "Si.pbe-rrkj.UPF"}
    found = PseudopotentialFolder(EspressoSettings(pseudo_dir=pseudo, pseudopotentials=chosen)).of(["Si", "Ge"])
    assert found["Si"].path.name == "Si.pbe-rrkj.UPF"
    write_upf(pseudo, "C.pz-vbc.UPF", " SLA  PZ   NOGX NOGC")
    (pseudo / "N.upf").write_text("not one")
    folder = PseudopotentialFolder(EspressoSettings(pseudo_dir=pseudo))
    with pytest.raises(OracleSetupError, match=r"different functionals \(C: lda, Ge: pbe\)"):
        folder.of(["C", "Ge"])
    with pytest.raises(OracleSetupError, match=r"N\.upf is not a UPF file"):
        folder.of(["N"])


def test_the_sssp_file_gives_names_and_cutoffs(pseudo):
    file = write_upf(pseudo, "Si.pbe-rrkj.UPF")
    md5 = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    table = {
        "Si": {"filename": "Si.pbe-rrkj.UPF", "md5": md5, "cutoff_wfc": 30.0, "cutoff_rho": 240.0},
        "Ge": {"filename": "ge_pbe_v1.4.uspp.F.UPF", "cutoff_wfc": 40.0, "cutoff_rho": 320.0},
    }
    (pseudo / "SSSP.json").write_text(json.dumps(table))
    settings = EspressoSettings(pseudo_dir=pseudo)
    folder = PseudopotentialFolder(settings)
    assert cutoffs_ry(folder.of(["Si"]), settings) == (30.0, 240.0)
    assert cutoffs_ry(folder.of(["Si", "Ge"]), settings) == (40.0, 320.0)
    assert cutoffs_ry(folder.of(["Si", "Ge"]), EspressoSettings(ecutwfc_ry=50.0)) == (50.0, 400.0)
    assert level_name(settings) == "espresso-pbe-ssspRy-k0.25-cold0.01"
    with pytest.raises(OracleSetupError, match=r"no cutoff for Ni: set espresso\.ecutwfc_ry"):
        cutoffs_ry(folder.of(["Si", "Ni"]), settings)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(OracleSetupError, match="its MD5 differs"):
        folder.of(["Si"])


def test_k_meshes(silicon):
    assert k_mesh(Crystal(4.0 * np.eye(3), np.zeros((1, 3)), np.array([84])), 2 * np.pi / 4.0 / 5) == (5, 5, 5)
    assert k_mesh(Crystal(np.diag([3.0, 6.0, 60.0]), np.zeros((1, 3)), np.array([84])), 0.35) == (6, 3, 1)


def test_band_gaps():
    def gap(levels, fermi=1.0):
        calculator = SinglePointDFTCalculator(Atoms(), efermi=fermi)
        calculator.kpts = [SinglePointKPoint(1.0, spin, 0, eps_n=np.array(eps)) for spin, eps in levels]
        return band_gap(calculator)

    assert gap([(0, [-1.0, 0.5, 3.0]), (0, [-1.0, 0.0, 2.5])]) == pytest.approx(2.0)  # indirect
    assert gap([(0, [-1.0, 0.5, 3.0]), (0, [-1.0, 1.5, 2.5])]) == 0.0  # a band crosses
    assert gap([(0, [-1.0, 0.5, 3.0]), (1, [-1.0, 1.5, 2.5])]) == pytest.approx(1.0)  # spins are filled differently
    assert gap([(0, [-1.0, 0.5])]) is None
    assert gap([]) is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"input_data": {"ions": {}}}, "'ions' is no namelist for input_data"),
        ({"input_data": {"system": {"ecutwfc": 30}}}, "ecutwfc is decided by the oracle"),
        ({"k_spacing": 0}, "greater than 0"),
        ({"smearing": "fermi"}, "smearing: Input should be"),
    ],
)
def test_wrong_settings(data, message):
    with pytest.raises(SettingsError, match=message):
        validate(EspressoSettings, data)


# ---------------------------------------------------------------------------------------------- pw.x itself


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pw.x") is None or not DEBIAN_PSEUDOPOTENTIALS.is_dir(),
    reason="needs pw.x and its pseudopotentials (Debian: quantum-espresso, quantum-espresso-data)",
)
def test_silicon_with_pw_itself(tmp_path, silicon):
    """PBE lattice constant of silicon: 5.469 A (all-electron, doi:10.1103/PhysRevB.79.085104)."""
    chosen = {"Si": "Si.pbe-rrkj.UPF"}
    settings = EspressoSettings(
        pseudo_dir=DEBIAN_PSEUDOPOTENTIALS, pseudopotentials=chosen, ecutwfc_ry=24.0, ecutrho_ry=96.0, k_spacing=0.4,
        folder=tmp_path,
    )  # fmt: skip
    calculation = EspressoOracle(settings).relax(silicon)
    assert calculation.status == Status.CONVERGED
    assert (4 * calculation.crystal.volume) ** (1 / 3) == pytest.approx(5.469, rel=0.01)
    assert 0.4 < calculation.band_gap < 1.0  # on this mesh; PBE has 0.6
