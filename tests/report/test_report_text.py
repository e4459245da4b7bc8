import json
import re
from dataclasses import replace

import pytest
from synthetic_campaign import ROUNDS, begin, build_campaign, make_settings

from opengnome.campaign import CampaignResults, read_state
from opengnome.campaign.journal import Journal
from opengnome.campaign.layout import Layout
from opengnome.campaign.strained import strained_id
from opengnome.errors import CampaignError
from opengnome.models import Calibration
from opengnome.report import rounds_markdown, status_lines
from opengnome.report.evidence import calculated_coverage, comparisons, model_cards
from opengnome.report.rounds import rejection_rows, round_rows, summarise
from opengnome.report.sections import failures_section


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return build_campaign(tmp_path_factory.mktemp("text") / "toy")


def cells(rows, group, label):
    (row,) = [row for row in rows if (row.group, row.label) == (group, label)]
    return row.cells


def test_status_tells_the_stage_the_rounds_the_failures_and_the_best(campaign):
    text = status_lines(campaign)
    assert "now: round 3, relaxations, 1 of 2 done" in text
    assert "failed calculations: 1 exploded, 1 too dense, 1 unconverged" in text
    table = [line.split() for line in text.splitlines()]
    assert ["1", "401", "60", "9", "2", "4/6", "67", "%", "4", "96"] in table
    assert any(line[:1] == ["3"] and "1/2" in line for line in table)
    best = CampaignResults(campaign).discoveries[0]
    first = text.splitlines()[text.splitlines().index(f"discoveries: {len(CampaignResults(campaign).discoveries)}") + 3]
    assert first.split()[0] == best.reduced_formula
    assert first.endswith(best.id)


def test_status_shows_the_last_message_and_survives_a_half_written_line(campaign):
    progress = Layout(campaign).progress
    progress.write_text(json.dumps({"time": 0.0, "message": "round 3, relaxations: 1/2"}) + '\n{"time": 17')
    assert "ago: round 3, relaxations: 1/2" in status_lines(campaign)
    progress.unlink()


def test_status_works_while_the_campaign_is_running(campaign):
    with Journal(Layout(campaign).journal):  # the driver holds the lock
        assert "round 3" in status_lines(campaign)


def test_status_before_any_round(tmp_path):
    root = tmp_path / "begun"
    begin(root, make_settings(None, aligned=False))
    text = status_lines(root)
    assert "no round has begun" in text
    assert "discoveries: none yet" in text
    assert rounds_markdown(root) == "No round has begun yet.\n"


def test_status_of_no_campaign(tmp_path):
    with pytest.raises(CampaignError, match="no campaign"):
        status_lines(tmp_path)


def test_markdown_is_one_rectangular_table_with_all_columns(campaign):
    lines = rounds_markdown(campaign).splitlines()
    assert {line.count("|") for line in lines} == {5}
    assert lines[0] == "|  | round 1 | round 2 | round 3 |"
    labels = {line.split("|")[1].strip() for line in lines}
    assert labels >= {
        "proposed",
        "duplicate (generation)",
        "within 50 meV/atom of the hull",
        "lowest of its composition",
        "calculated",
        "failed",
        "hit rate against the initial hull",
        "hit rate against the current hull",
        "MAE of the prediction, meV/atom",
        "**Random from the filtered pool**",
        "**Random from all candidates**",
    }


def test_rejections_account_for_every_proposed_candidate(campaign):
    summaries = summarise(read_state(campaign))
    rejected = rejection_rows(summaries, window=0.05)
    kept = cells(round_rows(summaries, window=0.05), "Candidates", "lowest of its composition")
    for position, summary in enumerate(summaries):
        dropped = sum(int(row.cells[position].replace(",", "")) for row in rejected)
        assert dropped + int(kept[position]) == summary.counts["proposed"]


def test_failures_are_told_by_how_they_ended(campaign):
    rows = round_rows(summarise(read_state(campaign)), window=0.05)
    assert cells(rows, "Calculations", "failed") == ("2 (1 exploded, 1 unconverged)", "1 (1 too dense)", "0")
    assert cells(rows, "Calculations", "calculated") == ("9", "6", "1 of 2 so far")


def test_comparisons_undo_the_alignment(campaign):
    """The recorded energies are 0.1 eV/atom too high and the fitted shifts take that back."""
    compared = comparisons(CampaignResults(campaign))
    made_up = sorted(f.prediction_error for f in (*ROUNDS[0], *ROUNDS[1], ROUNDS[2][0]) if f.energy is not None)
    assert sorted(c.error for c in compared) == pytest.approx(made_up)


def test_coverage_counts_errors_inside_the_interval(campaign):
    results = CampaignResults(campaign)
    cards = model_cards(results)
    assert [card.coverage[0.9] for card in cards] == [0.88] * 3
    rates = calculated_coverage(comparisons(results), cards, arm="model")
    # nine of the model's choices converged; errors of 0.12 and 0.3 eV/atom are 2 and 5 standard deviations
    assert {level: (rate.hits, rate.total) for level, rate in rates.items()} == dict.fromkeys(
        (0.5, 0.8, 0.9, 0.95), (7, 9)
    )


def test_models_that_were_removed_leave_what_the_journal_knows(tmp_path):
    root = build_campaign(tmp_path / "toy", n_closed=1)
    (Layout(root).ensemble(1) / "ensemble.json").unlink()
    (first, second) = model_cards(CampaignResults(root))
    assert (first.mae, first.coverage, first.calibration) == (0.041, {}, None)
    assert second.coverage


def test_single_points_are_no_failed_calculations(tmp_path):
    """Forces of a strained crystal are above the limit: it is unconverged, and what was asked for."""
    root = build_campaign(tmp_path / "campaign")
    before = failures_section(CampaignResults(root))
    with Journal(root / "journal.sqlite") as journal:
        (first, *_) = CampaignResults(root).calculations
        changes = {"round": 0, "status": "unconverged", "reason": "fmax is 2", "energy_per_atom": -3.0}
        journal.append(first.model_copy(update=changes | {"crystal_id": strained_id("known", 0.85)}))
    after = failures_section(CampaignResults(root))
    assert strained_id("known", 0.85) not in after
    number = re.search(r"([\d,]+) of ([\d,]+) calculations", before)
    assert f"{number[1]} of {int(number[2]) + 1} calculations" in after


def test_intervals_of_compositions_are_those_of_their_own_networks(campaign):
    results = CampaignResults(campaign)
    cards = [replace(card, compositional_calibration=Calibration(0.0, 1.0)) for card in model_cards(results)]
    wide = Calibration(0.0, 1.0, (1e6,) * 19)
    compared = [replace(c, arms=("compositional",)) for c in comparisons(results)]
    narrow = calculated_coverage(compared, cards, arm="compositional")
    own = [replace(card, compositional_calibration=wide) for card in cards]
    assert {rate.value for rate in calculated_coverage(compared, own, arm="compositional").values()} == {1.0}
    assert {rate.value for rate in narrow.values()} != {1.0}
