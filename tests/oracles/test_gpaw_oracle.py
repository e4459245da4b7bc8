"""GPAW itself on cells that take seconds: cutoffs and meshes are far from converged, what holds at any is tested."""

import shutil

import numpy as np
import pytest

pytest.importorskip("gpaw", reason="GPAW is not installed: pip install 'opengnome[gpaw]' (see docs/dft.md)")

from opengnome.campaign import work
from opengnome.crystals import Crystal, with_volume
from opengnome.crystals.interop import to_ase
from opengnome.crystals.symmetry import space_group_number
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, read_calculation
from opengnome.oracles.gpaw_engine import GpawEngine, divides_bands
from opengnome.oracles.gpaw_oracle import GpawOracle
from opengnome.oracles.gpaw_parameters import gpaw_parameters, plan_stages
from opengnome.oracles.gpaw_settings import GpawSettings
from opengnome.settings import validate

pytestmark = [
    # of ASE's and GPAW's own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

FCC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
CHEAP = {"cutoff": 250.0, "kpoint_density": 12.0, "static_kpoint_density": 12.0}
"""4 x 4 x 4 k-points for silicon."""
OXIDE = {"cutoff": 400.0, "kpoint_density": 1.5, "static_kpoint_density": 1.5}
"""2 x 2 x 2 k-points for NiO; at 250 eV it has no moment."""


def silicon() -> Crystal:
    """Diamond, 3 % too large in volume, the bond 4 % too long; the inversion centre is at the origin."""
    frac = np.array([[-0.13] * 3, [0.13] * 3])
    return with_volume(Crystal(5.47 * FCC, frac, np.full(2, 14)), 42.2)


def rocksalt(cation, anion, a) -> Crystal:
    return Crystal(a * FCC, np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([cation, anion]))


def evaluate(crystal, tmp_path, **settings):
    """A GPAW calculator that has evaluated the crystal, without our projections."""
    chosen = GpawSettings(**(CHEAP | settings))
    parameters = gpaw_parameters(crystal, plan_stages(chosen, max_steps=0)[0], chosen)
    atoms = to_ase(crystal)
    atoms.calc = GpawEngine().calculator(parameters, tmp_path / "log.txt")
    return atoms


def test_a_unit_of_a_campaign_relaxes_silicon(tmp_path):
    # seen from elsewhere GPAW finds no grid that has the symmetries
    moved = Crystal(silicon().lattice, silicon().frac_coords + 0.13, silicon().atomic_numbers)
    settings = validate(
        OracleSettings, {"name": "gpaw", "gpaw": CHEAP | {"folder": tmp_path / "gpaw", "functional": "pbe"}}
    )
    path = tmp_path / "result.parquet"
    work.calculate(path=path, crystal=moved, settings=settings)
    calculation = read_calculation(path)
    assert calculation.status == Status.CONVERGED, calculation.reason
    assert calculation.oracle.level == "gpaw-pbe-250eV-k12"
    assert calculation.corrections == ()
    assert space_group_number(calculation.crystal, symprec=0.05) == 227
    # a = 5.466 A in PBE (doi:10.1103/PhysRevB.81.115126)
    assert calculation.crystal.volume == pytest.approx(5.466**3 / 4, rel=0.03)
    assert calculation.energy_per_atom == pytest.approx(-5.386, abs=0.1)  # with 6 x 6 x 6 k-points
    assert 0.4 < calculation.band_gap < 1.0
    assert len(calculation.frames) == calculation.n_steps + 1 > 4
    assert np.isfinite(calculation.frames.stresses).all()


def test_forces_are_the_derivative_of_the_energy(tmp_path):
    atoms = evaluate(silicon(), tmp_path)
    force = atoms.get_forces()[1]
    assert np.abs(force).max() > 0.3
    energies = []
    for step in (-0.01, 0.01):
        moved = atoms.copy()
        # along the bond, half by either atom: the inversion centre stays at the origin
        moved.positions += step / np.sqrt(3) * np.array([[-0.5], [0.5]])
        moved.calc = evaluate(silicon(), tmp_path).calc
        # of the smeared free energy; the one extrapolated to no smearing has a slope 3 % off
        energies.append(moved.get_potential_energy(force_consistent=True))
    assert force.sum() / np.sqrt(3) == pytest.approx(-(energies[1] - energies[0]) / 0.02, abs=0.01)


def test_hubbard_u_and_spin(tmp_path):
    """Ferromagnetic NiO: U is a penalty, and keeps the moment of two electrons that PBE loses on this mesh."""
    oxide = rocksalt(28, 8, 4.19)
    plain = evaluate(oxide, tmp_path, **OXIDE, functional="pbe")
    with_u = evaluate(oxide, tmp_path, **OXIDE, functional="pbe+u")
    assert with_u.get_potential_energy() > plain.get_potential_energy() + 0.5
    assert with_u.get_magnetic_moment() == pytest.approx(2.0, abs=0.05)
    assert with_u.get_magnetic_moments()[0] == pytest.approx(1.76, abs=0.1)


def test_r2scan_is_another_level_and_has_a_stress(tmp_path):
    settings = GpawSettings(**CHEAP, functional="r2scan", folder=tmp_path)
    calculation = GpawOracle(settings, RelaxationSettings(max_steps=0)).relax(silicon())
    assert calculation.status in (Status.UNCONVERGED, Status.CONVERGED), calculation.reason
    assert calculation.oracle.level == "gpaw-r2scan-250eV-k12"
    assert np.isfinite(calculation.stress).all()
    pbe = evaluate(silicon(), tmp_path)
    assert abs(calculation.energy - pbe.get_potential_energy()) > 1.0


MPI = "mpiexec --allow-run-as-root --oversubscribe"


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="there is no mpiexec: install OpenMPI")
def test_more_ranks_than_kpoints(tmp_path):
    """Without ScaLAPACK GPAW fails with more processes than k-points."""
    settings = GpawSettings(**CHEAP, functional="pbe", ranks=5, mpi_command=MPI)
    for density, n_kpoints in ((1.5, 4), (0.1, 1)):
        meshes = {"kpoint_density": density, "static_kpoint_density": density}
        parallel = settings.model_copy(update=meshes | {"folder": tmp_path / f"four-{n_kpoints}"})
        alone = parallel.model_copy(update={"ranks": 1, "folder": tmp_path / f"one-{n_kpoints}"})
        once = RelaxationSettings(max_steps=0)
        shared, expected = (GpawOracle(s, once).relax(silicon()) for s in (parallel, alone))
        assert shared.status == Status.UNCONVERGED, shared.reason
        assert shared.energy == pytest.approx(expected.energy, abs=1e-6)
        log = next(parallel.folder.glob("*/01-static.txt")).read_text()
        assert divides_bands() or f"kpt:    {n_kpoints}\n" in log


def test_an_element_without_data_set_is_a_failure_with_a_reason(tmp_path):
    technetium = Crystal(2.74 * np.eye(3), np.zeros((1, 3)), np.array([43]))
    calculation = GpawOracle(GpawSettings(folder=tmp_path)).relax(technetium)
    assert calculation.reason == "there is no PAW data set of PBE for Tc"
