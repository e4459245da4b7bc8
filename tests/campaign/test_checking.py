"""A campaign of a closed and an open round is damaged in one place; the check names it, and `--mend` mends it.

What `discover` would do after mending is asked of `plan`, which orders its work from the journal alone.
"""

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_up import LEVEL, calculated, choice, write_answer
from typer.testing import CliRunner

from opengnome.campaign import CampaignResults, CampaignSettings, read_settings, read_state
from opengnome.campaign.actions import (
    Action,
    Align,
    AssembleEnsemble,
    Calculate,
    CloseRound,
    OpenRound,
    ScreenShard,
    SearchComposition,
    Start,
    TrainMember,
)
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.checking import check_campaign
from opengnome.campaign.events import (
    CampaignStarted,
    CompositionsProposed,
    EnsembleAssembled,
    MemberTrained,
    RoundClosed,
    RoundOpened,
    Searched,
    Selected,
    ShardScreened,
)
from opengnome.campaign.findings import Checked, Finding, Severity
from opengnome.campaign.journal import FORMAT_VERSION, Journal
from opengnome.campaign.layout import Layout
from opengnome.campaign.preparation import versions
from opengnome.campaign.shards import COUNT_PREFIX
from opengnome.campaign.state import plan
from opengnome.cli import app
from opengnome.crystals import Composition, CrystalTable
from opengnome.crystals.io import write_table
from opengnome.datasets import load_known_set
from opengnome.errors import CampaignError, SettingsError
from opengnome.models import CompositionalSettings, StructuralSettings, assemble_compositional, assemble_ensemble
from opengnome.models.calibration import MIN_FOR_FIT
from opengnome.models.checkpoint import save_checkpoint
from opengnome.models.constants import Constants
from opengnome.models.network import make_network
from opengnome.oracles import Status
from opengnome.settings import to_toml, validate
from report.synthetic_campaign import grid_crystal, write_known_table

FORMULAS = ("NaCl", "KCl", "Na2O", "K2O", "MgO", "ZrO2")
GOOD, FAILED, SEARCHED = "ion-MgCl2", "ion-KO3", "rss-NaKO"
REFERENCE = "known-NaCl"
HOUR_AGO = time.time() - 3600


def table_of(formulas: Sequence[str], ids: Sequence[str] | None = None) -> CrystalTable:
    crystals = [grid_crystal(formula) for formula in formulas]
    return CrystalTable.from_crystals(crystals, list(ids or [f"known-{formula}" for formula in formulas]))


def build(root: Path) -> Path:
    """Round 1 closed, with a search; of round 2 one of two shards is screened."""
    layout = Layout(root)
    known = root.parent / "known.parquet"
    write_known_table(known)
    data = {
        "known": {"source": str(known), "level": LEVEL},
        "rounds": {"n_rounds": 2, "budget": 2},
        "ensemble": {"n_members": 2},
        "compositions": {"budget": 1},
    }
    settings = validate(CampaignSettings, data)
    root.mkdir()
    layout.settings.write_text(to_toml(settings))
    write_table(layout.references, table_of(["NaCl"]))
    with Journal(layout.journal) as journal:
        journal.append(
            CampaignStarted(
                settings_digest=settings.digest,
                known_digest=load_known_set(settings.known).digest,
                versions=versions(),
                reference_ids=(REFERENCE,),
            )
        )
        append_calculated(journal, root, REFERENCE, "NaCl", -3.0, round=0)
        journal.append(no_alignment())
        for number in (1, 2):
            append_model(journal, layout, number)
            append_shard(journal, layout, number, 0)
        append_shard(journal, layout, 1, 1)
        append_results(journal, layout)
    return root


def append_model(journal: Journal, layout: Layout, number: int) -> None:
    training = table_of(FORMULAS)
    held_out = np.zeros(len(training), dtype=bool)
    targets = np.linspace(-2.0, -1.0, len(training))
    write_table(layout.parents(number), training)
    write_table(layout.training(number), training.with_column("target", targets).with_column("held_out", held_out))
    layout.formulas(number).write_text("NaCl\nKCl\n")
    opened = RoundOpened(round=number, n_parents=6, n_shards=2, n_training=6, hull_digest="h")
    journal.append(opened)
    constants = Constants(mean_neighbours=6.0, shift=-1.5, scale=1.0)
    for member in range(2):
        path = layout.member(number, member)
        torch.manual_seed(10 * number + member)
        network = make_network(StructuralSettings(width=8, edge_width=8, layers=1, cutoff=4.0), constants)
        save_checkpoint(path, network, card={})
        journal.append(MemberTrained(round=number, member=member, path=layout.relative(path), metrics={}))
    folder = layout.ensemble(number)
    members = [layout.member(number, m) for m in range(2)]
    ensemble = assemble_ensemble(members, folder, table=training, targets=targets, held_out=held_out)
    journal.append(
        EnsembleAssembled(round=number, path=layout.relative(folder), digest=ensemble.digest, metrics={"mae": 1.0})
    )


