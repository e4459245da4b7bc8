"""Is a campaign whole? The function behind `opengnome check`.

Everything that the journal says is compared with the files, and everything else that lies there is named. Without
`mend` nothing is changed, and a campaign may run meanwhile: events are read before the files that they vouch for, which
are on the disk before they are.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from opengnome.campaign.artefacts import (
    Artefact,
    Fault,
    Problem,
    artefacts_of,
    problem_of,
    readable_calculation,
    readable_checkpoint,
    readable_table,
    runs_of,
)
from opengnome.campaign.discover import read_settings
from opengnome.campaign.events import Calculated, CampaignStarted, Event, MemberTrained, Searched, ShardScreened
from opengnome.campaign.findings import Checked, Finding, Mend, Severity
from opengnome.campaign.journal import EmptyJournalError, Journal, LaterFormatError, held, is_held
from opengnome.campaign.layout import Layout
from opengnome.campaign.leftovers import Kind, Leftover, leftovers
from opengnome.campaign.mending import DAMAGED, mend, rebuild_journal
from opengnome.campaign.preparation import changed_versions
from opengnome.campaign.progress import Progress
from opengnome.campaign.remaking import Remaking, unfinished
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState, fold
from opengnome.datasets import load_known_set
from opengnome.errors import CampaignError, OpenGnomeError, SettingsError
from opengnome.oracles import Status

_AGAIN = "opengnome check --mend lets discover make it again"
_UNITS = (Calculated, MemberTrained, ShardScreened, Searched)
"""Events of units of work, which are not run again where their file is."""


def check_campaign(
    root: Path, *, mending: bool = False, again: Collection[str] = (), progress: Progress | None = None
) -> Checked:
    """Look at every event and every file of the campaign in `root`; with `mending`, mend what can be.

    Calculations that ended with a status in `again` count as lost, so that they are made once more. Raises
    `CampaignError` when there is no campaign, or when another process runs one that is to be mended, and
    `SettingsError` for a status that there is not.
    """
    unknown = sorted(set(again) - set(Status))
    if unknown:
        raise SettingsError(f"no calculation ends as {unknown[0]!r}; give one of {', '.join(Status)}")
    layout = Layout(root)
    if not layout.journal.exists() and not layout.settings.exists():
        raise CampaignError(f"{root} holds no campaign: there is no {layout.settings.name} in it")
    with held(layout.journal) if mending else nullcontext():
        is_running = not mending and is_held(layout.journal)
        return _Check(layout, mending, frozenset(again), is_running, progress or Progress(quiet=True)).run()


@dataclass
class _Check:
    """One look at a campaign."""

    layout: Layout
    mending: bool
    again: frozenset[str]
    is_running: bool
    progress: Progress

    def run(self) -> Checked:
        settings, found = self._settings()
        of_journal, events = self._journal()
        if self.mending and any(f.mend is not None and f.mend.rebuild_journal for f in of_journal):
            n_events = rebuild_journal(self.layout)
            found += [replace(f, mended=True, remedy=f"{n_events} events are kept") for f in of_journal]
            of_journal, events = self._journal()
        found += of_journal
        counts: dict[str, int] = {}
        if events is not None:
            state = fold(events)
            artefacts = [artefact for event in events for artefact in artefacts_of(event, self.layout)]
            found += self._beginning(state, settings)
            found += self._sequence(state)
            of_files, withdrawn = self._artefacts(state, artefacts)
            found += of_files
            found += self._leftovers(state, artefacts, withdrawn)
            counts = {"events": len(events), "files named by them": len({a.path for a in artefacts})}
        return Checked(mend(self.layout, found) if self.mending else found, counts)

    def _finding(
        self, severity: Severity, path: Path, what: str, remedy: str = "", mend: Mend | None = None
    ) -> Finding:
        return Finding(severity, self.layout.relative(path), what, remedy, mend)

    # --- what the campaign stands on ---------------------------------------------------------------------------

    def _settings(self) -> tuple[CampaignSettings | None, list[Finding]]:
        try:
            return read_settings(self.layout.root), []
        except OpenGnomeError as error:
            remedy = "put it back, or give the same settings to discover once more (--settings)"
            return None, [self._finding(Severity.ERROR, self.layout.settings, f"cannot be read: {error}", remedy)]

    def _beginning(self, state: CampaignState, settings: CampaignSettings | None) -> list[Finding]:
        """The settings and the known set that the campaign began with."""
        if state.started is None:
            remedy = "discover begins it, and finds what is computed"
            return [self._finding(Severity.NOTE, self.layout.journal, "the campaign has not begun", remedy)]
        if settings is None:
            return []
        found = []
        if settings.digest != state.started.settings_digest:
            what = "is not what the campaign began with (by the settings that this version of opengnome has)"
            remedy = "put it back, or begin a new campaign: discover refuses to go on"
            found.append(self._finding(Severity.ERROR, self.layout.settings, what, remedy))
        found += self._known_set(state.started, settings)
        changed = changed_versions(state.started.versions)
        if changed:
            what = f"versions differ from those the campaign began with: {', '.join(changed)}"
            found.append(self._finding(Severity.NOTE, self.layout.journal, what))
        return found

    def _known_set(self, started: CampaignStarted, settings: CampaignSettings) -> list[Finding]:
        source = settings.known.source
        try:
            digest = load_known_set(settings.known).digest
        except (OpenGnomeError, OSError) as error:
            remedy = "put it back, or say where it is: discover DIR --set known.source=PATH"
            return [self._finding(Severity.ERROR, self.layout.settings, f"the known set {source}: {error}", remedy)]
        if digest == started.known_digest:
            return []
        what = f"the known set {source} has changed since the campaign began ({digest}, was {started.known_digest})"
        return [self._finding(Severity.ERROR, self.layout.settings, what, "put the old table back")]

    # --- the journal -------------------------------------------------------------------------------------------

    def _journal(self) -> tuple[list[Finding], list[Event] | None]:
        """Its events, None when they cannot be read."""
        path = self.layout.journal
        if not path.exists():
            remedy = "discover writes it again: finished work is found by its files and not repeated"
            return [self._finding(Severity.ERROR, path, "is missing", remedy)], None
        try:
            with Journal(path, read_only=True) as journal:
                damage = journal.damage()
                rows = journal.rows()
        except LaterFormatError as error:
            return [self._finding(Severity.ERROR, path, str(error))], None
        except EmptyJournalError:
            return [self._finding(Severity.WARNING, path, "is empty", "discover writes it again")], None
        except CampaignError as error:
            return [self._damaged_journal(str(error).partition("; opengnome check")[0])], None
        if damage:
            return [self._damaged_journal(f"is damaged: {damage[0].splitlines()[-1]}")], None
        found, events = [], []
        for row in rows:
            try:
                event = row.event()
                if event.key != row.key:
                    raise CampaignError(f"event {row.sequence} of the journal has key {row.key}, should be {event.key}")
                events.append(event)
            except CampaignError as error:
                remedy = "--mend withdraws it, so that discover does its work again"
                found.append(self._finding(Severity.ERROR, path, str(error), remedy, Mend(withdraw=(row.key,))))
        return found, events

    def _damaged_journal(self, what: str) -> Finding:
        remedy = "--mend keeps its readable start, and discover finds later work by its files"
        return self._finding(Severity.ERROR, self.layout.journal, what, remedy, Mend(rebuild_journal=True))

    def _sequence(self, state: CampaignState) -> list[Finding]:
        """Events that do not belong together."""
        found = []
        for key, what in unfinished(state).items():
            remedy = "--mend withdraws its end, so that discover completes it"
            mend = Mend(withdraw=(key,))
            found.append(self._finding(Severity.ERROR, self.layout.journal, f"{key}: {what}", remedy, mend))
        for number, current in sorted(state.rounds.items()):
            strangers = sorted(set(current.calculations) - {choice.candidate_id for choice in current.choices})
            if strangers and current.selection is not None:
                what = f"round {number} has {len(strangers)} calculations that nobody chose ({strangers[0]}, ...)"
                found.append(self._finding(Severity.WARNING, self.layout.journal, what, "they count as entries"))
        return found

    # --- files that events vouch for ---------------------------------------------------------------------------

    def _artefacts(self, state: CampaignState, artefacts: Sequence[Artefact]) -> tuple[list[Finding], frozenset[str]]:
        """What is wrong with them, and the keys of all events that have to be withdrawn because of it."""
        problems: list[tuple[Artefact, Problem]] = []
        for done, artefact in enumerate(artefacts, start=1):
            problem = artefact.problem() or self._unwanted(artefact)
            if problem is not None:
                problems.append((artefact, problem))
            self.progress.step("files of events", done, len(artefacts))
        # what the system does not let us read may be whole: never computed again because of that
        lost = frozenset(a.event.key for a, problem in problems if problem.fault != Fault.UNREACHABLE)
        withdrawn = Remaking(state, lost).withdrawn()
        found = [self._lost(state, artefact, problem, withdrawn) for artefact, problem in problems]
        return found, frozenset(key for keys in withdrawn.values() for key in keys)

    def _unwanted(self, artefact: Artefact) -> Problem | None:
        event = artefact.event
        if not isinstance(event, Calculated) or event.status not in self.again:
            return None
        return Problem(Fault.UNWANTED, f"ended as {event.status} and is asked for again: {event.reason}")

    def _lost(
        self, state: CampaignState, artefact: Artefact, problem: Problem, withdrawn: dict[str, tuple[str, ...]]
    ) -> Finding:
        event, path = artefact.event, artefact.path
        what = f"{problem.text} ({event.key})"
        if problem.fault == Fault.UNREACHABLE:
            return self._finding(Severity.ERROR, path, what, "mend rights or disk; the file may be whole")
        keys = withdrawn.get(event.key)
        if keys is None:
            severity, remedy = self._unneeded(state, artefact, problem)
            return self._finding(severity, path, what, remedy)
        in_the_way = [path] if isinstance(event, _UNITS) else []
        searches = state.round(getattr(event, "round", 0)).searches.values()
        in_the_way += [self.layout.root / search.path for search in searches if search.key in keys]
        mend = Mend(withdraw=keys, set_aside=tuple(dict.fromkeys(in_the_way)))
        if problem.fault == Fault.UNWANTED:
            remedy = f"--mend moves it into {DAMAGED}/, and discover calculates it again"
            return self._finding(Severity.NOTE, path, what, remedy, mend)
        return self._finding(Severity.ERROR, path, what, _remedy_for(event), mend)

    def _unneeded(self, state: CampaignState, artefact: Artefact, problem: Problem) -> tuple[Severity, str]:
        """How bad it is for a file that the campaign reads no more, and what to do."""
        proposed = [number for number, current in state.rounds.items() if current.compositions is not None]
        if proposed and artefact.path == self.layout.compositional_ensemble(max(proposed)):
            return Severity.WARNING, "predict --formula takes it; remove its folder to have that of an earlier round"
        severity = Severity.WARNING if problem.fault == Fault.DIFFERENT else Severity.NOTE
        return severity, "needed no more: its step is done"

    # --- files that no event mentions --------------------------------------------------------------------------

    def _leftovers(
        self, state: CampaignState, artefacts: Sequence[Artefact], withdrawn: frozenset[str]
    ) -> list[Finding]:
        if self.is_running:
            what = "a process is running this campaign: what it is working on was not looked at"
            return [self._finding(Severity.NOTE, self.layout.journal, what)]
        searches = [
            search
            for current in state.rounds.values()
            for search in current.searches.values()
            if search.key not in withdrawn  # whose relaxations are read once more
        ]
        folder = self.layout.calculation("").parent
        listed = {s.path: {folder / name for name in runs_of(self.layout.root / s.path)} for s in searches}
        found = [f for path, runs in listed.items() if (f := self._runs(self.layout.root / path, runs)) is not None]
        finished = {path for runs in listed.values() for path in runs}
        left = list(leftovers(self.layout, frozenset(artefact.path for artefact in artefacts) | finished))
        results = [leftover for leftover in left if leftover.kind == Kind.RESULT]
        for done, leftover in enumerate(results, start=1):
            found += self._unknown_result(leftover)
            self.progress.step("files without an event", done, len(results))
        return found + self._summary(results) + [self._half_done(x) for x in left if x.kind != Kind.RESULT]

    def _runs(self, table: Path, runs: set[Path]) -> Finding | None:
        """The relaxations of a finished search: only its lowest one is needed again."""
        gone = sorted(path.name for path in runs if not path.exists())
        if not gone:
            return None
        what = f"{len(gone)} of its relaxations have no file ({gone[0]}, ...)"
        return self._finding(Severity.NOTE, table, what, "needed no more: the search is done")

    def _unknown_result(self, leftover: Leftover) -> list[Finding]:
        is_calculation = leftover.path.parent == self.layout.calculation("").parent
        is_network = leftover.path.suffix == ".safetensors"
        read = readable_calculation if is_calculation else readable_checkpoint if is_network else readable_table
        problem = problem_of(leftover.path, read)
        if problem is None:
            return []
        what = f"{problem.text} (no event mentions it)"
        if problem.fault == Fault.UNREACHABLE:
            return [self._finding(Severity.ERROR, leftover.path, what, "mend rights or disk; the file may be whole")]
        mend = Mend(set_aside=(leftover.path,))
        remedy = f"discover would stop at it; --mend moves it into {DAMAGED}/, and its work is done again"
        return [self._finding(Severity.ERROR, leftover.path, what, remedy, mend)]

    def _summary(self, results: Sequence[Leftover]) -> list[Finding]:
        """One line per folder for finished work that no event mentions: a run that was killed has left much of it."""
        per_folder = Counter(leftover.path.parent for leftover in results)
        return [
            self._finding(
                Severity.NOTE, path, f"{n} finished files that no event mentions", "kept: discover uses them when due"
            )
            for path, n in sorted(per_folder.items())
        ]

    def _half_done(self, leftover: Leftover) -> Finding:
        what = f"{leftover.kind.value} of a run that ended"
        if leftover.tells_of_hang and not leftover.result.exists():
            what = "says where a calculation hung; discover records that as its failure"
            return self._finding(Severity.NOTE, leftover.path, what, "remove it to have it tried once more")
        if leftover.is_resumed:
            what = "state of a training that has left no network yet"
            return self._finding(Severity.NOTE, leftover.path, what, "kept: discover goes on from it")
        if leftover.is_recent:
            remedy = "left alone: it is so young that a worker elsewhere may be at it"
            return self._finding(Severity.NOTE, leftover.path, what, remedy)
        return self._finding(Severity.NOTE, leftover.path, what, "--mend removes it", Mend(remove=(leftover.path,)))


def _remedy_for(event: Event) -> str:
    """What it takes to have the files of an event again."""
    match event:
        case Calculated():
            return f"computed results are lost: --mend lets discover calculate {event.crystal_id} again"
        case MemberTrained():
            return "--mend lets discover train it again"
        case Searched():
            return "--mend lets discover search again, from those relaxations that are there"
        case _:
            return _AGAIN
