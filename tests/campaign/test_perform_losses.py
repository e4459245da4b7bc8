"""A crystal that takes the oracle's process down is recorded as failed, and the others go on."""

from concurrent.futures import Executor
from pathlib import Path

import pytest

from opengnome.campaign import CampaignSettings, Progress
from opengnome.campaign.actions import Calculate
from opengnome.campaign.alignment import no_alignment
from opengnome.campaign.context import Context
from opengnome.campaign.events import Calculated
from opengnome.campaign.execution import local_executor
from opengnome.campaign.perform import perform
from opengnome.campaign.state import CampaignState
from opengnome.crystals import CrystalTable
from opengnome.crystals.io import write_table
from opengnome.oracles import Status, make_oracle, read_calculation
from report.synthetic_campaign import grid_crystal

FORMULAS = {"good": "NaCl", "poison": "PbO", "again": "NaCl", "other": "K2O"}
"""`again` is the same crystal as `good`: one calculation answers for both."""
SETTINGS = CampaignSettings.model_validate(
    {"oracle": {"name": "ase", "calculator": "poison_calculator:Poison"}, "execution": {"attempts": 2}}
)


def one_process() -> Executor:
    return local_executor(1)


def no_workers() -> Executor:
    raise AssertionError("every calculation is there, a loss too: nothing is to be run")


def calculate(root: Path, make_executor: object) -> dict[str, Calculated]:
    context = Context(root, SETTINGS, make_executor=make_executor, progress=Progress(quiet=True))  # type: ignore[arg-type]
    state = CampaignState(alignment=no_alignment())
    events = list(perform(context, state, [Calculate(1, identifier) for identifier in FORMULAS]))
    assert len(events) == len(FORMULAS)
    return {event.crystal_id: event for event in events if isinstance(event, Calculated)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("poison")
    crystals = [grid_crystal(formula) for formula in FORMULAS.values()]
    write_table(
        Context(root, SETTINGS, make_executor=no_workers, progress=Progress(quiet=True)).layout.chosen(1),
        CrystalTable.from_crystals(crystals, list(FORMULAS)),
    )
    return root


@pytest.fixture(scope="module")
def answers(root: Path) -> dict[str, Calculated]:
    return calculate(root, one_process)


def test_the_poison_has_failed_and_the_rest_has_converged(answers: dict[str, Calculated]) -> None:
    assert {i: a.status for i, a in answers.items()} == {
        "good": Status.CONVERGED,
        "poison": Status.FAILED,
        "again": Status.CONVERGED,
        "other": Status.CONVERGED,
    }
    assert answers["poison"].energy_per_atom is None
    assert "process died 2 times" in answers["poison"].reason
    assert answers["other"].energy_per_atom == pytest.approx(-1.0)


def test_the_loss_is_a_record_like_any_other(root: Path, answers: dict[str, Calculated]) -> None:
    record = read_calculation(root / answers["poison"].path)
    assert record.status == Status.FAILED
    assert record.reason == answers["poison"].reason
    assert record.initial == grid_crystal("PbO")
    assert (record.crystal, record.energy, record.forces, record.stress, record.frames) == (None,) * 5
    assert (record.n_steps, record.fmax, record.seconds) == (0, None, 0.0)
    assert record.oracle == make_oracle(SETTINGS.oracle).identity


def test_the_same_crystal_is_calculated_once(answers: dict[str, Calculated]) -> None:
    assert answers["good"].path == answers["again"].path
    assert len({a.path for a in answers.values()}) == 3


def test_asked_again_nothing_is_run_and_the_answers_are_the_same(root: Path, answers: dict[str, Calculated]) -> None:
    assert calculate(root, no_workers) == answers
