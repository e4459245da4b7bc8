import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest

from opengnome.campaign.work import calculation_key, forget_oracles
from opengnome.crystals import Crystal, CrystalTable, with_atomic_numbers, with_volume
from opengnome.errors import OracleSetupError, SettingsError
from opengnome.oracles import OracleSettings, RelaxationSettings, Status, make_oracle
from opengnome.settings import load, to_toml, validate

EMT = "ase.calculators.emt:EMT"


def test_any_ase_calculator(copper):
    oracle = make_oracle(OracleSettings(name="ase", calculator=EMT))
    calculation = oracle.relax(copper)
    assert calculation.status == Status.CONVERGED
    assert (oracle.identity.code, oracle.identity.level) == (EMT, EMT)
    assert oracle.identity.version.startswith("3.")
    aluminium = pickle.loads(pickle.dumps(oracle)).relax(with_atomic_numbers(with_volume(copper, 64), [13] * 4))
    assert aluminium.crystal.volume_per_atom == pytest.approx(3.995**3 / 4, rel=0.01)  # EMT's Al


def test_elements_foreign_to_the_calculator_fail(rock_salt):
    calculation = make_oracle(OracleSettings(name="ase", calculator=EMT)).relax(rock_salt)
    assert calculation.status == Status.FAILED
    assert calculation.reason.startswith("NotImplementedError: No EMT-potential for Na")


def test_options_reach_the_calculator_and_its_level(copper):
    options = {"energy": -1.0, "force": 0.01}
    oracle = make_oracle(OracleSettings(name="ase", calculator="toy_calculators:Toy", calculator_options=options))
    assert oracle.relax(copper).energy == -1.0
    assert oracle.identity.level == 'toy_calculators:Toy {"energy": -1.0, "force": 0.01}'
    named = OracleSettings(name="ase", calculator="toy_calculators:Toy", level="pbe-toy")
    assert make_oracle(named).identity.level == "pbe-toy"


@pytest.mark.parametrize(
    ("calculator", "options", "message"),
    [
        ("ase.calculators.emt", {}, 'must be "module:callable"'),
        (
            "no_such_engine.potential:Potential",
            {},
            "No module named 'no_such_engine'; is its package installed",
        ),
        ("ase.calculators.emt:EMTT", {}, "has no callable 'EMTT'"),
        ("toy_calculators:NOT_CALLABLE", {}, "has no callable 'NOT_CALLABLE'"),
        ("toy_calculators:broken", {}, "LookupError: no licence"),
        ("toy_calculators:Toy", {"enrgy": 1}, "unexpected keyword argument 'enrgy'"),
    ],
)
def test_broken_set_ups_raise_before_any_crystal(calculator, options, message):
    settings = OracleSettings(name="ase", calculator=calculator, calculator_options=options)
    with pytest.raises(OracleSetupError, match=message):
        make_oracle(settings)


@pytest.fixture
def recorded_table(tmp_path, copper, rock_salt):
    doubled = with_volume(rock_salt, 2 * rock_salt.volume)
    crystals = [copper, rock_salt, doubled, with_atomic_numbers(rock_salt, [3, 9])]
    columns = {"energy_per_atom": [-3.7, -3.0, -3.4, None], "e_other": [1.0, 2.0, 3.0, 4.0]}
    path = tmp_path / "answers.parquet"
    pq.write_table(CrystalTable.from_crystals(crystals, columns=columns).arrow, path)
    return path


def test_recorded_answers_by_digest(recorded_table, copper, rock_salt):
    oracle = make_oracle(OracleSettings(name="recorded", table=recorded_table))
    answer = oracle.relax(Crystal(copper.lattice, copper.frac_coords + 2.0, copper.atomic_numbers))
    assert (answer.status, answer.energy, answer.crystal) == (Status.CONVERGED, -3.7 * 4, copper)
    assert oracle.relax(rock_salt).energy_per_atom == -3.0
    assert oracle.identity.level == "recorded:answers.parquet"
    assert pickle.loads(pickle.dumps(oracle)).relax(rock_salt).energy_per_atom == -3.0
    for unknown in (with_volume(copper, 50.0), with_atomic_numbers(rock_salt, [3, 9])):
        answer = oracle.relax(unknown)
        assert answer.status == Status.FAILED
        assert answer.reason == f"no recorded answer for {unknown.reduced_formula} in answers.parquet"


