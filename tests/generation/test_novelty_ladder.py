"""The novelty ladder: from a known crystal to a new prototype."""

import numpy as np
import pytest
from pymatgen.core import Element

from opengnome.crystals import Composition, Crystal, CrystalTable, supercell, with_atomic_numbers
from opengnome.crystals.elements import SYMBOLS
from opengnome.generation.novelty_ladder import NoveltyLadder, Rung, similar_elements, similar_formulas


@pytest.fixture(scope="module")
def ladder(rock_salt, perovskite) -> NoveltyLadder:
    caesium_chloride = Crystal(4.1 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17])
    return NoveltyLadder(CrystalTable.from_crystals([rock_salt, perovskite, caesium_chloride]))


def test_the_rungs(ladder, rock_salt, perovskite):
    known = ladder.place(supercell(rock_salt, (1, 1, 2)))  # the same crystal in a larger cell
    assert (known.rung, known.new_formula, known.nearest) == (Rung.KNOWN, False, "")

    analogue = ladder.place(with_atomic_numbers(perovskite, [56, 22, 8, 8, 8]))  # BaTiO3
    assert (analogue.rung, analogue.nearest) == (Rung.REDECORATION, "SrTiO3")
    assert analogue.new_formula
    assert analogue.new_chemical_system

    other_chemistry = ladder.place(with_atomic_numbers(rock_salt, [12, 8]))  # MgO
    assert other_chemistry.rung == Rung.KNOWN_PROTOTYPE

    polymorph = ladder.place(with_atomic_numbers(ladder._known[2], [11, 17]))  # NaCl as CsCl
    assert (polymorph.rung, polymorph.nearest) == (Rung.REDECORATION, "CsCl")
    assert not polymorph.new_formula
    assert not polymorph.new_chemical_system
    assert polymorph.new_prototype_in_system

    zinc_blende = Crystal(2.7 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]), [[0, 0, 0], [0.25] * 3], [30, 16])
    assert ladder.place(zinc_blende).rung == Rung.NEW_PROTOTYPE


def test_similar_elements_are_those_of_the_group():
    for z in range(3, 104):
        if z in range(57, 72) or z in range(89, 104) or z in (21, 39):
            continue
        group = Element(SYMBOLS[z]).group
        expected = {o for o in range(3, 104) if o != z and Element(SYMBOLS[o]).group == group}
        expected -= set(range(57, 72)) | set(range(89, 104))
        assert {o for o in similar_elements(z) if 2 < o < 104} == expected, SYMBOLS[z]
    assert similar_elements(57) >= {21, 39, 58, 71}
    assert 92 in similar_elements(90)
    assert similar_elements(1) == set()


def test_one_element_at_a_time():
    formulas = similar_formulas(Composition.from_formula("LiFePO4"))
    assert {"NaFePO4", "LiFeAsO4"} <= set(formulas)
    assert "NaFeAsO4" not in formulas
    assert "LiFePO4" not in formulas
