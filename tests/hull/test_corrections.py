"""Corrections of many entries: what is kept, what is refused, schemes by name, sums and shifts."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.elements import ATOMIC_NUMBERS
from opengnome.errors import HullError, SettingsError
from opengnome.hull import Entry, Hull
from opengnome.hull.correction_schemes import correction_scheme
from opengnome.hull.corrections import (
    GNOME_PSEUDOPOTENTIALS,
    Correction,
    CorrectionPart,
    EnergyDetails,
    NoCorrection,
    PerElementShift,
    apply_correction,
    combined,
    read_shifts,
)
from opengnome.hull.mp2020 import MP2020

LI, OXYGEN, FE = (ATOMIC_NUMBERS[symbol] for symbol in ("Li", "O", "Fe"))


def entry(entry_id: str, formula: str, energy_per_atom: float, level: str = "GGA") -> Entry:
    return Entry(entry_id, Composition.from_formula(formula), energy_per_atom, level=level)


def rocksalt(metal: int, anion: int) -> Crystal:
    return Crystal(
        np.array([[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]]), [[0, 0, 0], [0.5, 0.5, 0.5]], [metal, anion]
    )


def test_every_entry_is_corrected_or_refused_with_a_reason() -> None:
    entries = [
        entry("li2o", "Li2O", -4.7),
        entry("no-run-type", "Li2O", -4.7),
        entry("infinite", "Li2O", math.inf),
        entry("feo", "FeO", -7.0, level="GGA+U"),
        entry("wrong-crystal", "Li2O", -4.7),
        entry("li", "Li", -1.9),
    ]
    gga = EnergyDetails(run_type="GGA")
    details = [
        gga,
        EnergyDetails(),
        gga,
        EnergyDetails(run_type="GGA+U", hubbards={FE: 5.3}),
        replace(gga, crystal=rocksalt(12, 8)),
        gga,
    ]
    result = apply_correction(entries, MP2020(check_potentials=False), details, level="MP2020")
    assert [e.id for e in result.entries] == ["li2o", "feo", "li"]
    assert [e.correction_per_atom for e in result.entries] == pytest.approx([-0.687 / 3, (-0.687 - 2.256) / 2, 0.0])
    assert [c.energy_per_atom for c in result.corrections] == [e.correction_per_atom for e in result.entries]
    assert [e.id for e, _ in result.refused] == ["no-run-type", "infinite", "wrong-crystal"]
    reasons = [reason for _, reason in result.refused]
    for reason, word in zip(reasons, ("run type ''", "must be finite", "its crystal MgO"), strict=True):
        assert word in reason
    for given, corrected in zip((entries[0], entries[3], entries[5]), result.entries, strict=True):
        assert corrected.energy_per_atom == given.energy_per_atom  # the raw energy stays
        assert corrected.correction_scheme == "MP2020:require_bound"
        assert corrected.level == "MP2020"
        assert given.correction_scheme == "none"  # what was given is as it was


def test_corrected_entries_of_both_run_types_share_a_hull() -> None:
    entries = [entry("fe", "Fe", -8.4), entry("o", "O2", -4.9), entry("fe2o3", "Fe2O3", -6.7, level="GGA+U")]
    details = [
        EnergyDetails(run_type="GGA"),
        EnergyDetails(run_type="GGA"),
        EnergyDetails(run_type="GGA+U", hubbards={FE: 5.3}),
    ]
    with pytest.raises(HullError, match="level"):
        Hull(entries)
    hull = Hull(apply_correction(entries, MP2020(check_potentials=False), details, level="MP2020").entries)
    oxide = hull.entries[2]
    expected = -6.7 - (0.4 * 2.256 + 0.6 * 0.687) + 0.4 * 8.4 + 0.6 * 4.9
    assert hull.formation_energy_per_atom(oxide.composition, oxide.corrected_energy_per_atom) == pytest.approx(expected)


def test_an_earlier_correction_is_replaced() -> None:
    once = apply_correction(
        [entry("li2o", "Li2O", -4.7)], correction_scheme("MP2020", check_potentials=False), [EnergyDetails("GGA")]
    )
    twice = apply_correction(once.entries, correction_scheme("MP2020", check_potentials=False), [EnergyDetails("GGA")])
    assert twice.entries == once.entries
    assert apply_correction(once.entries, NoCorrection()).entries == (entry("li2o", "Li2O", -4.7),)


def test_details_must_be_one_per_entry() -> None:
    with pytest.raises(HullError, match="1 entries with 2 records"):
        apply_correction([entry("li", "Li", -1.9)], NoCorrection(), [EnergyDetails()] * 2)


def test_a_correction_explains_itself() -> None:
    correction = MP2020(check_potentials=False).correction(
        Composition.from_formula("LiFeO2"), EnergyDetails("GGA+U", {FE: 5.3})
    )
    lines = str(correction).splitlines()
    assert lines[0] == "MP2020:require_bound: -0.9075 eV/atom"
    assert lines[1] == "  oxide anion (O): -0.687 eV x 0.5 = -0.3435 eV/atom"
    assert lines[2] == "  GGA/GGA+U mixing (Fe): -2.256 eV x 0.25 = -0.5640 eV/atom"
    assert lines[3].startswith("  assumed: oxide, from the formula")
    assert correction.std_per_atom == pytest.approx(math.hypot(0.002 / 2, 0.0101 / 4))


def test_errors_of_parts() -> None:
    known, unknown = CorrectionPart("a", LI, 0.5, -1.0, 0.2), CorrectionPart("b", OXYGEN, 0.5, -1.0)
    assert Correction("s").std_per_atom == 0.0
    assert Correction("s", (known,)).std_per_atom == pytest.approx(0.1)
    assert math.isnan(Correction("s", (known, unknown)).std_per_atom)


def test_gnome_shifts_count_atoms_of_every_kind_and_elements_too() -> None:
    correction = GNOME_PSEUDOPOTENTIALS.correction(Composition.from_formula("Li2MgGeO4"), EnergyDetails())
    assert correction.energy_per_atom == pytest.approx((2 * -0.00301278 + 0.0924014 + 0.10417085) / 8)
    assert (
        GNOME_PSEUDOPOTENTIALS.correction(Composition.from_formula("Mg"), EnergyDetails()).energy_per_atom == 0.0924014
    )
    assert GNOME_PSEUDOPOTENTIALS.correction(Composition.from_formula("Fe2O3"), EnergyDetails()).parts == ()


def test_sums_of_schemes() -> None:
    both = combined(MP2020(check_potentials=False), GNOME_PSEUDOPOTENTIALS)
    assert both.name == "MP2020:require_bound+GNoME-pseudopotentials-2024-11"
    correction = both.correction(Composition.from_formula("Li2O"), EnergyDetails("GGA"))
    assert correction.scheme == both.name
    assert correction.energy_per_atom == pytest.approx((-0.687 + 2 * -0.00301278) / 3)
    assert [part.name for part in correction.parts] == ["oxide anion", "other pseudopotential"]
    for schemes in ((), (GNOME_PSEUDOPOTENTIALS, GNOME_PSEUDOPOTENTIALS)):
        with pytest.raises(HullError, match="cannot combine"):
            combined(*schemes)


@pytest.mark.parametrize(
    "name",
    [
        "none",
        "MP2020:require_bound",
        "MP2020:require_exact",
        "MP2020:no_check,one_oxide,no_mixing",
        "GNoME-pseudopotentials-2024-11",
        "MP2020:no_check+GNoME-pseudopotentials-2024-11",
    ],
)
def test_names_give_their_schemes(name: str) -> None:
    assert correction_scheme(name).name == name


def test_short_and_unknown_names() -> None:
    assert correction_scheme("MP2020") == MP2020()
    with pytest.raises(SettingsError, match="choose from none, MP2020"):
        correction_scheme("MP2021")
    with pytest.raises(SettingsError, match="no option 'strict'"):
        correction_scheme("MP2020:strict")


def test_shifts_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shifts.json"
    path.write_text(json.dumps({"name": "mine", "version": 2, "shifts": {"Fe": 0.1}, "stds": {"Fe": 0.01}}))
    scheme = read_shifts(path)
    correction = scheme.correction(Composition.from_formula("Fe2O3"), EnergyDetails())
    assert scheme.name == "mine-2"
    assert (correction.energy_per_atom, correction.std_per_atom) == pytest.approx((0.04, 0.004))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON"),
        ("[]", "needed: .'name', 'shifts', 'version'."),
        ('{"name": "a", "version": 1, "shift": {}}', "has the keys"),
        ('{"name": "a", "version": 1, "shifts": {"Xx": 1}}', "'Xx'"),
        ('{"name": "a", "version": 1, "shifts": {"Fe": "big"}}', "must map element symbols to numbers"),
        ('{"name": "a", "version": 1, "shifts": {"Fe": NaN}}', "must be finite"),
        ('{"name": "a", "version": 1, "shifts": [1]}', "must map element symbols to numbers"),
    ],
)
def test_bad_shift_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "shifts.json").write_text(text)
    with pytest.raises(HullError, match=message):
        read_shifts(tmp_path / "shifts.json")


def test_missing_shifts_are_named_where_all_are_needed() -> None:
    scheme = PerElementShift("fit", {LI: 0.1}, complete=True, shifts_elements=False)
    with pytest.raises(HullError, match="fit has no value for O, Fe of LiFeO2"):
        scheme.correction(Composition.from_formula("LiFeO2"), EnergyDetails())
    assert scheme.correction(Composition.from_formula("O2"), EnergyDetails()).parts == ()


def test_details_of_a_computed_entry() -> None:
    details = EnergyDetails.from_computed_entry(
        {
            "run_type": "GGA_U",
            "hubbards": {"Fe": 5.3, "O": 0.0},
            "potcar_spec": [{"titel": "PAW_PBE Fe_pv 06Sep2000", "hash": "x"}, {"titel": "PAW_PBE O 08Apr2002"}],
        },
        {"oxide_type": "oxide", "oxidation_states": {"Fe": 3.0, "O": -2.0}},
    )
    assert details == EnergyDetails(
        "GGA+U",
        {FE: 5.3},
        frozenset({"Fe_pv", "O"}),
        oxide_type="oxide",
        oxidation_states={FE: 3.0, OXYGEN: -2.0},
    )
    assert EnergyDetails.from_computed_entry({}, {}) == EnergyDetails()
    titles = {"potcar_symbols": ["PBE Fe_pv"], "hubbards": None}
    assert EnergyDetails.from_computed_entry(titles, {}).potentials == {"Fe_pv"}
    with pytest.raises(HullError, match="hubbards"):
        EnergyDetails.from_computed_entry({"hubbards": {"Fe": "much"}}, {})
