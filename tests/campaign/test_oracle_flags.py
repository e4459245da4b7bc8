"""Which oracle a command gets: settings file, then --oracle and --functional, then --set."""

from pathlib import Path

import pytest

from opengnome.campaign.oracle_flags import FUNCTIONALS, ORACLES, oracle_settings
from opengnome.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Settings of GPAW with PBE and a finer cutoff."""
    path = tmp_path / "gpaw.toml"
    path.write_text('name = "gpaw"\n[relaxation]\nfmax = 0.02\n[gpaw]\nfunctional = "pbe"\ncutoff = 900\n')
    return path


def test_without_flags_it_is_what_settings_say(file: Path) -> None:
    assert oracle_settings().name == "chgnet"
    settings = oracle_settings(file)
    assert settings.gpaw is not None
    assert (settings.name, settings.gpaw.functional, settings.gpaw.cutoff) == ("gpaw", "pbe", 900)


def test_flags_come_after_the_file_and_before_overrides(file: Path) -> None:
    settings = oracle_settings(file, functional="r2SCAN")
    assert settings.gpaw is not None
    assert (settings.gpaw.functional, settings.gpaw.cutoff, settings.relaxation.fmax) == ("r2scan", 900, 0.02)
    settings = oracle_settings(file, ["gpaw.functional=pbe+u", "relaxation.fmax=0.1"], functional="r2scan")
    assert settings.gpaw is not None
    assert (settings.gpaw.functional, settings.relaxation.fmax) == ("pbe+u", 0.1)


@pytest.mark.parametrize("engine", sorted(FUNCTIONALS))
def test_every_functional_of_every_engine_that_has_several(engine: str) -> None:
    assert set(FUNCTIONALS[engine]) == {"pbe", "pbe+u", "r2scan"}
    for functional in FUNCTIONALS[engine]:
        settings = oracle_settings(oracle=engine.upper(), functional=functional.upper())
        assert settings.name == engine
        assert getattr(settings, engine).functional == functional
        assert settings.relaxation.timeout_s == 86400.0  # a day, as without the flags


def test_the_functional_goes_to_the_oracle_that_is_chosen_last(file: Path) -> None:
    settings = oracle_settings(None, ['name="vasp"'], oracle="gpaw", functional="pbe")
    assert settings.name == "vasp"
    assert settings.vasp is not None
    assert settings.vasp.functional == "pbe"


@pytest.mark.parametrize("oracle", sorted(set(ORACLES) - set(FUNCTIONALS)))
def test_oracles_that_have_no_functional_to_choose_say_why(oracle: str) -> None:
    with pytest.raises(SettingsError, match=rf"the oracle {oracle} (has|was).*'pbe'.*gpaw or vasp"):
        oracle_settings(oracle=oracle, functional="pbe")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"oracle": "gpw"}, r"no oracle 'gpw'; did you mean 'gpaw'.*chgnet, ase, recorded, gpaw, vasp, espresso"),
        ({"oracle": "gpaw", "functional": "hse06"}, r"no functional of gpaw 'hse06' \(known: pbe, pbe\+u, r2scan\)"),
        ({"functional": "r2scan"}, "chgnet was fitted to PBE"),
        ({"oracle": "ase"}, "needs calculator"),
        ({"oracle": "recorded"}, "needs table"),
    ],
)
def test_wrong_names_are_answered_with_those_there_are(flags: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        oracle_settings(**flags)  # type: ignore[arg-type]


def test_a_flag_that_contradicts_the_file_is_refused(file: Path) -> None:
    with pytest.raises(SettingsError, match='gpaw is a section of the gpaw oracle, but name = "chgnet"'):
        oracle_settings(file, oracle="chgnet")
    with pytest.raises(SettingsError, match="r2scan needs n_relaxations"):
        oracle_settings(file, ["gpaw.n_relaxations=1"], functional="r2scan")
