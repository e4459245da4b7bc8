import numpy as np
import pytest
from ase.data import covalent_radii
from monty.serialization import loadfn
from pymatgen.core import Species
from pymatgen.core.bond_valence import MODULE_DIR
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionProbability

from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.errors import InvalidCrystalError
from opengnome.generation.ions import _icsd_occurrences, species_table
from opengnome.generation.radii import COVALENT_RADII, ionic_radius


def test_weights_are_those_of_pymatgen():
    table = species_table()
    reference = SubstitutionProbability()
    assert len(table) == len(reference.species) == 230
    species = [Species.from_str(name) for name in table.names]
    assert set(species) == reference.species
    for i, j in np.random.default_rng(0).integers(0, 230, size=(500, 2)):
        assert table.lambdas[i, j] == table.lambdas[j, i] == reference.get_lambda(species[i], species[j])
    assert [s.oxi_state for s in species] == table.charges.tolist()
    assert [s.Z for s in species] == table.atomic_numbers.tolist()


def test_names_are_read_with_and_without_the_one():
    table = species_table()
    assert table.indices(["Na+", "O2-"]).tolist() == table.indices(["Na1+", "O2-"]).tolist()
    with pytest.raises(InvalidCrystalError, match="no ion 'Na2-'"):
        table.indices(["Na2-"])


def test_states_and_frequencies_belong_to_one_element():
    table = species_table()
    assert {table.names[i] for i in table.states[ATOMIC_NUMBERS["N"]]} == {"N1+", "N3+", "N3-", "N5+"}
    for states in table.states.values():
        assert table.frequencies[list(states)].sum() == pytest.approx(1)
    assert table.frequencies[table.index["Fe3+"]] > 5 * table.frequencies[table.index["Fe4+"]]


def test_icsd_occurrences_equal_the_yaml_file():
    occurrences = loadfn(f"{MODULE_DIR}/icsd_bv.yaml")["occurrence"]
    ours = _icsd_occurrences()
    assert len(ours) == len(occurrences)
    assert ours["Na1+"] == occurrences["Na+"]
    assert ours["Fe3+"] == occurrences["Fe3+"]


def test_covalent_radii_equal_ase():
    np.testing.assert_array_equal(COVALENT_RADII[1:97], covalent_radii[1:97])


@pytest.mark.parametrize(
    ("symbol", "charge", "radius"),
    [("O", -2, 1.40), ("Na", 1, 1.02), ("Fe", 2, 0.78), ("Fe", 3, 0.645), ("Si", 4, 0.40), ("H", 1, -0.28)],
)
def test_ionic_radius_is_shannons(symbol, charge, radius):
    assert ionic_radius(ATOMIC_NUMBERS[symbol], charge) == pytest.approx(radius)


def test_ionic_radius_of_an_untabulated_charge_lies_between_its_neighbours():
    z = ATOMIC_NUMBERS["Fe"]
    assert ionic_radius(z, 6) < ionic_radius(z, 5) < ionic_radius(z, 4)
    assert ionic_radius(ATOMIC_NUMBERS["Kr"], 2) == COVALENT_RADII[ATOMIC_NUMBERS["Kr"]]


@pytest.mark.parametrize(("symbol", "charge", "higher"), [("Sn", 2, 4), ("In", 1, 3), ("Zr", 2, 4)])
def test_a_cation_below_its_lowest_tabulated_charge_is_larger(symbol, charge, higher):
    """Shannon has no Sn2+, and Sn4+ is half as large: PbSe gave SnSe a lattice of 5.2 A (it has 6.0)."""
    z = ATOMIC_NUMBERS[symbol]
    assert ionic_radius(z, higher) < ionic_radius(z, charge) < COVALENT_RADII[z]
