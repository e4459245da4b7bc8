"""The reading of VASP's files: recorded ones where they are, and those of the stand-in in `test_vasp_oracle`."""

import gzip

import numpy as np
import pytest

from opengnome.crystals import Crystal
from opengnome.oracles import Frames
from opengnome.oracles.vasp_inputs import PoscarOrder
from opengnome.oracles.vasp_outputs import KBAR_IN_EV_PER_A3, join_frames, read_contcar, read_output

pytest.importorskip("pymatgen.io.vasp", reason="reading VASP's files needs the full pymatgen")


@pytest.fixture
def unpacked(shared_data, tmp_path):
    """A function that puts a recorded file as vasprun.xml into the folder, and gives its content."""

    def put(name):
        content = gzip.decompress((shared_data / "vasp_samples" / name).read_bytes())
        (tmp_path / "vasprun.xml").write_bytes(content)
        return content

    return put


def order(n_atoms: int) -> PoscarOrder:
    return PoscarOrder(np.arange(n_atoms), np.arange(3))


def test_a_relaxation_of_vasp_5(tmp_path, unpacked):
    """LiFePO4 of pymatgen's test files: 29 ionic steps."""
    unpacked("pymatgen_vasprun.xml.gz")
    output = read_output(tmp_path, order(25))
    assert (output.is_complete, output.electronic_converged, output.ionic_converged) == (True, True, True)
    assert (len(output.frames), output.version) == (29, "5.2.2")
    assert output.frames.energies[-1] == pytest.approx(-269.38319884)  # the file's own e_0_energy there is 0
    assert output.frames.energies[0] == pytest.approx(-269.00551374)
    assert output.frames.forces[-1, 0] == pytest.approx([0.07069918, -0.05348948, -0.03962934])
    assert output.frames.stresses[-1, 2, 2] == pytest.approx(1.15910067 * 0.1 / 160.21766208)  # tension is positive
    assert output.band_gap == pytest.approx(2.539, abs=1e-3)
    assert output.magnetization is None  # no OUTCAR beside it


def test_atoms_come_back_in_the_order_of_the_crystal(tmp_path, unpacked):
    unpacked("pymatgen_vasprun.xml.gz")
    plain, permutation = read_output(tmp_path, order(25)), np.random.default_rng(1).permutation(25)
    other = read_output(tmp_path, PoscarOrder(permutation, np.array([1, 0, 2])))
    np.testing.assert_array_equal(other.frames.forces[:, permutation], plain.frames.forces)
    np.testing.assert_array_equal(other.frames.positions[:, permutation], plain.frames.positions)
    np.testing.assert_array_equal(other.frames.lattices[:, [1, 0, 2]], plain.frames.lattices)
    np.testing.assert_array_equal(other.frames.stresses, plain.frames.stresses)


def test_an_unconverged_run(tmp_path, unpacked):
    """V4O10: the electronic steps reach NELM in every ionic step."""
    unpacked("pymatgen_vasprun.unconverged.xml.gz")
    output = read_output(tmp_path, order(14))
    assert (output.is_complete, output.electronic_converged, output.ionic_converged) == (True, False, True)
    assert len(output.frames) == 5


def test_an_r2scan_run(tmp_path, unpacked):
    unpacked("pymatgen_vasprun.r2scan.xml.gz")
    output = read_output(tmp_path, order(2))
    assert output.frames.energies == pytest.approx([-11.89059065])
    assert output.band_gap == pytest.approx(9.8823)  # LiF


def test_a_file_cut_anywhere(tmp_path, unpacked):
    content = unpacked("pymatgen_vasprun.xml.gz")
    whole = read_output(tmp_path, order(25)).frames
    n_frames = []
    for share in (0.0, 0.001, 0.05, 0.5, 0.9999):
        (tmp_path / "vasprun.xml").write_bytes(content[: int(share * len(content))])
        output = read_output(tmp_path, order(25))
        assert (output.is_complete, output.electronic_converged, output.ionic_converged) == (False, False, False)
        n_frames.append(0 if output.frames is None else len(output.frames))
        if output.frames is not None:
            np.testing.assert_array_equal(output.frames.forces, whole.forces[: n_frames[-1]])
    assert n_frames == sorted(n_frames)
    assert n_frames[0] == 0
    assert n_frames[-1] == 29