def append_shard(journal: Journal, layout: Layout, number: int, shard: int) -> None:
    path = layout.shard(number, shard)
    write_shard(path, table_of(["MgCl2", "KO3"], [GOOD, FAILED]))
    counts = {"proposed": 9, "kept": 2}
    journal.append(ShardScreened(round=number, shard=shard, path=layout.relative(path), counts=counts))


def write_shard(path: Path, table: CrystalTable) -> None:
    counts = {f"{COUNT_PREFIX}proposed": "9", f"{COUNT_PREFIX}kept": "2"}
    write_table(path, CrystalTable(table.arrow.replace_schema_metadata(counts)))


def append_results(journal: Journal, layout: Layout) -> None:
    chosen = table_of(["MgCl2", "KO3"], [GOOD, FAILED])
    write_table(layout.kept(1), chosen)
    write_table(layout.chosen(1), chosen)
    choices = (choice(GOOD, "MgCl2"), choice(FAILED, "KO3"))
    path = layout.relative(layout.kept(1))
    journal.append(Selected(round=1, counts={"generated": 9, "lowest_per_composition": 2}, choices=choices, path=path))
    append_calculated(journal, layout.root, GOOD, "MgCl2", -3.5)
    append_calculated(journal, layout.root, FAILED, "KO3", None)
    scored = layout.compositions(1)
    pq.write_table(pa.table({"id": [SEARCHED]}), scored)
    composed = (choice(SEARCHED, "NaKO", arms=("compositional",)),)
    journal.append(
        CompositionsProposed(round=1, counts={"scored": 1}, choices=composed, metrics={}, path=layout.relative(scored))
    )
    append_calculated(journal, layout.root, SEARCHED, "NaKO", -2.5)
    write_answer(layout.root, calculated("run-2", "NaKO", -2.4), initial=grid_crystal("NaKO"))
    search = layout.search(1, SEARCHED)
    search.parent.mkdir()
    pq.write_table(pa.table({"calculation": [f"{SEARCHED}.parquet", "run-2.parquet"]}), search)
    searched = Searched(
        round=1, candidate_id=SEARCHED, reduced_formula="NaKO", n_starts=2, n_completed=2, n_lowest=1, seconds=4.0,
        path=layout.relative(search),
    )  # fmt: skip
    journal.append(searched)
    journal.append(RoundClosed(round=1, metrics={}))


def append_calculated(
    journal: Journal, root: Path, identifier: str, formula: str, energy: float | None, *, round: int = 1
) -> None:
    status = Status.EXPLODED if energy is None else Status.CONVERGED
    answer = calculated(identifier, formula, energy, round=round, status=status)
    write_answer(root, answer, initial=grid_crystal(formula))
    journal.append(answer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whole") / "campaign")


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "campaign")
    return tmp_path / "campaign"


def files(root: Path) -> dict[str, bytes]:
    """Content of every file but the journal's own log and lock."""
    skipped = (".lock", ".sqlite-wal", ".sqlite-shm")
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and p.suffix not in skipped
    }


def calculation(root: Path, identifier: str) -> Path:
    return root / "calculations" / f"{identifier}.parquet"


def wrong(checked: Checked) -> list[Finding]:
    return [finding for finding in checked.findings if finding.severity != Severity.NOTE]


def only(checked: Checked) -> Finding:
    """The one thing that is wrong."""
    (finding,) = wrong(checked)
    return finding


def planned(root: Path) -> list[Action]:
    return plan(read_state(root), read_settings(root))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# --- whole ----------------------------------------------------------------------------------------------------


def test_a_whole_campaign_is_whole_and_stays_as_it_is(root: Path) -> None:
    before = files(root)
    checked = check_campaign(root)
    assert checked.findings == []
    assert checked.exit_code == 0
    assert checked.counts == {"events": 21, "files named by them": 24}
    assert files(root) == before
    assert planned(root) == [ScreenShard(2, 1)]


def test_mending_a_whole_campaign_changes_nothing(root: Path) -> None:
    before, state = files(root), read_state(root)
    assert check_campaign(root, mending=True).findings == []
    assert read_state(root) == state
    assert files(root) == before


def test_where_no_campaign_is(tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="holds no campaign"):
        check_campaign(tmp_path)


