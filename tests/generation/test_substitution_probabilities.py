from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core import Species
from pymatgen.core.structure_prediction.substitution_probability import SubstitutionPredictor

from opengnome.generation.ions import species_table
from opengnome.generation.probabilities import PAPER, STOCK, SubstitutionModel, likely_targets


def counts_by_number_replaced(ions, model):
    targets, _ = likely_targets(ions, threshold=1e-3, model=model)
    return np.bincount((targets != ions).sum(axis=1), minlength=len(ions) + 1).tolist()


@pytest.mark.parametrize(
    ("names", "paper", "stock"),
    [
        (["Na1+", "Cl1-"], [1, 107, 107], [1, 70, 116]),
        (["Ba2+", "Ti4+", "O2-"], [1, 271, 69, 0], [1, 89, 70, 0]),
        (["K1+", "Nd3+", "As5+", "O2-"], [1, 540, 196, 0, 0], [1, 17, 18, 2, 0]),
        (["Rb1+", "Hf4+", "Si4+", "O2-", "Na1+"], [1, 588, 197, 0, 0, 0], [0, 1, 1, 0, 0, 0]),
    ],
)
def test_yields_by_number_of_ions_replaced(names, paper, stock):
    ions = species_table().indices(names)
    assert counts_by_number_replaced(ions, PAPER) == paper
    assert counts_by_number_replaced(ions, STOCK) == stock


@pytest.mark.parametrize(("names", "threshold"), [(["Na1+", "Cl1-"], 1e-3), (["Li1+", "Fe2+", "O2-"], 3e-3)])
def test_stock_model_gives_the_list_of_pymatgen(names, threshold):
    table = species_table()
    targets, probabilities = likely_targets(table.indices(names), threshold=threshold, model=STOCK)
    ours = {tuple(table.names[i] for i in row): p for row, p in zip(targets, probabilities.tolist(), strict=True)}
    species = [Species.from_str(name) for name in names]
    reference = {}
    for prediction in SubstitutionPredictor(threshold=threshold).list_prediction(species):
        target_of = {old: new for new, old in prediction["substitutions"].items()}
        row = tuple(table.names[table.indices([str(target_of[s])])[0]] for s in species)
        reference[row] = prediction["probability"]
    assert len(reference) > 20
    assert ours.keys() == reference.keys()
    for row, probability in reference.items():
        assert ours[row] == pytest.approx(probability, rel=1e-12)


@given(
    st.lists(st.integers(0, 229), min_size=2, max_size=2, unique=True),
    st.sampled_from([1e-2, 1e-3, 1e-4]),
    st.sampled_from(["floored", "floored_without_self", "stock", "stock_without_self"]),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_branch_and_bound_equals_brute_force(ions, threshold, normalisation, floor, unchanged):
    model = SubstitutionModel(floor_lambdas=floor, unchanged_ions_count=unchanged, normalisation=normalisation)
    columns = model.conditional_probabilities()[:, ions].T.tolist()
    expected = {
        (i, j): columns[0][i] * columns[1][j]
        for i, j in product(range(230), repeat=2)
        if i != j and columns[0][i] * columns[1][j] > threshold
    }
    targets, probabilities = likely_targets(np.array(ions), threshold=threshold, model=model)
    assert dict(zip(map(tuple, targets.tolist()), probabilities.tolist(), strict=True)) == expected


def test_probabilities_sum_to_one_over_the_normalised_weights():
    stock = STOCK.conditional_probabilities()
    np.testing.assert_allclose(stock.sum(axis=0), 1)
    floored = SubstitutionModel(unchanged_ions_count=True).conditional_probabilities()
    np.testing.assert_allclose(floored.sum(axis=0), 1)
    without_self = SubstitutionModel(normalisation="floored_without_self").conditional_probabilities()
    np.testing.assert_allclose(without_self.sum(axis=0) - 1, 1)  # minus the ion itself, which counts as one
