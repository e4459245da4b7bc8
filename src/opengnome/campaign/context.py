"""What every stage of a campaign works with."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cached_property
from pathlib import Path

from opengnome.campaign.execution import Ended, Rules, Unit, run_units
from opengnome.campaign.executors import rules_of
from opengnome.campaign.knowledge import Knowledge
from opengnome.campaign.layout import Layout
from opengnome.campaign.progress import Progress
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.stopping import StopRequest
from opengnome.crystals.elements import SYMBOLS
from opengnome.datasets import load_known_set
from opengnome.generation import GenerationSettings


class Context:
    """Settings, files, known set and workers of one campaign."""

    def __init__(
        self,
        root: Path,
        settings: CampaignSettings,
        *,
        make_executor: Callable[[], Executor],
        progress: Progress,
        stop: StopRequest | None = None,
        workers: int | None = None,
    ) -> None:
        """`workers` is how many units the executor runs at once, where that is known."""
        self.layout = Layout(root.absolute())  # workers may stand in another directory
        self.settings = settings
        self.make_executor = make_executor
        self.progress = progress
        self.stop = stop or StopRequest()
        self.workers = workers

    @cached_property
    def knowledge(self) -> Knowledge:
        """Loaded at the first action that needs it."""
        return Knowledge(self.layout.root, load_known_set(self.settings.known), self.settings)

    @cached_property
    def generation(self) -> GenerationSettings:
        """Generation limited to the elements of the known set: no other has a reference on its hull."""
        generation = self.settings.generation
        known = [SYMBOLS[z] for z in self.knowledge.known.elements]
        allowed = known if generation.allowed_elements is None else generation.allowed_elements
        return generation.model_copy(update={"allowed_elements": tuple(s for s in allowed if s in known)})

    def run(self, stage: str, units: Sequence[Unit], *, note: Callable[[], str] = lambda: "") -> Iterator[Ended]:
        """Run units on the workers, with progress; `note` is shown behind the count."""
        yield from run_with_progress(
            units,
            self.make_executor,
            progress=self.progress,
            stage=stage,
            rules=self._rules,
            stop=self.stop,
            note=note,
            workers=self.workers,
        )

    @cached_property
    def _rules(self) -> Rules:
        return rules_of(self.settings.execution)


def run_with_progress(
    units: Sequence[Unit],
    make_executor: Callable[[], Executor],
    *,
    progress: Progress,
    stage: str,
    rules: Rules | None = None,
    stop: StopRequest | None = None,
    note: Callable[[], str] = lambda: "",
    workers: int | None = None,
) -> Iterator[Ended]:
    """`run_units` with a count of those that ended, and the last line of a running unit's log or `note`.

    At the end, also an early one, it is recorded how long `workers` (where their number is known) were busy.
    """
    done, busy_s, began = 0, 0.0, time.monotonic()

    def tick(running: list[Unit]) -> None:
        lines = [last_line(unit.log) for unit in running if unit.log is not None]
        progress.step(stage, done, len(units), next((line for line in lines if line), note()))

    try:
        for ended in run_units(units, make_executor, rules=rules, stop=stop, on_wait=tick):
            done += 1
            busy_s += ended.seconds
            yield ended
            progress.step(stage, done, len(units), note())
    finally:
        progress.record_stage(stage, done, busy_s=busy_s, wall_s=time.monotonic() - began, workers=workers)


def last_line(path: Path) -> str:
    """Last line of a log, empty when there is none."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""
