"""Campaigns that cannot work: one line with the remedy and status 2, before anything is computed."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_up import known_set
from typer.testing import CliRunner

from opengnome.campaign import discover, read_settings
from opengnome.campaign.checking import check_campaign
from opengnome.campaign.discover import load_settings
from opengnome.campaign.findings import Severity
from opengnome.campaign.journal import Journal
from opengnome.campaign.layout import Layout
from opengnome.cli import app
from opengnome.crystals.io import write_table
from opengnome.errors import CampaignError, OpenGnomeError
from report.synthetic_campaign import build_campaign

BAD = {
    "a wrong key": (["rounds.bugdet=5"], "rounds.bugdet is not a setting; did you mean 'budget'"),
    "a negative budget": (["rounds.budget=-5"], "rounds.budget: Input should be greater than or equal to 1, got -5"),
    "an unknown element of the known set": (
        ["known.elements=['Na','Xx']"],
        "known.elements: .*'Xx'.* not element",
    ),
    "an unknown element of candidates": (["generation.allowed_elements=['Xx']"], "generation.allowed_elements: .*'Xx'"),
    "an oracle that is not there": (["oracle.name=quantum"], "oracle.name"),
    "an engine that is not installed": (["oracle.name=vasp"], "no executable 'vasp_std' on the PATH; load the module"),
    "a calculator that is not installed": (
        ["oracle.name=ase", "oracle.calculator=nowhere.module:Calculator"],
        "No module named 'nowhere'; is its package installed",
    ),
    "a known set that is not there": (["known.source=nowhere.parquet"], "neither 'embedded' nor a file"),
    "a table without the column": (
        ["known.source={tmp}/known.parquet", "known.energy_column=e_form"],
        "no column e_form; its columns are .* Name one with known.energy_column",
    ),
    "two levels on one hull": (["known.source={tmp}/known.parquet"], "do not share a hull. Set alignment.scheme"),
    "no elemental references": (
        ["known.source={tmp}/compounds.parquet", "known.level=chgnet-0.3.0"],
        "no elemental entry of O, Na, Cl, K: .* leave these elements out with known.elements",
    ),
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A known set, and the same without its elements."""
    folder = tmp_path_factory.mktemp("tables")
    known = known_set()
    table = known.table.with_column("energy_per_atom", known.energies_per_atom)
    write_table(folder / "known.parquet", table)
    write_table(folder / "compounds.parquet", table.slice(4))
    return folder


def refusal(directory: Path, overrides: list[str]) -> OpenGnomeError:
    """What `opengnome discover` raises, which its entry point prints as one line."""
    arguments = [part for override in overrides for part in ("--set", override)]
    result = CliRunner().invoke(app, ["discover", str(directory), *arguments])
    assert isinstance(result.exception, OpenGnomeError), result.output
    return result.exception


@pytest.mark.parametrize("bad", BAD)
def test_it_is_told_with_the_remedy_before_anything_is_computed(bad: str, tables: Path, tmp_path: Path) -> None:
    overrides, message = BAD[bad]
    error = refusal(tmp_path / "campaign", [override.format(tmp=tables) for override in overrides])
    assert error.exit_code == 2
    assert "\n" not in str(error)
    with pytest.raises(type(error), match=message):
        raise error
    assert not (tmp_path / "campaign" / "calculations").exists()
    if (tmp_path / "campaign").exists():
        with Journal(Layout(tmp_path / "campaign").journal, read_only=True) as journal:
            assert not list(journal)


def test_a_directory_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(tmp_path / "file" / "campaign", [])
    assert "choose another directory" in str(error)
    assert error.exit_code == 2


def test_a_campaign_that_was_refused_takes_better_settings(tables: Path, tmp_path: Path) -> None:
    """The refused settings are in the directory, but nothing was done by them."""
    source, layout = f"known.source={tables}/known.parquet", Layout(tmp_path / "campaign")
    assert "do not share a hull" in str(refusal(layout.root, [source]))
    again = refusal(layout.root, [source, "known.energy_column=e_form"])
    assert "no column e_form" in str(again), "and not that the campaign has other settings"
    assert "e_form" in layout.settings.read_text()
    without = refusal(layout.root, ["known.level=nobody"])  # the settings of the embedded campaign, as for a new one
    assert "known set 'embedded'" in str(without)


@pytest.mark.parametrize("folder", ["calculations", "rounds"])
def test_results_keep_the_settings_also_when_the_journal_is_lost(tables: Path, tmp_path: Path, folder: str) -> None:
    source, layout = f"known.source={tables}/known.parquet", Layout(tmp_path / "campaign")
    assert "do not share a hull" in str(refusal(layout.root, [source]))
    (layout.root / folder).mkdir()
    (layout.root / folder / "something").write_text("")
    layout.journal.unlink()
    text = layout.settings.read_text()
    assert "other settings (seed)" in str(refusal(layout.root, [source, "seed=1"]))
    assert layout.settings.read_text() == text


def test_the_tables_are_what_they_are_said_to_be(tables: Path) -> None:
    formulas = pq.read_table(tables / "compounds.parquet")["reduced_formula"].to_pylist()
    assert "Na" not in formulas
    assert "NaCl" in formulas


def test_another_known_set_is_refused_and_not_remembered(tables: Path, tmp_path: Path) -> None:
    root = build_campaign(tmp_path / "campaign")
    before = (root / "settings.toml").read_text()
    settings = read_settings(root)
    other = settings.known.model_copy(update={"source": str(tables / "known.parquet")})
    with pytest.raises(CampaignError, match="the known set has changed"):
        discover(root, settings.model_copy(update={"known": other}))
    assert (root / "settings.toml").read_text() == before


@pytest.mark.parametrize("content", ["nothing", "no tables"])
def test_a_journal_that_was_cut_to_nothing_is_written_again(tmp_path: Path, content: str) -> None:
    root = build_campaign(tmp_path / "campaign")
    journal = Layout(root).journal
    for path in root.glob("journal.sqlite*"):
        path.unlink()
    journal.touch()
    if content == "no tables":
        with closing(sqlite3.connect(journal)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("VACUUM")
        assert journal.stat().st_size > 0
    assert load_settings(root, None, resume=True) == read_settings(root)
    (finding,) = [f for f in check_campaign(root).findings if f.path == journal.name]
    assert (finding.severity, finding.remedy) == (Severity.WARNING, "discover writes it again")
    with Journal(journal) as written:
        assert list(written) == []