def test_the_moment_of_an_outcar(tmp_path, unpacked, shared_data):
    """The OUTCAR of another run beside a spin-polarised vasprun.xml: only its last moments are read."""
    unpacked("pymatgen_vasprun.xml.gz")
    (tmp_path / "OUTCAR").write_bytes(
        gzip.decompress((shared_data / "vasp_samples" / "pymatgen_OUTCAR.gz").read_bytes())
    )
    output = read_output(tmp_path, order(25))
    assert output.magnetization == pytest.approx(0.9999998)
    np.testing.assert_array_equal(output.site_moments, [0.005, 0.813, 0.813, -0.112, -0.162, -0.112, -0.162])


def test_a_run_that_a_stopcar_ended_is_not_converged(tmp_path, unpacked):
    """It has fewer ionic steps than allowed, which pymatgen takes for convergence."""
    unpacked("pymatgen_vasprun.xml.gz")
    (tmp_path / "OUTCAR").write_text(" soft stop encountered!  aborting job ...\n")
    assert not read_output(tmp_path, order(25)).ionic_converged


def test_nothing_there(tmp_path):
    output = read_output(tmp_path, order(2))
    assert (output.frames, output.is_complete, output.version) == (None, False, "")


def test_the_unit_of_stress():
    assert pytest.approx(1.0 / 1602.1766208) == KBAR_IN_EV_PER_A3


def frames_of(fractions, lattice):
    n_frames, n_atoms = len(fractions), len(fractions[0])
    return Frames(
        positions=np.array([np.array(f) @ lattice for f in fractions]),
        lattices=np.array([lattice] * n_frames),
        energies=np.arange(n_frames, dtype=float),
        forces=np.zeros((n_frames, n_atoms, 3)),
        stresses=np.zeros((n_frames, 3, 3)),
    )


def test_wrapped_atoms_are_followed_over_the_border_and_from_part_to_part():
    lattice = np.array([[4.0, 0, 0], [1.0, 5.0, 0], [0, 0.5, 6.0]])
    first = frames_of([[[0.01, 0.5, 0.0]], [[0.99, 0.5, 0.0]]], lattice)
    second = frames_of([[[0.97, 0.5, 0.98]]], lattice)
    joined = join_frames([None, first, second], np.array([[1.01, 0.5, 1.0]]))
    fractions = joined.positions @ np.linalg.inv(lattice)
    np.testing.assert_allclose(fractions[:, 0], [[1.01, 0.5, 1.0], [0.99, 0.5, 1.0], [0.97, 0.5, 0.98]], atol=1e-12)
    np.testing.assert_array_equal(joined.energies, [0.0, 1.0, 0.0])
    assert first.positions[0, 0, 0] == pytest.approx(0.54)  # the parts are left alone
    assert join_frames([None, None], np.zeros((1, 3))) is None


def test_a_contcar_counts_only_when_it_is_whole(tmp_path):
    crystal = Crystal(4.0 * np.eye(3), np.array([[0.0] * 3, [0.5] * 3]), np.array([17, 55]))
    swapped = PoscarOrder(np.array([1, 0]), np.arange(3))  # Cs first
    text = "Cs Cl\n1.0\n4.1 0 0\n0 4.1 0\n0 0 4.1\nCs Cl\n1 1\ndirect\n0.5 0.5 0.5\n0.01 0 0\n"
    assert read_contcar(tmp_path, swapped, crystal) is None
    (tmp_path / "CONTCAR").write_text(text)
    found = read_contcar(tmp_path, swapped, crystal)
    assert (found.volume, found.symbols) == (pytest.approx(4.1**3), ("Cl", "Cs"))
    np.testing.assert_allclose(found.frac_coords, [[0.01, 0, 0], [0.5, 0.5, 0.5]])
    for cut in (text[:60], text[:35], "", text.replace("1 1\n", "2 1\n")):
        (tmp_path / "CONTCAR").write_text(cut)
        assert read_contcar(tmp_path, swapped, crystal) is None
