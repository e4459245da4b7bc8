"""Starting and resuming a campaign: the function behind `opengnome discover`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from opengnome import settings as settings_io
from opengnome.campaign.actions import Action
from opengnome.campaign.context import Context
from opengnome.campaign.events import Event
from opengnome.campaign.executors import Crew, capacity
from opengnome.campaign.journal import EmptyJournalError, Journal
from opengnome.campaign.layout import Layout
from opengnome.campaign.loop import run
from opengnome.campaign.perform import perform
from opengnome.campaign.preparation import changed_code, changed_versions
from opengnome.campaign.progress import Progress
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState, fold, plan
from opengnome.campaign.stopping import StopRequest, stopping
from opengnome.crystals.replacement import make_folder, replace_file
from opengnome.datasets import EMBEDDED
from opengnome.errors import CampaignError
from opengnome.oracles import make_oracle
from opengnome.oracles.settings import DFT_ENGINES
from opengnome.settings import Settings


def discover(
    root: Path,
    settings: CampaignSettings | None = None,
    *,
    make_executor: Callable[[], Executor] | None = None,
    progress: Progress | None = None,
) -> CampaignState:
    """Run the campaign in `root` until it is finished; resume it when it has begun.

    `settings` may be left out to resume. Raises `CampaignError` when the directory holds a campaign with other
    settings or is being run by another process, `SettingsError` when the settings cannot work, `StoppedError` when
    a signal asked it to stop (see `stopping.STOP_SIGNALS`).
    """
    layout = Layout(root)
    _refuse_unusable(layout, settings)
    with Journal(layout.journal) as journal:  # first: it refuses a second process before anything is changed
        begun = _has_begun(layout, journal)
        settings = _settled(layout, settings, begun=begun)
        progress = progress or Progress(layout.progress)
        stop = StopRequest(grace_s=settings.execution.stop_grace_s, tell=progress.message)
        with stopping(stop), Crew(settings.execution, root.absolute() / "execution") as crew:
            context = Context(
                root,
                settings,
                make_executor=make_executor or crew,
                progress=progress,
                stop=stop,
                workers=None if make_executor else capacity(settings.execution),
            )
            _refuse_changes(journal, context)
            _write_settings(layout, settings, begun=begun)  # not before: what is refused must not become its own
            return run(journal, settings, partial(_perform, context))


def _perform(context: Context, state: CampaignState, actions: Sequence[Action]) -> Iterator[Event]:
    context.stop.refuse_more()
    return perform(context, state, actions)


def load_settings(
    root: Path,
    path: Path | None,
    *,
    overrides: Iterable[str] = (),
    workers: int | None = None,
    resume: bool = False,
) -> CampaignSettings:
    """Settings for `discover` from a file and overrides.

    Without a file they are those the campaign has, or, where none has begun, those of the embedded campaign.
    A campaign that has begun keeps its settings; only the number of workers may change.
    Raises `CampaignError` when asked to resume where no campaign is, `SettingsError` on wrong settings.
    """
    overrides = list(overrides)
    begun = Layout(root).settings.is_file() and _has_begun(Layout(root), _events(Layout(root)))
    if resume and not begun:
        raise CampaignError(f"{root} holds no campaign to resume; leave out --resume to start one")
    with resources.as_file(resources.files("opengnome.campaign") / "embedded.toml") as embedded:
        base = path or (Layout(root).settings if begun else embedded)
        settings = settings_io.load(CampaignSettings, base, overrides)
    settings = _with_absolute_paths(settings)
    if workers is not None:
        execution = settings.execution.model_copy(update={"workers": workers})
        settings = settings.model_copy(update={"execution": execution})
    return settings


def _with_absolute_paths(settings: CampaignSettings) -> CampaignSettings:
    """Paths as seen from anywhere, so that the campaign can be resumed from another directory."""
    changes: dict[str, Any] = {}
    if settings.known.source != EMBEDDED:
        source = str(Path(settings.known.source).resolve())
        changes["known"] = settings.known.model_copy(update={"source": source})
    oracle = settings.oracle
    engines = {
        name: section.model_copy(update=_resolved(section))
        for name in DFT_ENGINES
        if (section := getattr(oracle, name)) is not None
    }
    changes["oracle"] = oracle.model_copy(update=_resolved(oracle) | engines)
    return settings.model_copy(update=changes)


def _resolved(section: Settings) -> dict[str, Path]:
    """The paths among the settings of a section, absolute."""
    return {name: value.expanduser().resolve() for name, value in section if isinstance(value, Path)}


def read_settings(root: Path) -> CampaignSettings:
    """The resolved settings a campaign runs with."""
    layout = Layout(root)
    if not layout.settings.is_file():
        raise CampaignError(f"{root} holds no campaign: there is no {layout.settings.name} in it")
    return settings_io.load(CampaignSettings, layout.settings)


def read_state(root: Path) -> CampaignState:
    """State of a campaign, folded from its journal; works while the campaign runs."""
    with Journal(Layout(root).journal, read_only=True) as journal:
        return fold(journal)


def _has_begun(layout: Layout, events: Iterable[Event]) -> bool:
    """Whether anything was done: a campaign that was refused at its start may be given other settings.

    Files count, too, for the journal may be lost: the results of other settings must not be taken for its own.
    """
    results = (layout.calculation("").parent, layout.round(0).parent)
    return any(True for _ in events) or any(folder.is_dir() and any(folder.iterdir()) for folder in results)


def _events(layout: Layout) -> Iterator[Event]:
    if layout.journal.is_file():
        with suppress(EmptyJournalError), Journal(layout.journal, read_only=True) as journal:
            yield from journal


def _settled(layout: Layout, settings: CampaignSettings | None, *, begun: bool) -> CampaignSettings:
    """The campaign's settings: those written in its directory, which given ones must equal once it has begun."""
    if layout.settings.is_file() and (begun or settings is None):
        written = read_settings(layout.root)
        if settings is not None and settings.digest != written.digest:
            raise CampaignError(
                f"{layout.root} holds a campaign with other settings ({', '.join(_differences(written, settings))}); "
                "resume it without settings, or choose a new directory"
            )
        return settings or written
    if settings is None:
        raise CampaignError(f"{layout.root} holds no campaign to resume; give settings to start one")
    return settings