# --- files that events vouch for ------------------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [remove, halve, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize(
    ("lost", "fixed_by"),
    [
        (f"calculations/{GOOD}.parquet", [Calculate(1, GOOD)]),
        (f"calculations/{FAILED}.parquet", [Calculate(1, FAILED)]),
        (f"calculations/{REFERENCE}.parquet", [Calculate(0, REFERENCE)]),
        (f"calculations/{SEARCHED}.parquet", [SearchComposition(1, SEARCHED)]),
        (f"rounds/01/searches/{SEARCHED}.parquet", [SearchComposition(1, SEARCHED)]),
        ("rounds/02/shards/00000.parquet", [ScreenShard(2, 0), ScreenShard(2, 1)]),
        ("rounds/02/parents.parquet", [OpenRound(2)]),
        ("rounds/02/ensemble/ensemble.json", [AssembleEnsemble(2)]),
        ("rounds/02/ensemble/member-01.safetensors", [AssembleEnsemble(2)]),
    ],
)
def test_what_is_lost_and_needed_is_made_again(
    root: Path, lost: str, fixed_by: list[Action], damage: Callable[[Path], None]
) -> None:
    damage(root / lost)
    before = files(root)
    finding = only(check_campaign(root))
    assert finding.severity == Severity.ERROR
    assert lost.startswith(finding.path)
    assert "--mend" in finding.remedy
    assert files(root) == before, "without mend nothing is changed"

    mended = check_campaign(root, mending=True)
    assert only(mended).mended
    assert mended.exit_code == 0
    assert planned(root) == fixed_by
    again = check_campaign(root)
    assert again.exit_code == 0, again.findings


@pytest.mark.parametrize(
    "lost",
    ["rounds/01/kept.parquet", "rounds/01/chosen.parquet", "rounds/01/shards/00001.parquet",
     "rounds/01/members/0.safetensors", "rounds/01/training.parquet", "rounds/01/known_formulas.txt",
     "rounds/01/compositions.parquet", "calculations/run-2.parquet"],
)  # fmt: skip
def test_what_a_finished_step_has_used_is_a_note(root: Path, lost: str) -> None:
    (root / lost).unlink()
    checked = check_campaign(root, mending=True)
    (finding,) = checked.findings
    assert finding.severity == Severity.NOTE
    assert "needed no more" in finding.remedy
    assert checked.exit_code == 0
    assert planned(root) == [ScreenShard(2, 1)]


def test_what_it_is_made_of_is_made_again_first(root: Path) -> None:
    """The ensemble is lost, and a member that it would be assembled from, and the rows to train that on."""
    layout = Layout(root)
    (layout.ensemble(2) / "ensemble.json").unlink()
    halve(layout.member(2, 1))
    layout.training(2).unlink()
    check_campaign(root, mending=True)
    state = read_state(root)
    assert state.round(2).opened is None
    assert sorted(state.round(2).members) == [0]
    assert state.round(2).ensemble is None
    assert sorted(state.round(2).shards) == [0], "what is not lost stays"
    assert planned(root) == [OpenRound(2)]
    with Journal(layout.journal) as journal:
        journal.append(RoundOpened(round=2, n_parents=6, n_shards=2, n_training=6, hull_digest="h"))
    assert planned(root) == [TrainMember(2, 1)]


def test_chosen_crystals_are_chosen_again_when_one_is_to_be_calculated_again(root: Path) -> None:
    layout = Layout(root)
    calculation(root, GOOD).unlink()
    layout.chosen(1).unlink()
    check_campaign(root, mending=True)
    current = read_state(root).round(1)
    assert current.selection is None
    assert sorted(current.calculations) == [FAILED, SEARCHED]
    assert current.closed is None
    results = CampaignResults(root)
    (failed,) = (c for c in results.calculations if c.crystal_id == FAILED)
    with pytest.raises(CampaignError, match=rf"what round 1 chose is not in the journal.*{FAILED}; opengnome discover"):
        results.choice_of(failed)


def test_failed_calculations_are_made_again_where_that_is_asked_for(root: Path) -> None:
    """When their cause is gone: a limit of memory or time that was too small."""
    before = files(root)
    asked = [f for f in check_campaign(root, again=["exploded"]).findings if "is asked for again" in f.what]
    assert {(f.path, f.severity) for f in asked} == {(f"calculations/{FAILED}.parquet", Severity.NOTE)}
    assert files(root) == before
    kept = calculation(root, FAILED).read_bytes()
    check_campaign(root, mending=True, again=["exploded"])
    assert planned(root) == [Calculate(1, FAILED)], "the one that converged is not"
    assert (root / "damaged" / "calculations" / f"{FAILED}.parquet").read_bytes() == kept
    with pytest.raises(SettingsError, match=r"no calculation ends as 'bad'; give one of converged, .*failed"):
        check_campaign(root, again=["bad"])