def test_recorded_answers_by_formula(recorded_table, rock_salt):
    oracle = make_oracle(OracleSettings(name="recorded", table=recorded_table, match="formula"))
    assert oracle.relax(rock_salt).energy_per_atom == -3.0  # its own row before the lowest of the formula
    answer = oracle.relax(with_volume(rock_salt, 47.0))
    assert answer.energy_per_atom == -3.4
    assert answer.crystal.volume == pytest.approx(2 * rock_salt.volume)
    assert answer.initial.volume == pytest.approx(47.0)


def test_recorded_energies_of_another_column(recorded_table, rock_salt):
    settings = OracleSettings(name="recorded", table=recorded_table, energy_column="e_other", level="other")
    oracle = make_oracle(settings)
    assert oracle.relax(rock_salt).energy_per_atom == 2.0
    assert oracle.identity.level == "other"


def test_unusable_recorded_tables(tmp_path, recorded_table):
    with pytest.raises(OracleSetupError, match="cannot be read"):
        make_oracle(OracleSettings(name="recorded", table=tmp_path / "absent.parquet"))
    with pytest.raises(OracleSetupError, match="has no column 'energy'"):
        make_oracle(OracleSettings(name="recorded", table=recorded_table, energy_column="energy"))
    pq.write_table(pq.read_table(recorded_table).drop_columns(["lattice"]), recorded_table)
    with pytest.raises(OracleSetupError, match=r"lacks the columns \['lattice'\]"):
        make_oracle(OracleSettings(name="recorded", table=recorded_table))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "ase"}, "needs calculator"),
        ({"name": "recorded"}, "needs table"),
        ({"calculator": EMT}, 'is a setting of the ase oracle, but name = "chgnet"'),
        ({"level": "pbe"}, "fixed by its weights"),
        ({"name": "siesta"}, "name: Input should be 'chgnet', 'ase', 'recorded', 'gpaw', 'vasp' or 'espresso'"),
        ({"relaxation": {"fmx": 0.1}}, "did you mean 'fmax'"),
        ({"relaxation": {"fmax": 0}}, "greater than 0"),
    ],
)
def test_wrong_settings(data, message):
    with pytest.raises(SettingsError, match=message):
        validate(OracleSettings, data)


def test_settings_survive_a_file(tmp_path):
    settings = OracleSettings(
        name="ase",
        calculator=EMT,
        relaxation=RelaxationSettings(fmax=0.1, energy_per_atom_range=(-30.0, 5.0)),
    )
    path = tmp_path / "oracle.toml"
    path.write_text(to_toml(settings))
    assert load(OracleSettings, path) == settings
    assert load(OracleSettings, path).relaxation.digest == settings.relaxation.digest
    assert np.isfinite(settings.relaxation.timeout_s)


def test_a_recorded_table_of_several_levels_answers_with_the_one_that_is_chosen(tmp_path, rock_salt):
    two = CrystalTable.from_crystals([rock_salt, rock_salt], ["pbe", "r2scan"])
    two = two.with_column("energy_per_atom", [-3.4, -15.2]).with_column("level", ["vasp-pbe+u-mp", "vasp-r2scan-mp"])
    pq.write_table(two.arrow, tmp_path / "two.parquet")
    for match in ("digest", "formula"):
        settings = OracleSettings(name="recorded", table=tmp_path / "two.parquet", match=match)
        for level in (None, "another"):
            with pytest.raises(OracleSetupError, match=r"levels .* cannot be compared; choose one with level"):
                make_oracle(settings.model_copy(update={"level": level}))
        answer = make_oracle(settings.model_copy(update={"level": "vasp-pbe+u-mp"})).relax(rock_salt)
        assert (answer.energy_per_atom, answer.oracle.level) == (-3.4, "vasp-pbe+u-mp")


def test_a_recorded_table_with_other_answers_has_other_calculations(recorded_table, rock_salt):
    settings = OracleSettings(name="recorded", table=recorded_table)
    before = calculation_key(rock_salt, settings)
    assert calculation_key(rock_salt, settings) == before
    table = CrystalTable.from_arrow(pq.read_table(recorded_table))
    pq.write_table(table.with_column("energy_per_atom", [-9.0] * len(table)).arrow, recorded_table)
    forget_oracles()
    assert calculation_key(rock_salt, settings) != before