def _refuse_unusable(layout: Layout, settings: CampaignSettings | None) -> None:
    """Refuse a directory that cannot be written to, or that holds nothing to resume."""
    if settings is None and not layout.settings.is_file():
        raise CampaignError(f"{layout.root} holds no campaign to resume; give settings to start one")
    try:
        make_folder(layout.root)
        layout.progress.touch()
    except OSError as error:
        raise CampaignError(f"cannot write to {layout.root}: {error.strerror}; choose another directory") from error


def _write_settings(layout: Layout, settings: CampaignSettings, *, begun: bool) -> None:
    """The settings of a campaign that begins; of one that has, more rounds, or its known set in another place."""
    if begun and layout.settings.is_file():
        written = read_settings(layout.root)
        if (settings.rounds, settings.known) == (written.rounds, written.known):
            return
    replace_file(layout.settings, lambda path: path.write_text(settings_io.to_toml(settings), encoding="utf-8"))


def _differences(written: CampaignSettings, given: CampaignSettings) -> list[str]:
    """The settings that make the digests differ, e.g. "oracle.relaxation.fmax"."""
    changes = _changes(written.model_dump(), given.model_dump())
    return [".".join(path) for path, value in changes if _changes_digest(written, path, value)]


def _changes(old: dict[str, Any], new: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Where two trees of settings differ, and the new value there."""
    for key in old | new:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from (((key, *path), value) for path, value in _changes(before, after))
        elif before != after:
            yield (key,), after


def _changes_digest(settings: CampaignSettings, path: Sequence[str], value: Any) -> bool:
    """Whether the setting at `path` is one that the digest is made of."""
    changed = settings.model_dump()
    section = changed
    for name in path[:-1]:
        section = section[name]
    section[path[-1]] = value
    try:
        return CampaignSettings.model_validate(changed).digest != settings.digest
    except ValueError:  # it needs another one changed with it
        return True


def _refuse_changes(journal: Journal, context: Context) -> None:
    """Refuse to go on with other settings, level of theory or known set than the campaign began with."""
    state = fold(journal)
    started = state.started
    if started is None:
        return
    if started.settings_digest != context.settings.digest:
        raise CampaignError(
            f"{context.layout.settings} was changed since the campaign began; put it back or begin a new campaign"
        )
    changed = changed_versions(started.versions)
    if started.oracle_level and plan(state, context.settings):  # a finished campaign needs no oracle
        identity = make_oracle(context.settings.oracle).identity
        if identity.level != started.oracle_level:
            raise CampaignError(
                f"the oracle is of level {identity.level!r} and the campaign began with {started.oracle_level!r}: "
                "energies of two levels do not share a hull. Put back what the oracle is made of (for instance "
                "espresso.pseudo_dir), or begin a new campaign"
            )
        changed += changed_code(started, identity)
    if changed:
        context.progress.message(f"versions differ from those the campaign began with: {', '.join(changed)}")
    digest = context.knowledge.known.digest
    if started.known_digest != digest:
        raise CampaignError(
            f"the known set has changed since the campaign began (digest {digest}, was {started.known_digest}); "
            "put the old table back or begin a new campaign"
        )
