import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from toy_calculators import Toy

from opengnome.crystals import Crystal, with_volume
from opengnome.oracles import RelaxationSettings, Status
from opengnome.oracles.relaxation import relax_with_calculator


def relax(crystal, calculator, identity, **settings):
    return relax_with_calculator(
        crystal, lambda: calculator, settings=RelaxationSettings(**settings), identity=identity
    )


@pytest.mark.parametrize(("name", "optimizer_class"), [("bfgs", BFGS), ("fire", FIRE)])
def test_relaxation_equals_ase_run_by_hand(copper, identity, name, optimizer_class):
    calculation = relax(copper, EMT(), identity, optimizer=name, fmax=0.02)
    atoms = Atoms("Cu4", positions=copper.positions, cell=copper.lattice, pbc=True, calculator=EMT())
    optimizer = optimizer_class(FrechetCellFilter(atoms), logfile=None, maxstep=0.2)
    optimizer.run(fmax=0.02, steps=200)

    assert calculation.status == Status.CONVERGED
    assert calculation.reason == ""
    assert calculation.n_steps == optimizer.nsteps > 3
    np.testing.assert_allclose(calculation.crystal.lattice, atoms.cell.array, atol=1e-10)
    np.testing.assert_allclose(calculation.crystal.positions, atoms.positions, atol=1e-10)
    assert calculation.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert calculation.energy_per_atom == pytest.approx(calculation.energy / 4, abs=1e-15)
    assert calculation.fmax < 0.02


def test_every_step_is_a_frame(copper, identity):
    calculation = relax(copper, EMT(), identity)
    frames = calculation.frames
    assert len(frames) == calculation.n_steps + 1
    assert frames.forces.shape == (len(frames), 4, 3)
    assert frames.stresses.shape == frames.lattices.shape == (len(frames), 3, 3)
    np.testing.assert_array_equal(frames.positions[0], copper.positions)
    np.testing.assert_array_equal(frames.lattices[0], copper.lattice)
    assert frames.energies[-1] == calculation.energy < frames.energies[0]
    np.testing.assert_array_equal(frames.stresses[-1], calculation.stress)
    for index in (0, len(frames) // 2):  # each frame's energy is that of its geometry
        crystal = frames.crystal(index, copper.atomic_numbers)
        atoms = Atoms("Cu4", positions=crystal.positions, cell=crystal.lattice, pbc=True, calculator=EMT())
        assert frames.energies[index] == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frames.forces[index], atoms.get_forces(), atol=1e-9)
        np.testing.assert_allclose(frames.stresses[index], atoms.get_stress(voigt=False), atol=1e-9)


def test_cell_stays_when_not_relaxed(copper, identity):
    calculation = relax(copper, EMT(), identity, relax_cell=False)
    assert calculation.status == Status.CONVERGED
    np.testing.assert_array_equal(calculation.crystal.lattice, copper.lattice)
    assert calculation.stress is None
    assert np.linalg.norm(calculation.forces, axis=1).max() <= 0.05


def test_step_limit(copper, identity):
    calculation = relax(copper, EMT(), identity, max_steps=2)
    assert (calculation.status, calculation.n_steps, len(calculation.frames)) == (Status.UNCONVERGED, 2, 3)
    assert "after 2 steps, must be below 0.05" in calculation.reason
    assert calculation.crystal is not None
    assert calculation.energy == calculation.frames.energies[-1]


def test_single_point(copper, identity):
    calculation = relax(copper, EMT(), identity, max_steps=0)
    assert calculation.n_steps == 0
    np.testing.assert_allclose(calculation.crystal.positions, copper.positions, atol=1e-12)


def test_time_limit_is_looked_at_after_every_step(copper, identity):
    calculation = relax(copper, Toy(force=1.0, sleep_s=0.02), identity, timeout_s=0.2)
    assert calculation.status == Status.TIMED_OUT
    assert calculation.reason == f"0.2 s passed after {calculation.n_steps} steps"
    assert calculation.n_steps < 10  # each takes 0.02 s at least
    assert calculation.crystal is not None


@pytest.mark.parametrize(
    ("calculator", "settings", "status", "reason"),
    [
        (Toy(stress=-5.0), {"max_steps": 500}, Status.EXPLODED, r"volume / initial volume is 3\.\d+"),
        (
            Toy(stress=2.0),
            {"min_volume_per_atom": 0.1},
            Status.EXPLODED,
            r"volume / initial volume is 0\.2\d+",
        ),
        (
            Toy(stress=2.0),
            {"min_volume_per_atom": 8.0},
            Status.TOO_DENSE,
            r"A\^3 per atom, must be at least 8",
        ),
        (Toy(force=510.0), {}, Status.EXPLODED, r"largest force in eV/A is 509\.7"),
        (Toy(energy=-80.1), {}, Status.EXPLODED, r"energy per atom in eV is -20\.0"),
        (Toy(nan_at=0), {}, Status.NOT_FINITE, "not finite"),
        (Toy(force=1.0, nan_at=2), {}, Status.NOT_FINITE, "not finite"),
        (Toy(energy=np.inf), {}, Status.NOT_FINITE, "energy inf eV"),
        (Toy(force=1.0, raise_at=2), {}, Status.FAILED, "ArithmeticError: broken at call 2"),
    ],
)
def test_what_is_no_result_is_recorded_with_its_frames(copper, identity, calculator, settings, status, reason):
    calculation = relax(copper, calculator, identity, **settings)
    assert calculation.status == status
    assert re.search(reason, calculation.reason), calculation.reason
    assert calculation.crystal is None
    assert calculation.energy is None
    assert calculation.energy_per_atom is None
    assert calculation.forces is None
    assert len(calculation.frames) == calculation.n_steps + 1 == calculator.n_calls


def test_failure_at_the_first_call_has_no_frames(copper, identity):
    calculation = relax(copper, Toy(raise_at=0), identity)
    assert (calculation.status, calculation.frames, calculation.n_steps) == (Status.FAILED, None, 0)


def test_dense_crystals_never_reach_the_engine(copper, identity):
    calculator = Toy()
    near = Crystal(copper.lattice, copper.frac_coords * [0.1, 1, 1], copper.atomic_numbers)
    overlapping = Crystal(4 * np.eye(3), np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([29, 29]))
    for crystal, reason in [
        (with_volume(copper, 4 * 1.9), r"1.9 A^3 per atom, must be at least 2"),
        (overlapping, "two atoms are 0.4 A apart, must be at least 0.5"),
    ]:
        calculation = relax(crystal, calculator, identity)
        assert (calculation.status, calculation.reason) == (Status.TOO_DENSE, reason)
        assert calculation.frames is None
    assert calculator.n_calls == 0
    assert relax(near, calculator, identity, max_steps=0).status != Status.TOO_DENSE


def test_skewed_cell_keeps_the_crystal(copper, identity):
    """The description of the lattice does not change the relaxed energy."""
    skew = np.array([[1, 0, 0], [1, 1, 0], [0, 2, 1]])
    lattice = skew @ copper.lattice
    skewed = Crystal(lattice, np.linalg.solve(lattice.T, copper.positions.T).T, copper.atomic_numbers)
    energies = [relax(c, EMT(), identity, fmax=0.001).energy for c in (copper, skewed)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-4)
