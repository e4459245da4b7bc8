from typing import Literal

import pytest
from pydantic import Field

from opengnome.errors import SettingsError
from opengnome.settings import Settings, load, to_toml, validate


class Inner(Settings):
    fmax: float = Field(0.05, gt=0)
    """Largest force, eV/A."""
    name: str = "chgnet"
    elements: tuple[str, ...] = ()


class Outer(Settings):
    rounds: int = Field(3, ge=1)
    seed: int | None = None
    control: bool = False
    kind: Literal["a", "b"] = "a"
    relaxation: Inner = Inner()
    other: Inner | None = None


def test_defaults_and_file_and_overrides(tmp_path):
    path = tmp_path / "campaign.toml"
    path.write_text('rounds = 5\n[relaxation]\nname = "emt"\nfmax = 0.1\n')
    assert load(Outer) == Outer()
    loaded = load(Outer, path)
    assert (loaded.rounds, loaded.relaxation.name, loaded.relaxation.fmax) == (5, "emt", 0.1)
    overridden = load(
        Outer, path, ["rounds=7", "relaxation.fmax=0.2", "relaxation.elements=['Na', 'Cl']", "other.name=x"]
    )
    assert overridden.rounds == 7
    assert overridden.relaxation == Inner(fmax=0.2, name="emt", elements=("Na", "Cl"))
    assert overridden.other == Inner(name="x")
    assert load(Outer, None, ["control = true"]).control is True


def test_a_section_given_in_part_keeps_the_defaults_of_its_field():
    class Careful(Settings):
        relaxation: Inner = Inner(fmax=0.001, elements=("Li",))

    assert load(Careful, None, ["relaxation.name=gpaw"]).relaxation == Inner(fmax=0.001, name="gpaw", elements=("Li",))
    assert load(Careful, None, ["relaxation.fmax=0.1"]).relaxation == Inner(fmax=0.1, elements=("Li",))


def test_yaml_says_the_same(tmp_path):
    path = tmp_path / "campaign.yaml"
    path.write_text("rounds: 5\nrelaxation:\n  name: emt\n")
    assert load(Outer, path).relaxation.name == "emt"
    (tmp_path / "empty.yml").write_text("# nothing\n")
    assert load(Outer, tmp_path / "empty.yml") == Outer()
    (tmp_path / "list.yml").write_text("- 1\n- 2\n")
    with pytest.raises(SettingsError, match="must hold keys and values, got a list"):
        load(Outer, tmp_path / "list.yml")
    (tmp_path / "broken.yml").write_text("rounds: [1\n")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load(Outer, tmp_path / "broken.yml")


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Outer().rounds = 4


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["round=4"], ["round is not a setting", "did you mean 'rounds'?", "known: control"]),
        (["relaxation.fmx=1.0"], ["relaxation.fmx", "did you mean 'fmax'?"]),
        (["other.nam='x'"], ["did you mean 'name'?"]),
        (["rounds=0"], ["rounds", "greater than or equal to 1", "got 0"]),
        (["relaxation.fmax=-1"], ["relaxation.fmax", "greater than 0"]),
        (["rounds=many"], ["rounds", "'many'"]),
        (["kind=c"], ["kind", "'a' or 'b'"]),
        (["rounds=0", "round=1"], ["rounds: ", "; round is not a setting"]),
        (["rounds"], ["'rounds' is not an override; write section.key=value"]),
        (["=3"], ["not an override"]),
        (["rounds=1", "rounds.x=2"], ["'rounds' is a value, not a section"]),
    ],
)
def test_a_mistake_is_named_with_its_remedy(overrides, parts):
    with pytest.raises(SettingsError) as caught:
        load(Outer, None, overrides)
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SettingsError, match=r"cannot read the settings file.*No such file"):
        load(Outer, tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("rounds = = 3\n")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(Outer, tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError):
        load(Outer, tmp_path / "binary.toml")


@pytest.mark.parametrize(
    "settings",
    [
        Outer(),
        Outer(seed=3, control=True, kind="b", relaxation=Inner(fmax=1e-7, elements=("Na", 'a "quoted" \\ word'))),
        Outer(other=Inner(name="line one\nline two\ttab")),
        Outer(relaxation=Inner(name="Ångström", fmax=1e22)),
    ],
)
def test_written_settings_read_back(tmp_path, settings):
    path = tmp_path / "resolved.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert load(Outer, path) == settings


def test_tables_and_lists_read_back(tmp_path):
    class Tables(Settings):
        options: dict[str, float]
        limits: dict[str, dict[str, int]]
        pairs: list[tuple[int, int]]
        known: list[Inner]

    settings = Tables(
        options={"a b": 1.0, "c.d": 2.0}, limits={"x": {"y": 1}, "empty": {}}, pairs=[(1, 2)], known=[Inner()]
    )
    path = tmp_path / "resolved.toml"
    path.write_text(to_toml(settings))
    assert load(Tables, path) == settings


def test_validate_refuses_what_is_no_table():
    with pytest.raises(SettingsError):
        validate(Outer, {"relaxation": 3})
