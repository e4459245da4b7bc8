import numpy as np
import pytest

from opengnome.crystals import Crystal
from opengnome.crystals.io import from_ase, from_pymatgen, to_ase, to_pymatgen
from opengnome.errors import InvalidCrystalError


@pytest.fixture
def skewed() -> Crystal:
    rng = np.random.default_rng(3)
    lattice = 6 * np.eye(3) + rng.normal(size=(3, 3))
    return Crystal(lattice, rng.uniform(-1, 2, (4, 3)), np.array([3, 26, 8, 8]))


def test_there_and_back_again(skewed):
    for there, back in ((to_pymatgen, from_pymatgen), (to_ase, from_ase)):
        returned = back(there(skewed))
        assert returned.lattice == pytest.approx(skewed.lattice)
        assert returned.frac_coords == pytest.approx(skewed.frac_coords)
        assert returned.atomic_numbers.tolist() == skewed.atomic_numbers.tolist()


def test_the_objects_hold_the_same_crystal(skewed):
    structure, atoms = to_pymatgen(skewed), to_ase(skewed)
    assert structure.volume == pytest.approx(skewed.volume)
    assert structure.cart_coords == pytest.approx(skewed.positions)
    assert structure.composition.reduced_formula == skewed.reduced_formula
    assert atoms.positions == pytest.approx(skewed.positions)
    assert atoms.pbc.all()


def test_oxidation_states_are_dropped_and_disorder_is_refused():
    from pymatgen.core import Structure

    charged = Structure(4 * np.eye(3), ["Na+", "Cl-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert from_pymatgen(charged).atomic_numbers.tolist() == [11, 17]
    mixed = Structure(4 * np.eye(3), [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(InvalidCrystalError, match=r"site 0 is occupied by 'K:0\.5.*, Na:0\.5"):
        from_pymatgen(mixed)
    dummy = Structure(4 * np.eye(3), ["X0+"], [[0, 0, 0]])
    with pytest.raises(InvalidCrystalError, match="not an element"):
        from_pymatgen(dummy)


def test_ase_atoms_that_are_no_crystal():
    from ase import Atoms
    from ase.build import fcc111

    with pytest.raises(InvalidCrystalError, match="periodic along no"):
        from_ase(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]]))
    with pytest.raises(InvalidCrystalError, match="periodic along two"):
        from_ase(fcc111("Cu", size=(1, 1, 3), vacuum=8.0))
    alloy = Atoms("Cu", cell=3.6 * np.eye(3), pbc=True, info={"occupancy": {"0": {"Cu": 0.75, "Au": 0.25}}})
    with pytest.raises(InvalidCrystalError, match="site 0 has the occupancy"):
        from_ase(alloy)