def test_reference_crystals_are_drawn_again_when_one_is_to_be_calculated_again(root: Path) -> None:
    Layout(root).references.unlink()
    (finding,) = check_campaign(root).findings
    assert finding.severity == Severity.NOTE, "read only where references are calculated"
    calculation(root, REFERENCE).unlink()
    check_campaign(root, mending=True)
    assert planned(root) == [Start()]


def test_an_alignment_follows_its_calculations(root: Path) -> None:
    calculation(root, REFERENCE).unlink()
    check_campaign(root, mending=True)
    with Journal(Layout(root).journal) as journal:
        append_calculated(journal, root, REFERENCE, "NaCl", -3.0, round=0)
    assert planned(root) == [Align()]


def test_a_calculation_of_other_content(root: Path) -> None:
    other = calculated(GOOD, "MgCl2", -3.4)
    write_answer(root, other, initial=grid_crystal("MgCl2"))
    finding = only(check_campaign(root))
    assert finding.what == "has energy per atom -3.4, its event says -3.5 (calculated:1:ion-MgCl2)"
    content = calculation(root, GOOD).read_bytes()
    check_campaign(root, mending=True)
    assert (root / "damaged" / "calculations" / f"{GOOD}.parquet").read_bytes() == content
    assert planned(root) == [Calculate(1, GOOD)]


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (calculated(GOOD, "MgCl2", None, status=Status.TIMED_OUT), "status timed_out"),
        (calculated(GOOD, "NaCl", -3.5), "formula NaCl"),
    ],
)
def test_a_calculation_of_another_outcome_or_crystal(root: Path, other, differs: str) -> None:
    write_answer(root, other, initial=grid_crystal(other.reduced_formula))
    assert differs in only(check_campaign(root)).what


def test_an_ensemble_of_another_digest(root: Path) -> None:
    """Weights swapped between two members: each file is whole, the ensemble is another one."""
    folder = Layout(root).ensemble(2)
    first, second = folder / "member-00.safetensors", folder / "member-01.safetensors"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert "has digest" in only(check_campaign(root)).what
    check_campaign(root, mending=True)
    assert planned(root) == [AssembleEnsemble(2)]


def test_a_shard_of_another_number_of_candidates(root: Path) -> None:
    write_shard(Layout(root).shard(2, 0), table_of(["MgCl2"], [GOOD]))
    assert "has rows 1, its event says 2" in only(check_campaign(root)).what


def test_a_closed_shard_that_says_something_else_is_a_warning_and_not_made_again(root: Path) -> None:
    write_shard(Layout(root).shard(1, 0), table_of(["MgCl2"], [GOOD]))
    checked = check_campaign(root, mending=True)
    assert only(checked).severity == Severity.WARNING
    assert checked.exit_code == 1
    assert planned(root) == [ScreenShard(2, 1)]


def test_a_later_format_is_not_taken_for_damage(root: Path) -> None:
    path = calculation(root, GOOD)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({"format": "opengnome-calculation-9"}), path)
    finding = only(check_campaign(root, mending=True))
    assert "opengnome-calculation-9" in finding.what
    assert not finding.mended
    assert path.exists()
    assert planned(root) == [ScreenShard(2, 1)]


def test_a_disk_that_fails_is_not_taken_for_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("opengnome.campaign.artefacts.load_checkpoint", fail)
    monkeypatch.setattr("opengnome.campaign.artefacts.Ensemble.load", fail)
    found = wrong(check_campaign(root, mending=True))
    assert {finding.path for finding in found} >= {"rounds/02/ensemble", "rounds/02/members/0.safetensors"}
    assert all("Input/output error" in finding.what for finding in found)
    assert not any(finding.mended for finding in found)
    assert planned(root) == [ScreenShard(2, 1)]


# --- files that no event mentions -----------------------------------------------------------------------------


def test_finished_work_without_an_event_is_kept(root: Path) -> None:
    for name in ("a", "b"):
        write_answer(root, calculated(name, "KCl", -2.0), initial=grid_crystal("KCl"))
    write_shard(Layout(root).shard(2, 1), table_of(["MgCl2", "KO3"], [GOOD, FAILED]))
    before = files(root)
    checked = check_campaign(root, mending=True)
    assert {f.path: f.what for f in checked.findings} == {
        "calculations": "2 finished files that no event mentions",
        "rounds/02/shards": "1 finished files that no event mentions",
    }
    assert checked.exit_code == 0
    assert files(root) == before


@pytest.mark.parametrize("name", ["calculations/x.parquet", "rounds/02/shards/00001.parquet",
                                  "rounds/02/members/2.safetensors"])  # fmt: skip
