"""A campaign killed in the middle of any stage ends as one that was never killed.

Each run is the real command line in its own process group; the group is killed with SIGKILL, so neither the
driver nor its workers can clean up.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from opengnome.campaign import read_state
from opengnome.campaign.journal import Journal
from opengnome.campaign.state import CampaignState
from opengnome.errors import CampaignError

SETTINGS = """
name = "small"
[known]
elements = ["Li", "Na", "K", "Mg", "Ca", "Sr", "O", "S", "F", "Cl"]
[parents]
max_atoms = 8
parents_per_shard = 1
[generation]
max_substitutions_per_parent = 6
max_partial_per_parent = 3
max_subsets_per_count = 2
[model]
width = 16
edge_width = 16
layers = 2
cutoff = 4.0
[training]
epochs = 12
[training_set]
max_atoms = 8
[ensemble]
n_members = 2
initial = "none"
[screening]
n_volume_scales = 20
[rounds]
n_rounds = 2
budget = 3
random_filtered = 1
random_unfiltered = 2
[compositions]
budget = 1
random = 1
n_scored = 200
n_starts = 2
min_completed = 2
same_minimum = 2
training.epochs = 1
proposals.max_elements = 2
proposals.max_atoms = 4
structures.max_atoms = 4
[oracle.relaxation]
fmax = 0.1
max_steps = 60
"""
DEADLINE_SECONDS = 900.0


def start(root: Path, settings: Path) -> subprocess.Popen[bytes]:
    """The command line in a process group of its own."""
    command = [sys.executable, "-m", "opengnome", "discover", str(root), "--settings", str(settings), "--quiet"]
    return subprocess.Popen([*command, "--workers", "2"], start_new_session=True)


def finish(process: subprocess.Popen[bytes]) -> None:
    try:
        assert process.wait(timeout=DEADLINE_SECONDS) == 0
    finally:
        if process.poll() is None:  # too slow: it must not go on beside the other tests
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def kill_when(root: Path, settings: Path, reached: Callable[[Path], bool]) -> None:
    """Run until `reached`, then kill the whole process group."""
    process = start(root, settings)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached(root):
        assert process.poll() is None, "the campaign ended before it could be killed"
        assert time.monotonic() < deadline, "the stage to be killed in was never reached"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def during_training(root: Path) -> bool:
    """A member is being trained, and none is finished."""
    members = root / "rounds" / "01" / "members"
    return any(members.glob("*.starts")) and not any(members.glob("[!.]*.safetensors"))


def during_generation(root: Path) -> bool:
    """One shard is screened, another under way; a shard is one parent, so that there are many."""
    shards = root / "rounds" / "01" / "shards"
    return any(shards.glob("[!.]*.parquet")) and any(shards.glob("*.starts"))


def during_relaxations(root: Path) -> bool:
    """One calculation is finished, another under way."""
    calculations = root / "calculations"
    return any(calculations.glob("[!.]*.parquet")) and any(calculations.glob("*.starts"))


def during_search(root: Path) -> bool:
    """Random crystals of a composition are being relaxed."""
    return any((root / "rounds" / "01" / "searches").glob("*.starts"))


def during_second_training(root: Path) -> bool:
    """The second round has begun: the state now holds what the first one found."""
    return any((root / "rounds" / "02" / "members").glob("*.starts"))


KILLS = (during_training, during_generation, during_relaxations, during_search, during_second_training)


def comparable(state: CampaignState) -> str:
    """Everything of a state but wall times, as text: the energy of a candidate that nobody judged is NaN."""
    events: Iterator[Any] = (
        event
        for current in state.rounds.values()
        for event in (
            current.opened,
            *current.members.values(),
            current.ensemble,
            *current.shards.values(),
            current.selection,
            current.compositions,
            *current.searches.values(),
            *current.calculations.values(),
            current.closed,
        )
    )
    found = {event.key: event.model_dump(exclude={"seconds"}) for event in events}
    for values in found.values():
        timed = [name for name in values.get("metrics", {}) if "second" in name]
        for name in timed:
            del values["metrics"][name]
    return json.dumps(found, indent=1, sort_keys=True)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "small.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture(scope="module")
def unkilled(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> Path:
    root = tmp_path_factory.mktemp("unkilled") / "campaign"
    finish(start(root, settings))
    return root


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_in_the_same_state(unkilled: Path, tmp_path: Path, settings: Path) -> None:
    root = tmp_path / "campaign"
    finished_before: dict[str, int] = {}
    for reached in KILLS:
        kill_when(root, settings, reached)
        for path, modified in finished_before.items():
            assert Path(path).stat().st_mtime_ns == modified, f"{path} was computed again"
        finished_before |= {str(p): p.stat().st_mtime_ns for p in (root / "calculations").glob("[!.]*.parquet")}
    finish(start(root, settings))
    for path, modified in finished_before.items():
        assert Path(path).stat().st_mtime_ns == modified, f"{path} was computed again"
    assert finished_before, "no calculation was finished before a kill, so nothing was tested"
    assert comparable(read_state(root)) == comparable(read_state(unkilled))


@pytest.mark.slow
def test_running_a_finished_campaign_again_changes_nothing(unkilled: Path, settings: Path) -> None:
    before = read_state(unkilled)
    finish(start(unkilled, settings))
    assert repr(read_state(unkilled)) == repr(before)


@pytest.mark.slow
def test_the_campaign_did_what_was_asked(unkilled: Path) -> None:
    state = read_state(unkilled)
    assert sorted(state.rounds) == [1, 2]
    for current in state.rounds.values():
        assert current.closed is not None
        assert current.selection is not None
        assert {choice.candidate_id for choice in current.choices} == set(current.calculations)
        assert current.compositions is not None
        assert {choice.candidate_id for choice in current.compositions.choices} == set(current.searches)
        assert all(search.n_starts == 2 for search in current.searches.values())
        assert sum("model" in choice.arms for choice in current.selection.choices) == 3
    first, second = ({choice.reduced_formula for choice in state.rounds[number].choices} for number in (1, 2))
    assert not first & second, "a composition that was tried is not new in the next round"


@pytest.mark.slow
def test_a_second_process_is_refused(unkilled: Path) -> None:
    with Journal(unkilled / "journal.sqlite"), pytest.raises(CampaignError, match="another process"):
        Journal(unkilled / "journal.sqlite")
