"""Which settings a campaign runs with, and which it refuses once it has begun."""

import re
import shutil
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from opengnome.campaign import (
    CampaignResults,
    CampaignSettings,
    Progress,
    discover,
    preparation,
    read_settings,
    read_state,
)
from opengnome.campaign.context import Context
from opengnome.campaign.discover import _refuse_changes, load_settings
from opengnome.campaign.events import EVENT_ADAPTER, CampaignStarted
from opengnome.campaign.journal import Journal
from opengnome.campaign.layout import Layout
from opengnome.campaign.preparation import changed_versions, versions
from opengnome.campaign.settings import FOR_DIGEST
from opengnome.campaign.state import CampaignState
from opengnome.campaign.work import calculation_key
from opengnome.crystals import Crystal
from opengnome.crystals.io import read_table, write_table
from opengnome.datasets import load_known_set
from opengnome.errors import CampaignError, SettingsError
from opengnome.settings import load, to_toml
from report.synthetic_campaign import ROUNDS, build_campaign, make_settings

N_ROUNDS = len(ROUNDS)
OPTIONAL = preparation._OPTIONAL


class WorkWantedError(Exception):
    """Raised in place of making workers: the campaign went on."""


def no_workers() -> Executor:
    raise WorkWantedError


def resume(root: Path, settings: CampaignSettings | None = None) -> CampaignState:
    return discover(root, settings, make_executor=no_workers, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign with all its rounds closed: resuming it has nothing to do."""
    return build_campaign(tmp_path_factory.mktemp("finished") / "campaign", n_closed=N_ROUNDS)


@pytest.fixture
def root(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished campaign to change; its known set stays where it was."""
    shutil.copytree(finished, tmp_path / "campaign")
    return tmp_path / "campaign"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nseed = 7\n[rounds]\nbudget = 9\n')
    return path


# --- load_settings ------------------------------------------------------------------------------------------


def test_folders_of_an_engine_are_those_of_where_the_campaign_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = ["oracle.name=espresso", "oracle.espresso.pseudo_dir=potentials"]
    espresso = load_settings(tmp_path / "new", None, overrides=written).oracle.espresso
    assert espresso is not None
    assert (espresso.folder, espresso.pseudo_dir) == (tmp_path / "espresso", tmp_path / "potentials")
    gpaw = load_settings(
        tmp_path / "new", None, overrides=["oracle.name=gpaw", "oracle.gpaw.folder=~/scratch"]
    ).oracle.gpaw
    assert gpaw is not None
    assert gpaw.folder == Path.home() / "scratch"


def test_without_anything_they_are_those_of_the_embedded_campaign(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "new", None)
    assert settings.known.source == "embedded"
    assert settings.name == "Embedded known set"
    assert settings.rounds.random_unfiltered > 0, "the embedded campaign has control arms, the defaults have none"
    assert not (tmp_path / "new").exists(), "loading settings begins nothing"


def test_overrides_change_the_embedded_settings_only_where_they_say(tmp_path: Path) -> None:
    embedded = load_settings(tmp_path, None)
    changed = load_settings(tmp_path, None, overrides=["rounds.budget=11", "known.elements=['Na', 'Cl']"])
    assert changed.rounds.budget == 11
    assert changed.known.elements == ["Na", "Cl"]
    rounds = changed.rounds.model_copy(update={"budget": embedded.rounds.budget})
    assert changed.model_copy(update={"rounds": rounds, "known": embedded.known}) == embedded


def test_a_file_and_overrides_on_it(tmp_path: Path, file: Path) -> None:
    settings = load_settings(tmp_path, file)
    assert (settings.name, settings.seed, settings.rounds.budget) == ("mine", 7, 9)
    assert settings.rounds.n_rounds == CampaignSettings().rounds.n_rounds, "the rest are defaults, not the embedded"
    assert settings.rounds.random_unfiltered == 0
    changed = load_settings(tmp_path, file, overrides=["seed=8"])
    assert (changed.seed, changed.rounds.budget) == (8, 9)


@pytest.mark.parametrize(
    ("override", "match"), [("rounds.bugdet=3", "did you mean 'budget'"), ("rounds.budget=0", "rounds.budget")]
)
def test_wrong_overrides_are_explained(tmp_path: Path, override: str, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        load_settings(tmp_path, None, overrides=[override])


def test_resuming_takes_the_settings_of_the_campaign(finished: Path) -> None:
    written = read_settings(finished)
    assert load_settings(finished, None, resume=True) == written
    assert load_settings(finished, None) == written, "also when not asked to resume"
    assert written.name != load_settings(finished.parent / "other", None).name


def test_resuming_where_no_campaign_is(tmp_path: Path, file: Path) -> None:
    for path in (None, file):
        with pytest.raises(CampaignError, match="holds no campaign to resume"):
            load_settings(tmp_path, path, resume=True)
    with pytest.raises(CampaignError, match="holds no campaign"):
        read_settings(tmp_path)


def test_the_number_of_workers_changes_nothing_else(tmp_path: Path, finished: Path, file: Path) -> None:
    for root, path in ((tmp_path, None), (tmp_path, file), (finished, None)):
        before, after = load_settings(root, path), load_settings(root, path, workers=3)
        assert after.execution.workers == 3
        assert after.digest == before.digest
        assert after.model_copy(update={"execution": before.execution}) == before


def test_overrides_on_a_begun_campaign_change_its_own_settings(finished: Path) -> None:
    longer = load_settings(finished, None, overrides=[f"rounds.n_rounds={N_ROUNDS + 1}"])
    assert longer.rounds.n_rounds == N_ROUNDS + 1
    assert longer.digest == read_settings(finished).digest


# --- discover -----------------------------------------------------------------------------------------------


def test_a_finished_campaign_is_resumed_without_settings_or_with_its_own(root: Path) -> None:
    before = read_state(root)
    assert resume(root) == before
    assert resume(root, read_settings(root)) == before
    assert read_state(root) == before


def test_other_settings_are_refused_and_the_keys_that_differ_named(root: Path) -> None:
    written = read_settings(root)
    other = written.model_copy(
        update={
            "seed": 99,
            "rounds": written.rounds.model_copy(update={"budget": 77}),
            "screening": written.screening.model_copy(update={"window": 0.2, "n_volume_scales": 3}),
            "execution": written.execution.model_copy(update={"workers": 5}),
            "name": "another name",
        }
    )
    text = (root / "settings.toml").read_bytes()
    with pytest.raises(CampaignError, match="other settings") as refusal:
        resume(root, other)
    named = str(refusal.value).partition("(")[2].partition(")")[0].split(", ")
    assert sorted(named) == ["rounds.budget", "screening.n_volume_scales", "screening.window", "seed"]
    assert (root / "settings.toml").read_bytes() == text


def test_settings_edited_by_hand_are_refused(root: Path) -> None:
    edited = read_settings(root).model_copy(update={"seed": 99})
    (root / "settings.toml").write_text(to_toml(edited))
    for settings in (None, edited):
        with pytest.raises(CampaignError, match="changed since the campaign began"):
            resume(root, settings)


def test_while_another_process_runs_it_nothing_is_changed(root: Path) -> None:
    written = read_settings(root)
    rounds = written.rounds.model_copy(update={"n_rounds": N_ROUNDS + 1})
    with Journal(root / "journal.sqlite"), pytest.raises(CampaignError, match="another process"):
        resume(root, written.model_copy(update={"rounds": rounds}))
    assert read_settings(root) == written


def test_workers_attempts_and_name_may_change(root: Path) -> None:
    written = read_settings(root)
    execution = written.execution.model_copy(update={"workers": 5, "attempts": 1})
    assert resume(root, written.model_copy(update={"execution": execution, "name": "renamed"})) == read_state(root)


def test_more_rounds_continue_the_campaign_and_are_kept(root: Path) -> None:
    written = read_settings(root)
    rounds = written.rounds.model_copy(update={"n_rounds": N_ROUNDS + 1})
    with pytest.raises(WorkWantedError):
        resume(root, written.model_copy(update={"rounds": rounds}))
    assert read_settings(root).rounds.n_rounds == N_ROUNDS + 1
    state = read_state(root)
    assert sorted(state.rounds) == list(range(1, N_ROUNDS + 2))
    opened = state.round(N_ROUNDS + 1).opened
    assert opened is not None
    parents = read_table(root / "rounds" / f"{N_ROUNDS + 1:02d}" / "parents.parquet")
    assert opened.n_parents == len(parents)
    assert any(identifier.startswith("ion-") for identifier in parents.ids), "what was found is a parent now"


def test_a_new_campaign_needs_settings(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="holds no campaign to resume"):
        resume(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_new_campaign_writes_the_settings_it_was_given(tmp_path: Path, finished: Path) -> None:
    # no candidate source and no oracle is reached: the known set is looked for first
    given = read_settings(finished)
    known = given.known.model_copy(update={"source": str(tmp_path / "absent.parquet")})
    given = given.model_copy(update={"known": known})
    with pytest.raises(SettingsError, match="neither 'embedded' nor a file"):
        resume(tmp_path / "new", given)
    assert (tmp_path / "new" / "settings.toml").read_text() == to_toml(given)
    assert read_settings(tmp_path / "new") == given


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CampaignError, match="choose another directory"):
        resume(tmp_path / "file" / "campaign", read_settings(finished))


def test_a_changed_known_set_is_refused(tmp_path: Path) -> None:
    root = build_campaign(tmp_path / "campaign", n_closed=N_ROUNDS)
    table = Path(read_settings(root).known.source)
    assert resume(root) == read_state(root)
    rows = read_table(table)
    energies = rows.column("formation_energy_per_atom")
    write_table(table, rows.with_column("formation_energy_per_atom", [*energies[:-1], energies[-1] - 0.001]))
    with pytest.raises(CampaignError, match="known set has changed"):
        resume(root)


def test_a_known_set_that_was_moved_is_found_where_the_settings_say_and_later_too(tmp_path: Path) -> None:
    root = build_campaign(tmp_path / "campaign", n_closed=N_ROUNDS)
    written = read_settings(root)
    table = Path(written.known.source).rename(tmp_path / "moved.parquet")
    known = written.known.model_copy(update={"source": str(table)})
    assert resume(root, written.model_copy(update={"known": known})) == read_state(root)
    assert resume(root) == read_state(root)
    assert CampaignResults(root).discoveries


def test_settings_of_later_versions_do_not_rename_campaigns_begun_before() -> None:
    """What is not used is no part of the digest, which is that of the first version; files have it."""
    settings = CampaignSettings()
    text = settings.model_dump_json()
    assert "max_vacancy_fraction" not in text
    assert "bfloat16" not in settings.screening.model_dump_json(context=FOR_DIGEST)
    changed = {"screening": {"bfloat16": True}}
    assert CampaignSettings.model_validate(changed).digest != settings.digest
    assert CampaignSettings.model_validate_json(text) == settings


def test_settings_of_earlier_versions_come_back_from_their_file(tmp_path: Path) -> None:
    """A default that is another one now: the file must say what the campaign has, or it could not be resumed."""
    before = {"screening": {"minimum_inside": False}, "rounds": {"competitors": "known"}}
    settings = CampaignSettings.model_validate(before)
    (tmp_path / "settings.toml").write_text(to_toml(settings))
    assert load(CampaignSettings, tmp_path / "settings.toml") == settings
    written = settings.model_dump_json(context=FOR_DIGEST)
    assert not {"minimum_inside", "competitors"} & {*re.findall(r"\w+", written)}
    assert CampaignSettings().digest != settings.digest


def begun(root: Path, **oracle: str) -> Path:
    """A campaign that has begun and done nothing else."""
    settings = make_settings(None)
    root.mkdir()
    Layout(root).settings.write_text(to_toml(settings))
    known = load_known_set(settings.known).digest
    with Journal(Layout(root).journal) as journal:
        journal.append(
            CampaignStarted(
                settings_digest=settings.digest, known_digest=known, versions={}, reference_ids=("x",), **oracle
            )
        )
    return root


def test_an_oracle_of_another_level_is_refused(tmp_path: Path) -> None:
    root = begun(tmp_path / "campaign", oracle_level="espresso-pbe-SSSP-0123abcd-90Ry-k0.25-cold0.01")
    with pytest.raises(
        CampaignError, match=r"of level 'chgnet-0\.3\.0' and the campaign began with 'espresso-pbe-SSSP-01"
    ):
        resume(root)


def test_journals_without_a_level_and_optional_packages_are_gone_on_with(tmp_path: Path) -> None:
    root = begun(tmp_path / "campaign")
    started = read_state(root).started
    assert started is not None
    text = started.model_dump(exclude={"oracle_level", "oracle_version"})
    assert EVENT_ADAPTER.validate_python(text) == started
    _refuse_changes_of(root)
    assert "versions differ" not in (root / "progress.log").read_text()
    told = begun(tmp_path / "told", oracle_level="chgnet-0.3.0", oracle_version="0.0.1")
    _refuse_changes_of(told)
    assert (
        f"versions differ from those the campaign began with: chgnet 0.0.1 -> {version('chgnet')}"
        in (told / "progress.log").read_text()
    )


def _refuse_changes_of(root: Path) -> None:
    progress = Progress(root / "progress.log", quiet=True)
    progress.message("resumed")
    context = Context(root, read_settings(root), make_executor=no_workers, progress=progress)
    with Journal(Layout(root).journal) as journal:
        _refuse_changes(journal, context)


def test_what_differs_in_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    now = versions()
    assert changed_versions({}) == changed_versions(now) == []
    assert changed_versions(now | {"ase": "3.0", "gone": "1.0"}) == [
        f"ase 3.0 -> {now['ase']}",
        "gone 1.0 -> not installed",
    ]
    monkeypatch.setattr(preparation, "_OPTIONAL", ("pytest", "no-such-package"))
    assert versions() == {k: v for k, v in now.items() if k not in OPTIONAL} | {"pytest": pytest.__version__}


def test_where_an_engine_runs_is_no_difference(root: Path) -> None:
    def settings(**gpaw: object) -> CampaignSettings:
        return CampaignSettings.model_validate({"oracle": {"name": "gpaw", "gpaw": gpaw}})

    (root / "settings.toml").write_text(to_toml(settings()))
    with pytest.raises(CampaignError, match=r"with other settings \(oracle\.gpaw\.cutoff\)"):
        resume(root, settings(cutoff=600.0, folder="/scratch", ranks=2))


def test_where_dft_runs_does_not_rename_its_calculations() -> None:
    def settings(**gpaw: object) -> CampaignSettings:
        return CampaignSettings.model_validate({"oracle": {"name": "gpaw", "gpaw": gpaw}})

    crystal = Crystal(3 * np.eye(3), np.zeros((1, 3)), np.array([29]))
    usual, moved, other = settings(), settings(folder="/scratch", ranks=4), settings(cutoff=600.0)
    assert usual.digest == moved.digest != other.digest
    assert calculation_key(crystal, usual.oracle) == "50fbfe206c5fcda2c8980c70539e240e", (
        "names of calculations of earlier versions stay"
    )
    keys = [calculation_key(crystal, campaign.oracle) for campaign in (usual, moved, other)]
    assert keys[0] == keys[1] != keys[2]
