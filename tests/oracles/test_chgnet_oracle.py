import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, with_atomic_numbers
from opengnome.errors import OracleSetupError
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, make_oracle
from opengnome.oracles.chgnet import ChgnetOracle, evaluate, load_model


def crystals() -> list[Crystal]:
    rng = np.random.default_rng(7)
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    skew = 3.9 * np.array([[1.0, 0.05, 0], [0.1, 1.05, 0], [0, -0.1, 0.95]])
    return [
        Crystal(skew, frac + rng.normal(0, 0.02, (5, 3)), np.array([38, 22, 8, 8, 8])),
        Crystal(2.55 * (np.ones((3, 3)) - np.eye(3)) / np.sqrt(2), np.zeros((1, 3)), np.array([29])),
        Crystal(4.6 * np.eye(3), rng.random((4, 3)) * 0.2 + frac[1:], np.array([1, 3, 26, 94])),
        Crystal(np.diag([4.0, 5.0, 14.0]), frac[:2] + np.array([[3, -2, 0.1], [0, 0, 0]]), np.array([55, 17])),
    ]


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning")  # stock CHGNet's
@pytest.mark.parametrize("crystal", crystals(), ids=lambda c: c.reduced_formula)
def test_one_backward_pass_equals_the_stock_calculator(crystal):
    from ase import Atoms
    from chgnet.model.dynamics import CHGNetCalculator

    atoms = Atoms(crystal.symbols, positions=crystal.positions, cell=crystal.lattice, pbc=True)
    atoms.calc = CHGNetCalculator(use_device="cpu")
    energy, forces, stress = evaluate(crystal)
    assert energy / crystal.n_atoms == pytest.approx(atoms.get_potential_energy() / crystal.n_atoms, abs=1e-5)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-4)
    np.testing.assert_allclose(stress, atoms.get_stress(voigt=False), atol=1e-5)


def test_relaxation_is_bitwise_the_same_in_another_process(rock_salt):
    displaced = Crystal(rock_salt.lattice * 1.03, rock_salt.frac_coords + np.array([[0.02], [0]]), [11, 17])
    calculation = ChgnetOracle().relax(displaced)
    assert calculation.status == Status.CONVERGED
    code = (
        "import pickle, sys\n"
        "from opengnome.oracles import OracleSettings, make_oracle\n"
        "calculation = make_oracle(OracleSettings()).relax(pickle.load(sys.stdin.buffer))\n"
        "sys.stdout.buffer.write(pickle.dumps(calculation))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "3"}
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, input=pickle.dumps(displaced), stdout=-1, check=True, env=environment)
    other = pickle.loads(answer.stdout)  # and nothing else was printed there
    assert other.crystal == calculation.crystal
    assert other.energy == calculation.energy
    for name in ("positions", "lattices", "energies", "forces", "stresses"):
        assert getattr(other.frames, name).tobytes() == getattr(calculation.frames, name).tobytes()


def test_relaxed_rock_salt(rock_salt):
    """Materials Project PBE: 5.69 A (mp-22862, conventional cell of four primitive ones)."""
    calculation = ChgnetOracle(RelaxationSettings(fmax=0.01)).relax(rock_salt)
    assert (4 * calculation.crystal.volume) ** (1 / 3) == pytest.approx(5.69, abs=0.04)
    assert np.abs(calculation.stress).max() * calculation.crystal.volume / 2 < 0.01


def test_threads_are_given_back(rock_salt):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ChgnetOracle(RelaxationSettings(max_steps=0)).relax(rock_salt)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_isolated_atoms_fail_with_the_reason():
    lonely = Crystal(8 * np.eye(3), np.zeros((1, 3)), np.array([10]))
    calculation = ChgnetOracle().relax(lonely)
    assert calculation.status == Status.FAILED
    assert calculation.reason == "ValueError: 1 atoms have no neighbour within 6 A"


@pytest.mark.parametrize(("z", "symbol"), [(84, "Po"), (88, "Ra"), (98, "Cf")])
def test_untrained_elements_are_refused(rock_salt, z, symbol):
    calculation = ChgnetOracle().relax(with_atomic_numbers(rock_salt, [11, z]))
    assert (calculation.status, calculation.reason) == (Status.FAILED, f"CHGNet was not trained on {symbol}")


def test_known_elements_are_those_with_a_reference_energy():
    """CHGNet's composition model was fitted on its training set; absent elements kept small random ones."""
    from opengnome.oracles.chgnet import KNOWN_ELEMENTS

    weights = load_model().composition_model.fc.weight.detach().numpy().ravel()
    unfitted = {z for z in range(1, 95) if z not in KNOWN_ELEMENTS}
    assert unfitted == {84, 85, 86, 87, 88}
    assert np.abs(weights[83:88]).max() < 0.5 < np.abs(weights[[81, 82, 88, 89, 93]]).min()


def test_identity_and_pickling():
    oracle = make_oracle(OracleSettings())
    assert (oracle.identity.name, oracle.identity.level) == ("chgnet", "chgnet-0.3.0")
    assert pickle.loads(pickle.dumps(oracle)).identity == oracle.identity
    tighter = ChgnetOracle(RelaxationSettings(fmax=0.01))
    assert tighter.identity.settings_digest != oracle.identity.settings_digest


def test_broken_weights_stop_everything(rock_salt, monkeypatch):
    from chgnet.model.model import CHGNet

    def missing(**_):
        raise FileNotFoundError("chgnet_0.3.0.pth.tar")

    monkeypatch.setattr(CHGNet, "load", missing)
    load_model.cache_clear()
    try:
        with pytest.raises(OracleSetupError, match=r"CHGNet cannot be loaded: chgnet_0\.3\.0\.pth\.tar; reinstall"):
            ChgnetOracle().relax(rock_salt)
    finally:
        load_model.cache_clear()


def test_absent_package_is_a_broken_set_up(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(OracleSetupError, match="pip install chgnet"):
        ChgnetOracle()
