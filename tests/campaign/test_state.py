"""The state is a fold; planning needs nothing but it."""

import random

import pytest

from opengnome.campaign.actions import (
    Align,
    AssembleEnsemble,
    Calculate,
    CloseRound,
    OpenRound,
    ScreenShard,
    Select,
    Start,
    TrainMember,
)
from opengnome.campaign.events import (
    Aligned,
    Calculated,
    CampaignStarted,
    Choice,
    EnsembleAssembled,
    Event,
    MemberTrained,
    RoundClosed,
    RoundOpened,
    Selected,
    ShardScreened,
)
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState, apply, fold, plan

SETTINGS = CampaignSettings.model_validate({"rounds": {"n_rounds": 2}, "ensemble": {"n_members": 2}})


def calculated(number: int, name: str) -> Calculated:
    return Calculated(
        round=number,
        crystal_id=name,
        reduced_formula="NaCl",
        status="converged",
        reason="",
        energy_per_atom=-3.0,
        n_steps=3,
        seconds=1.0,
        path=f"calculations/{name}.parquet",
    )


def choice(name: str) -> Choice:
    return Choice(
        candidate_id=name,
        reduced_formula="NaCl",
        arms=("model",),
        predicted_formation_energy_per_atom=-2.0,
        predicted_std=0.1,
        predicted_decomposition_energy=-0.1,
        hull_energy_per_atom=-1.9,
        initial_hull_energy_per_atom=-1.9,
        probability_stable=0.8,
        volume_scale=1.0,
        method="ionic_substitution",
        parent_ids=("p",),
        replaced="K+->Na+",
    )


def round_events(number: int) -> list[Event]:
    return [
        RoundOpened(round=number, n_parents=3, n_shards=2, n_training=5, hull_digest="h"),
        MemberTrained(round=number, member=0, path="m0", metrics={}),
        MemberTrained(round=number, member=1, path="m1", metrics={}),
        EnsembleAssembled(round=number, path="e", digest="d", metrics={}),
        ShardScreened(round=number, shard=0, path="s0", counts={"kept": 2}),
        ShardScreened(round=number, shard=1, path="s1", counts={"kept": 1}),
        Selected(round=number, counts={}, choices=(choice(f"a{number}"), choice(f"b{number}")), path="p"),
        calculated(number, f"a{number}"),
        calculated(number, f"b{number}"),
        RoundClosed(round=number, metrics={}),
    ]


EVENTS: list[Event] = [
    CampaignStarted(settings_digest="s", known_digest="k", versions={}, reference_ids=("r1", "r2")),
    calculated(0, "r1"),
    calculated(0, "r2"),
    Aligned(scheme="none", references={}, shifts={}, metrics={}),
    *round_events(1),
    *round_events(2),
]

PLANS = [
    [Start()],
    [Calculate(0, "r1"), Calculate(0, "r2")],
    [Calculate(0, "r2")],
    [Align()],
    [OpenRound(1)],
    [TrainMember(1, 0), TrainMember(1, 1)],
    [TrainMember(1, 1)],
    [AssembleEnsemble(1)],
    [ScreenShard(1, 0), ScreenShard(1, 1)],
    [ScreenShard(1, 1)],
    [Select(1)],
    [Calculate(1, "a1"), Calculate(1, "b1")],
    [Calculate(1, "b1")],
    [CloseRound(1)],
    [OpenRound(2)],
]


@pytest.mark.parametrize("done", range(len(PLANS)))
def test_plan_after_each_event(done: int) -> None:
    assert plan(fold(EVENTS[:done]), SETTINGS) == PLANS[done]


def test_a_finished_campaign_plans_nothing() -> None:
    assert plan(fold(EVENTS), SETTINGS) == []


def test_more_rounds_continue_a_finished_campaign() -> None:
    longer = CampaignSettings.model_validate({"rounds": {"n_rounds": 3}, "ensemble": {"n_members": 2}})
    assert plan(fold(EVENTS), longer) == [OpenRound(3)]


def test_the_same_event_twice_changes_nothing() -> None:
    state = fold(EVENTS)
    for event in EVENTS:
        assert apply(state, event) == state


def test_the_order_of_arrival_does_not_matter() -> None:
    shuffled = EVENTS.copy()
    random.Random(3).shuffle(shuffled)
    assert fold(shuffled) == fold(EVENTS)


def test_a_late_second_answer_does_not_replace_the_first() -> None:
    state = fold(EVENTS)
    late = calculated(1, "a1").model_copy(update={"energy_per_atom": -9.0})
    assert apply(state, late).round(1).calculations["a1"].energy_per_atom == -3.0


def test_apply_leaves_its_argument_alone() -> None:
    before = CampaignState()
    apply(before, EVENTS[0])
    assert before == CampaignState()
