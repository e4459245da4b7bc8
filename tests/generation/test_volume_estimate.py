import numpy as np
import pyarrow.parquet as pq
import pytest

from opengnome.crystals.composition import Composition
from opengnome.datasets.splits import held_out_mask
from opengnome.errors import InvalidCrystalError
from opengnome.generation.minimum_distances import contact_distance, given_pairs, minimum_distances
from opengnome.generation.radii import COVALENT_RADII
from opengnome.generation.volume_estimate import volume_estimate


def composition(formula):
    return Composition.from_formula(formula)


@pytest.mark.parametrize(
    ("formula", "measured", "source"),
    [  # volume per atom at room temperature, A^3
        ("NaCl", 22.4, "species_volumes"),
        ("SrTiO3", 11.9, "species_volumes"),
        ("LiFePO4", 10.4, "species_volumes"),
        ("MgAl2O4", 9.43, "species_volumes"),
        ("Fe3O4", 10.6, "ionic_volumes"),
        ("YBa2Cu3O7", 13.3, "ionic_volumes"),
        ("Ni3Al", 11.35, "metallic_volumes"),
        ("Si", 20.0, "elemental_volumes"),
        ("Cu", 11.8, "elemental_volumes"),
    ],
)
def test_volumes_of_known_crystals(formula, measured, source):
    estimate = volume_estimate(composition(formula))
    assert estimate.source == source
    assert estimate.volume_per_atom == pytest.approx(measured, rel=0.15)


def test_the_size_of_the_formula_does_not_matter():
    single, double = (volume_estimate(composition(f)) for f in ("TiO2", "Ti2O4"))
    assert single == double


def test_an_element_without_a_volume_is_named():
    with pytest.raises(InvalidCrystalError, match="'Rn'"):
        volume_estimate(composition("RnF2"))


def test_error_on_compositions_that_were_not_fitted(shared_data):
    """The error that the module states, on the held-out compounds near the hull."""
    columns = ["reduced_formula", "n_atoms", "lattice", "energy_above_hull_est"]
    table = pq.read_table(shared_data / "mp_crystals.parquet", columns=columns)
    near_hull = table["energy_above_hull_est"].to_numpy(zero_copy_only=False) <= 0.1
    rows = np.flatnonzero(near_hull & held_out_mask(table["reduced_formula"].to_pylist()))
    sample = table.take(np.random.default_rng(0).choice(rows, 500, replace=False))
    volumes = np.abs(np.linalg.det(np.array(sample["lattice"].to_pylist()).reshape(-1, 3, 3)))
    compositions = [composition(formula) for formula in sample["reduced_formula"].to_pylist()]
    estimates = np.array([volume_estimate(c).volume_per_atom for c in compositions])
    assert min(c.n_elements for c in compositions) > 1  # the table has no hull distance for elements
    ratios = estimates / (volumes / sample["n_atoms"].to_numpy())
    errors = np.abs(ratios - 1)
    assert np.median(errors) < 0.05
    assert np.quantile(errors, 0.9) < 0.15
    assert abs(np.median(ratios) - 1) < 0.02


def test_contacts_are_bonds_where_elements_bond():
    sodium, chlorine, oxygen, phosphorus = 11, 17, 8, 15
    assert contact_distance(sodium, chlorine) == contact_distance(chlorine, sodium)
    assert 2.6 < contact_distance(sodium, chlorine) < 2.9
    assert 1.4 < contact_distance(phosphorus, oxygen) < 1.6
    assert contact_distance(oxygen, oxygen) > 2.2  # oxide ions, not peroxide
    assert contact_distance(sodium, sodium) > 2.9


def test_pairs_without_data_come_from_the_radii():
    helium, radon = 2, 86
    ratio = contact_distance(helium, radon) / (COVALENT_RADII[helium] + COVALENT_RADII[radon])
    assert 0.8 < ratio < 1.0


def test_given_distances_replace_the_tabulated_ones():
    numbers = [11, 17]
    distances = minimum_distances(numbers, fraction=0.8, given={"Cl-Na": 1.9})
    assert distances[0, 1] == distances[1, 0] == 1.9
    assert distances[0, 0] == pytest.approx(0.8 * contact_distance(11, 11))
    assert given_pairs(numbers, {"Na-Cl": 1.9}).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("given", [{"NaCl": 2.0}, {"Na-Xx": 2.0}, {"Na-Cl": -1.0}, {"Na-Cl": float("nan")}])
def test_wrong_distances_are_refused(given):
    with pytest.raises(InvalidCrystalError):
        minimum_distances([11, 17], fraction=0.8, given=given)
