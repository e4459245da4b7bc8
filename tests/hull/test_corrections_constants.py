"""The numbers of MP2020, and the table of oxidation states, against the installed pymatgen."""

import warnings

import numpy as np
import pytest
from pymatgen.core import Composition as PymatgenComposition
from pymatgen.core import Element, Species

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, MAX_ATOMIC_NUMBER, SYMBOLS
from opengnome.hull.mp2020_constants import (
    ANION_CORRECTIONS,
    ANION_STATE_RANGES,
    HUBBARD_ANIONS,
    HUBBARD_U,
    MIXING_CORRECTIONS,
    POTENTIALS,
)
from opengnome.hull.oxidation_states import MAX_ATOMS, _states, guess_oxidation_states


def pymatgen_guess(formula: str) -> dict[int, float]:
    """As MaterialsProject2020Compatibility asks for it."""
    try:
        guesses = PymatgenComposition(formula).oxi_state_guesses(max_sites=-MAX_ATOMS)
    except ValueError:  # too many atoms
        return {}
    return {ATOMIC_NUMBERS[symbol]: state for symbol, state in guesses[0].items()} if guesses else {}


def test_corrections_and_uncertainties_are_the_published_ones() -> None:
    from pymatgen.analysis.compatibility import MP2020_COMPAT_CONFIG as CONFIG

    def pairs(kind: str) -> dict[str, tuple[float, float]]:
        values, stds = CONFIG["Corrections"][kind], CONFIG["Uncertainties"][kind]
        return {key: (values[key], stds[key]) for key in values}

    assert pairs("CompositionCorrections") == ANION_CORRECTIONS
    mixing = {
        anion: {
            m: (v, CONFIG["Uncertainties"]["GGAUMixingCorrections"][anion][m])
            for m, v in CONFIG["Corrections"]["GGAUMixingCorrections"][anion].items()
        }
        for anion in HUBBARD_ANIONS
    }
    assert mixing == dict.fromkeys(HUBBARD_ANIONS, MIXING_CORRECTIONS)
    assert set(CONFIG["Corrections"]["GGAUMixingCorrections"]) == set(HUBBARD_ANIONS)


def test_settings_are_those_of_the_materials_project() -> None:
    from pymatgen.analysis.compatibility import MP2020_ANION_OXIDATION_STATE_RANGES
    from pymatgen.io.vasp.sets import MPRelaxSet

    assert MPRelaxSet.CONFIG["INCAR"]["LDAUU"] == dict.fromkeys(HUBBARD_ANIONS, HUBBARD_U)
    assert {SYMBOLS[z]: name for z, name in POTENTIALS.items()} == MPRelaxSet.CONFIG["POTCAR"]
    assert MP2020_ANION_OXIDATION_STATE_RANGES == ANION_STATE_RANGES


def test_oxidation_states_are_pymatgens_in_its_order() -> None:
    PymatgenComposition("NaCl").oxi_state_guesses()  # reads the occurrences
    occurrences = PymatgenComposition.oxi_prob
    for z in range(1, MAX_ATOMIC_NUMBER + 1):
        element = Element.from_Z(z)
        states = element.icsd_oxidation_states or element.common_oxidation_states
        expected = tuple((state, occurrences.get(Species(element.symbol, state), 0)) for state in states)
        assert _states().get(z, ()) == expected, element


@pytest.mark.parametrize(
    "formula",
    # Mixed valence, peroxides that are not reduced, cations of the usual anions, hydrides, intermetallics, noble gases,
    # too many atoms, equally frequent combinations, elements that the ICSD table lacks.
    """NaCl Fe3O4 Fe2O3 LiFePO4 Li2O2 LiO H2O2 KO2 LiO3 KClO4 NaNO3 NH4NO3 NaN3 LiN3 LiH NaBH4 NaAlH4 LaNi5H6 PdH TiH2
    CaH2 AlCl3 Al2Cu TiAl Cu3Au Mg2Si SiC SiO2 Si3N4 GaN InSb Sb2O3 Sb2Te3 Bi2Te3 TeO2 SeO2 SF6 IF5 I2O5 BrF3 ClF3
    XeF2 KrF2 ArF2 HeNa2 PtO2 AuCl3 Au2O3 TcO2 OsO4 C3N4 CH4 C2H6O CSe2 CS2 P4S3 As4S4 NaSbS2 Ca5P3HO13 K3C60
    Mn12O19 FePt3 UO2 PuO2 Pa2O5 Li10GeP2S12 YBa2Cu3O7 CuInSe2 NH4Cl N2O5 NF3 N2F4 H N2 O2 Fe2F5 CoHO2 V6O13""".split(),
)
def test_guess_is_pymatgens(formula: str) -> None:
    composition = Composition.from_formula(formula)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert guess_oxidation_states(composition) == pymatgen_guess(composition.reduced_formula)


def test_guess_is_pymatgens_for_random_compositions() -> None:
    rng = np.random.default_rng(5)
    anions = [ATOMIC_NUMBERS[symbol] for symbol in ANION_STATE_RANGES]
    with_guess = 0
    for _ in range(150):
        elements = {*rng.integers(19, 84, size=rng.integers(1, 4)).tolist(), int(rng.choice(anions))}
        counts = {z: int(rng.integers(1, 5)) for z in elements}
        composition = Composition.from_counts(counts)
        guess = guess_oxidation_states(composition)
        assert guess == pymatgen_guess(composition.reduced_formula), composition.reduced_formula
        with_guess += bool(guess)
    assert with_guess > 30


def test_guess_is_neutral_and_does_not_depend_on_the_cell() -> None:
    composition = Composition.from_formula("Ca3(PO4)2")
    guess = guess_oxidation_states(composition)
    assert sum(count * guess[z] for z, count in composition.counts) == pytest.approx(0.0)
    assert guess == guess_oxidation_states(Composition.from_formula("Ca12P8O32"))