def test_a_damaged_result_without_an_event_is_set_aside(root: Path, name: str) -> None:
    (root / name).write_bytes(b"half of a fil")
    finding = only(check_campaign(root))
    assert (finding.path, finding.severity) == (name, Severity.ERROR)
    check_campaign(root, mending=True)
    assert not (root / name).exists()
    assert (root / "damaged" / name).read_bytes() == b"half of a fil"
    (root / name).write_bytes(b"the second one")
    check_campaign(root, mending=True)
    assert (root / "damaged" / name).read_bytes() == b"half of a fil", "an earlier one is not replaced"
    assert (root / "damaged" / f"{name}.1").read_bytes() == b"the second one"


def test_relaxations_of_a_search_to_be_done_again_are_looked_at(root: Path) -> None:
    calculation(root, SEARCHED).unlink()
    halve(calculation(root, "run-2"))
    found = wrong(check_campaign(root, mending=True))
    assert sorted(f.path for f in found) == [f"calculations/{SEARCHED}.parquet", "calculations/run-2.parquet"]
    assert not calculation(root, "run-2").exists(), "the search would stop at it"


def leave(root: Path, name: str, content: str = "", *, old: bool = True) -> Path:
    path = root / name
    path.write_text(content)
    if old:
        os.utime(path, (HOUR_AGO, HOUR_AGO))
    return path


def test_what_a_killed_run_left_half_done_is_removed(root: Path) -> None:
    left = [
        leave(root, "calculations/.x.4711.tmp.parquet", "half"),
        leave(root, ".settings.4711.tmp.toml", "half"),
        leave(root, "calculations/x.parquet.starts", ".."),
        leave(root, "calculations/x.parquet.hung"),
        leave(root, "rounds/02/shards/00001.parquet.starts", "."),
    ]
    checked = check_campaign(root)
    assert sorted(f.path for f in checked.findings) == sorted(str(path.relative_to(root)) for path in left)
    assert checked.exit_code == 0, "a run that was killed leaves such files; nothing is lost"
    assert all(path.exists() for path in left)
    check_campaign(root, mending=True)
    assert not any(path.exists() for path in left)
    assert check_campaign(root).findings == []


def leave_graphs(root: Path, name: str) -> Path:
    folder = root / "rounds" / "02" / name
    folder.mkdir()
    (folder / "senders.npy").write_bytes(b"half")
    return folder


def age(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        os.utime(path, (HOUR_AGO, HOUR_AGO))


def test_graphs_that_were_being_written_are_removed_with_their_folder(root: Path) -> None:
    names = [".graphs-0a1b.00c0ffee00c0ffee.tmp", ".graphs-0a1b.00c0ffee00c0ffee.damaged"]
    left = [leave_graphs(root, name) for name in names]
    for folder in left:
        os.utime(folder, (HOUR_AGO, HOUR_AGO))
    kept = leave_graphs(root, "graphs-0a1b")
    checked = check_campaign(root, mending=True)
    assert {f.path: f.mended for f in checked.findings} == {f"rounds/02/{name}": False for name in names}
    assert all("temporary" in f.what and "so young" in f.remedy for f in checked.findings), "a file in it is young"
    for folder in (*left, kept):
        age(folder)
    assert len(check_campaign(root).findings) == 2
    assert check_campaign(root, mending=True).exit_code == 0
    assert (not any(folder.exists() for folder in left), kept.exists()) == (True, True)
    assert check_campaign(root).findings == []


def test_parts_of_a_shard_are_results_until_it_is_there(root: Path) -> None:
    for shard in (0, 1):  # the first is there
        write_shard(root / f"rounds/02/shards/{shard:05d}.parents/000000000.parquet", table_of(["MgCl2"], [GOOD]))
    used_up, needed = (root / f"rounds/02/shards/{shard:05d}.parents" for shard in (0, 1))
    age(used_up)
    told = {f.path: f.what for f in check_campaign(root, mending=True).findings}
    assert told == {
        "rounds/02/shards/00000.parents": "temporary of a run that ended",
        "rounds/02/shards/00001.parents": "1 finished files that no event mentions",
    }
    assert (used_up.exists(), needed.exists()) == (False, True)
    halve(needed / "000000000.parquet")
    assert only(check_campaign(root, mending=True)).mended
    assert planned(root) == [ScreenShard(2, 1)]


def test_what_a_killed_training_goes_on_from_is_kept_until_its_network_is_there(root: Path) -> None:
    (root / "rounds/02/compositional/members").mkdir(parents=True)
    needed = [leave(root, name) for name in ("rounds/02/members/2.state", "rounds/02/compositional/members/0.state")]
    done = leave(root, "rounds/02/members/1.state")
    checked = check_campaign(root, mending=True)
    told = {f.path: f.what for f in checked.findings}
    assert told == {
        "rounds/02/members/2.state": "state of a training that has left no network yet",
        "rounds/02/compositional/members/0.state": "state of a training that has left no network yet",
        "rounds/02/members/1.state": "training state of a run that ended",
    }
    assert all(path.exists() for path in needed)
    assert not done.exists()


def test_young_temporaries_and_notes_of_hangs_stay(root: Path) -> None:
    young = leave(root, "calculations/.x.4711.tmp.parquet", "half", old=False)
    hung = leave(root, "calculations/x.parquet.hung", "Timeout (0:00:10)!\n")
    checked = check_campaign(root, mending=True)
    assert young.exists()
    assert hung.exists()
    assert {f.path: f.mended for f in checked.findings} == {
        "calculations/.x.4711.tmp.parquet": False, "calculations/x.parquet.hung": False,
    }  # fmt: skip


# --- compositional networks, which have no events of their own -------------------------------------------------


def train_compositional(root: Path, number: int) -> list[Path]:
    """Two small networks, as their trainings leave them."""
    folder = Layout(root).compositional(number) / "members"
    paths = [folder / f"{member}.safetensors" for member in range(2)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        small = CompositionalSettings(width=8, edge_width=8, layers=1, heads=1)
        save_checkpoint(path, make_network(small, Constants(mean_neighbours=1.0, shift=-1.5, scale=1.0)), card={})
    return paths


def assemble_of_round_1(root: Path) -> Path:
    compositions = [Composition.from_formula(f"Na{n}Cl") for n in range(1, MIN_FOR_FIT + 1)]
    folder = Layout(root).compositional_ensemble(1)
    assemble_compositional(
        train_compositional(root, 1), folder, compositions=compositions, targets=np.zeros(len(compositions)), card={}
    )
    return folder


def test_a_damaged_compositional_network_of_an_open_round_is_set_aside(root: Path) -> None:
    """There is no event to withdraw: a unit without its file is trained again."""
    whole, damaged = train_compositional(root, 2)
    halve(damaged)
    name = "rounds/02/compositional/members/1.safetensors"
    finding = only(check_campaign(root))
    assert (finding.path, finding.severity) == (name, Severity.ERROR)
    assert "discover would stop at it" in finding.remedy
    checked = check_campaign(root, mending=True)
    assert only(checked).mended
    assert (root / "damaged" / name).exists()
    assert (whole.exists(), damaged.exists()) == (True, False)
    assert {f.path: f.what for f in check_campaign(root).findings} == {
        "rounds/02/compositional/members": "1 finished files that no event mentions"
    }


def test_compositional_networks_of_a_round_that_has_proposed_are_looked_at(root: Path) -> None:
    ensemble = assemble_of_round_1(root)
    checked = check_campaign(root)
    assert checked.findings == []
    assert checked.counts["files named by them"] == 24 + 3
    halve(Layout(root).compositional(1) / "members" / "0.safetensors")
    (finding,) = check_campaign(root, mending=True).findings
    assert (finding.path, finding.severity) == ("rounds/01/compositional/members/0.safetensors", Severity.NOTE)
    assert "needed no more" in finding.remedy
    halve(ensemble / "member-00.safetensors")
    finding = only(check_campaign(root))
    assert (finding.path, finding.severity) == ("rounds/01/compositional/ensemble", Severity.WARNING)
    assert "predict --formula takes it" in finding.remedy
    shutil.rmtree(ensemble)
    assert wrong(check_campaign(root)) == []
    assert planned(root) == [ScreenShard(2, 1)]


# --- the journal ----------------------------------------------------------------------------------------------


def grow(root: Path, n_events: int = 100) -> None:
    """Many events behind the others, so that the journal has many pages."""
    with Journal(root / "journal.sqlite") as journal:
        for number in range(100, 100 + n_events):
            journal.append(RoundOpened(round=number, n_parents=1, n_shards=1, n_training=1, hull_digest="h" * 200))


def test_a_truncated_journal_keeps_its_start(root: Path) -> None:
    path = root / "journal.sqlite"
    grow(root)
    with Journal(path, read_only=True) as journal:
        before = [row.key for row in journal.rows()]
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    damaged = path.read_bytes()
    finding = only(check_campaign(root))
    assert finding.path == "journal.sqlite"
    with pytest.raises(CampaignError, match="opengnome check"):
        read_state(root)

    checked = check_campaign(root, mending=True)
    assert checked.exit_code == 0, wrong(checked)
    assert (root / "damaged" / "journal.sqlite").read_bytes() == damaged
    with Journal(path) as journal:
        kept = [row.key for row in journal.rows()]
        assert journal.version == FORMAT_VERSION
    assert 21 <= len(kept) < len(before)
    assert kept == before[: len(kept)]


def test_a_page_of_rubbish_in_the_middle(root: Path) -> None:
    grow(root)
    path = root / "journal.sqlite"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xa5" * 4096
    path.write_bytes(content)
    assert only(check_campaign(root)).path == "journal.sqlite"
    assert check_campaign(root, mending=True).exit_code == 0
    assert check_campaign(root).exit_code == 0


def test_a_journal_that_is_no_database_at_all(root: Path) -> None:
    (root / "journal.sqlite").write_bytes(b"something else altogether" * 400)
    assert only(check_campaign(root)).severity == Severity.ERROR
    checked = check_campaign(root, mending=True)
    assert checked.exit_code == 0, wrong(checked)
    assert read_state(root).started is None
    assert calculation(root, GOOD).exists(), "what is computed is there for the new journal"


@pytest.mark.parametrize("how", [remove, lambda path: path.write_bytes(b"")])
def test_a_journal_that_is_gone(root: Path, how: Callable[[Path], None]) -> None:
    how(root / "journal.sqlite")
    checked = check_campaign(root)
    assert checked.exit_code == 1
    assert "discover writes it again" in only(checked).remedy


def test_the_tail_of_a_log_that_was_cut_off_costs_its_last_events_only(root: Path, tmp_path: Path) -> None:
    """The log as a power cut may leave it: copied beside its journal, the end missing."""
    copy = tmp_path / "copy"
    with Journal(root / "journal.sqlite") as journal:
        for number in (3, 4, 5):
            journal.append(RoundOpened(round=number, n_parents=1, n_shards=1, n_training=1, hull_digest="h"))
        shutil.copytree(root, copy)
    (copy / "journal.sqlite-shm").unlink()
    log = copy / "journal.sqlite-wal"
    log.write_bytes(log.read_bytes()[:-1000])
    assert not any(finding.path == "journal.sqlite" for finding in wrong(check_campaign(copy)))
    state = read_state(copy)
    assert state.round(4).opened is not None
    assert state.round(5).opened is None
    assert len(state.round(1).calculations) == 3


def rewrite(root: Path, statement: str, *values: str) -> None:
    with sqlite3.connect(root / "journal.sqlite") as connection:
        connection.execute(statement, values)
    connection.close()


def test_an_event_that_cannot_be_read_is_withdrawn(root: Path) -> None:
    rewrite(root, "UPDATE events SET payload = ? WHERE key = ?", '{"type": "shard_scre', "shard_screened:2:0")
    finding = only(check_campaign(root))
    assert "shard_screened:2:0" in finding.what
    check_campaign(root, mending=True)
    assert planned(root) == [ScreenShard(2, 0), ScreenShard(2, 1)]


def test_an_event_under_a_wrong_key(root: Path) -> None:
    rewrite(root, "UPDATE events SET key = ? WHERE key = ?", "shard_screened:2:7", "shard_screened:2:0")
    assert "should be shard_screened:2:0" in only(check_campaign(root)).what


def test_a_round_that_was_closed_without_all_its_calculations(root: Path) -> None:
    rewrite(root, "DELETE FROM events WHERE key = ?", f"calculated:1:{FAILED}")
    assert "1 of its chosen crystals have no calculation" in wrong(check_campaign(root))[0].what
    check_campaign(root, mending=True)
    assert planned(root) == [Calculate(1, FAILED)]


def test_a_calculation_that_nobody_chose(root: Path) -> None:
    with Journal(root / "journal.sqlite") as journal:
        append_calculated(journal, root, "stray", "KCl", -2.0)
    finding = only(check_campaign(root))
    assert (finding.severity, "nobody chose (stray" in finding.what) == (Severity.WARNING, True)


def test_a_journal_of_a_later_version_is_left_alone(root: Path) -> None:
    rewrite(root, f"PRAGMA user_version={FORMAT_VERSION + 1}")
    before = files(root)
    checked = check_campaign(root, mending=True)
    assert f"format {FORMAT_VERSION + 1}" in only(checked).what
    assert checked.exit_code == 1
    assert files(root) == before


def test_a_calculation_is_withdrawn_and_its_event_kept_with_the_reason(root: Path) -> None:
    calculation(root, GOOD).unlink()
    check_campaign(root, mending=True)
    connection = sqlite3.connect(root / "journal.sqlite")
    rows = connection.execute("SELECT key, reason FROM withdrawn ORDER BY key").fetchall()
    connection.close()
    assert [key for key, _ in rows] == [f"calculated:1:{GOOD}", "round_closed:1"]
    assert all("is missing" in reason for _, reason in rows)
    with Journal(root / "journal.sqlite") as journal:
        append_calculated(journal, root, GOOD, "MgCl2", -3.5)
    assert planned(root) == [CloseRound(1)]


# --- settings, known set, a running campaign ------------------------------------------------------------------


def test_changed_settings_and_a_changed_or_missing_known_set(root: Path) -> None:
    written = read_settings(root)
    layout = Layout(root)
    layout.settings.write_text(to_toml(written.model_copy(update={"seed": 9})))
    finding = only(check_campaign(root))
    assert (finding.path, finding.severity) == ("settings.toml", Severity.ERROR)

    other = root.parent / "other.parquet"
    for source, words in ((other, "neither"), (other, "has changed")):
        known = written.known.model_copy(update={"source": str(source)})
        layout.settings.write_text(to_toml(written.model_copy(update={"known": known})))
        assert words in only(check_campaign(root)).what
        energies = {"formation_energy_per_atom": [-2.0, 0.0, 0.0]}
        rows = CrystalTable.from_crystals([grid_crystal(f) for f in ("NaCl", "Na", "Cl")], list("abc"), energies)
        write_table(other, rows)


def test_settings_that_cannot_be_read(root: Path) -> None:
    (root / "settings.toml").write_text("[rounds\n")
    assert only(check_campaign(root)).path == "settings.toml"


def write_until(path: Path, running: Path, stop: Path, written: Path) -> None:
    with Journal(path) as journal:
        number = 10
        while not stop.exists():
            journal.append(RoundOpened(round=number, n_parents=1, n_shards=1, n_training=1, hull_digest="h"))
            number += 1
            if number == 20:
                running.touch()
            time.sleep(0.001)
    written.write_text(str(number - 10))


def test_check_status_and_report_while_another_process_writes(root: Path, tmp_path: Path) -> None:
    """Each sees a state that was; nobody waits for the other; mending is refused."""
    running, stop, written = (tmp_path / name for name in ("running", "stop", "written"))
    # forked: to import everything anew takes longer than the whole test
    writer = get_context("fork").Process(target=write_until, args=(root / "journal.sqlite", running, stop, written))
    writer.start()
    try:
        while not running.exists():
            assert writer.is_alive()
            time.sleep(0.01)
        leave(root, "calculations/.x.1.tmp.parquet", "being written")
        seen = [len(read_state(root).rounds) for _ in range(20)]
        checked = check_campaign(root)
        shown = CliRunner().invoke(app, ["status", str(root)])
        reported = CliRunner().invoke(app, ["report", str(root), "--markdown"])
        with pytest.raises(CampaignError, match="another process is running"):
            check_campaign(root, mending=True)
    finally:
        stop.touch()
        writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert seen[0] < seen[-1], "readers see what was committed meanwhile"
    assert (shown.exit_code, reported.exit_code) == (0, 0), (shown.output, reported.output)
    assert all(f.path.startswith("rounds/") and f.path > "rounds/03" for f in wrong(checked)), "those of the writer"
    (note,) = [f for f in checked.findings if f.path == "journal.sqlite"]
    assert "is running" in note.what
    assert not any(".tmp" in f.path for f in checked.findings), "what is under way is not a leftover"
    assert len(read_state(root).rounds) == int(written.read_text()) + 2


# --- the command ----------------------------------------------------------------------------------------------


def test_the_command_tells_mends_and_says_by_its_exit_code(root: Path) -> None:
    calculation(root, GOOD).unlink()
    leave(root, "calculations/x.parquet.starts", ".")
    runner = CliRunner()
    told = runner.invoke(app, ["check", str(root), "--quiet"])
    assert told.exit_code == 1
    first, second, last = told.stdout.splitlines()
    assert first.startswith(f"error   calculations/{GOOD}.parquet: is missing (calculated:1:{GOOD}); ")
    assert "calculate ion-MgCl2 again" in first
    assert second.startswith("note    calculations/x.parquet.starts: ")
    assert last == "looked at 21 events, 24 files named by them: 1 wrong"

    rows = [json.loads(line) for line in runner.invoke(app, ["check", str(root), "--json"]).stdout.splitlines()]
    assert (rows[0]["severity"], rows[0]["path"]) == ("error", f"calculations/{GOOD}.parquet")
    assert (rows[0]["mendable"], rows[0]["mended"], rows[-1]["n_wrong"]) == (True, False, 1)

    mended = runner.invoke(app, ["check", str(root), "--mend", "--quiet"])
    assert mended.exit_code == 0
    assert mended.stdout.startswith("mended  ")
    assert mended.stdout.splitlines()[-1].endswith(": whole")
    assert (
        runner.invoke(app, ["check", str(root), "-q"]).stdout == "looked at 19 events, 23 files named by them: whole\n"
    )
