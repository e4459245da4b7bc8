"""The journal: a table of events that is only ever appended to.

SQLite in write-ahead-log mode through SQLAlchemy. One writer: the driver of the campaign, held by a file lock; readers
are free at any time. A committed event survives `kill -9`. A power cut may cost the last ones
(`synchronous=NORMAL`), never one in the middle: the journal is then that of a moment earlier, from which `plan` orders
the same work and finds it done, because result files are on the disk before their events are written.

`PRAGMA user_version` is the version of the format. See `docs/campaign_store.md`.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import ValidationError
from sqlalchemy.exc import DatabaseError

from opengnome.campaign.events import EVENT_ADAPTER, Event
from opengnome.crystals.replacement import replace_file
from opengnome.errors import CampaignError

FORMAT_VERSION = 2
"""Of the file. 1: the table of events, and no version written. 2: beside it the table of withdrawn events."""

_METADATA = sa.MetaData()
_EVENTS = sa.Table(
    "events",
    _METADATA,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("written_at", sa.String, nullable=False),
)


_WITHDRAWN = sa.Table(
    "withdrawn",
    _METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.String) for name in ("key", "type", "payload", "written_at", "withdrawn_at", "reason")),
)
_MIGRATIONS: Mapping[int, Callable[[sa.Connection], None]] = {1: _WITHDRAWN.create}
"""What makes a file of a version one of the next; done by the first writer, all in one transaction."""


class LaterFormatError(CampaignError):
    """The journal was written by a later version of this package."""


@dataclass(frozen=True)
class Row:
    """An event as it lies in the journal, parsed or not."""

    sequence: int
    key: str
    type: str
    payload: str
    written_at: str

    @property
    def is_whole(self) -> bool:
        """Whether it has all its texts: SQLite gives nothing, or zeros, for what lay in a part that was cut off."""
        texts = (self.key, self.type, self.payload, self.written_at)
        return all(isinstance(text, str) and "\0" not in text for text in texts)

    def event(self) -> Event:
        """The event; raises `CampaignError` when this version cannot read it."""
        try:
            return EVENT_ADAPTER.validate_json(self.payload)
        except ValidationError as error:
            first = error.errors()[0]
            raise CampaignError(
                f"event {self.sequence} of the journal ({self.key}) cannot be read: {first['msg']}"
            ) from error


class EmptyJournalError(CampaignError):
    """A journal without even its tables, as a kill at the very start, or a cut, leaves it."""


class Journal:
    """Events of one campaign, in the order they were written."""

    def __init__(self, path: Path, *, read_only: bool = False, locked: bool = False) -> None:
        """Open the journal; `locked` when the caller has it in `held`.

        Raises `CampaignError` when another process writes it, when it is damaged, or of a later version.
        """
        if read_only and not path.is_file():
            raise CampaignError(f"{path.parent} holds no campaign: there is no {path.name} in it")
        self.path = path
        self._lock = None if read_only or locked else _lock(lock_file(path))
        self._engine = _engine(path, read_only=read_only)
        try:
            self._prepare(read_only=read_only)
        except BaseException:
            self.close()
            raise

    def _prepare(self, *, read_only: bool) -> None:
        with self._reading(), self._engine.begin() as connection:
            self.version = _version(connection)
            if self.version > FORMAT_VERSION:
                raise LaterFormatError(
                    f"the journal {self.path} has format {self.version}, this version of opengnome reads up to "
                    f"{FORMAT_VERSION}; install the version that wrote it, or a later one"
                )
            self._refuse_part_of_a_page(int(connection.exec_driver_sql("PRAGMA page_size").scalar_one()))
            if read_only and not self.version:
                raise EmptyJournalError(f"the journal {self.path} is empty: the campaign has not begun")
            if not read_only:
                _bring_up_to_date(connection, self.version)
                self.version = FORMAT_VERSION

    def _refuse_part_of_a_page(self, page_size: int) -> None:
        """SQLite takes what is missing of the last page for zeros, and finds nothing wrong."""
        log = self.path.with_name(self.path.name + "-wal")
        length = self.path.stat().st_size
        if length % page_size and not (log.exists() and log.stat().st_size):  # else the page may be in the log
            raise self._damaged(f"its {length} bytes are not whole pages of {page_size}")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (DatabaseError, sqlite3.DatabaseError) as error:
            raise CampaignError(
                f"the journal {self.path} cannot be read: {getattr(error, 'orig', error)}; "
                f"opengnome check {self.path.parent} says what can be done"
            ) from error

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except (DatabaseError, sqlite3.DatabaseError) as error:
            raise CampaignError(
                f"the journal {self.path} cannot be written: {getattr(error, 'orig', error)}; make room there, or make "
                "it writable: what is finished is kept, and the same command goes on"
            ) from error

    def append(self, event: Event) -> bool:
        """Write an event durably; False when its key is there already, and nothing is written.

        Raises `CampaignError` when the disk does not take it.
        """
        with self._writing() as connection:
            known = connection.execute(sa.select(_EVENTS.c.sequence).where(_EVENTS.c.key == event.key)).first()
            if known is not None:
                return False
            connection.execute(
                sa.insert(_EVENTS).values(
                    key=event.key,
                    type=event.type,
                    payload=event.model_dump_json(),
                    written_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                )
            )
        return True

    def __iter__(self) -> Iterator[Event]:
        for _, event in self.dated():
            yield event

    def dated(self) -> Iterator[tuple[datetime, Event]]:
        """Events with the time they were written (UTC)."""
        for row in self.rows():
            yield datetime.fromisoformat(row.written_at), row.event()

    def rows(self) -> list[Row]:
        """Events as they are stored, in order."""
        query = sa.select(*_EVENTS.c).order_by(_EVENTS.c.sequence)
        with self._reading(), self._engine.connect() as connection:
            rows = [Row(*row) for row in connection.execute(query)]
        lost = next((row.sequence for row in rows if not row.is_whole), None)
        if lost is not None:
            raise self._damaged(f"event {lost} is incomplete")
        return rows

    def _damaged(self, what: str) -> CampaignError:
        return CampaignError(
            f"the journal {self.path} is damaged: {what}; opengnome check {self.path.parent} says what can be done"
        )

    def withdraw(self, keys: Iterable[str], *, reason: str) -> int:
        """Make events count no more, so that what they tell of is planned again; how many there were.

        They are kept, with the reason, in the table `withdrawn`.
        """
        columns = ("key", "type", "payload", "written_at")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        n_withdrawn = 0
        with self._writing() as connection:
            for key in keys:
                chosen = _EVENTS.c.key == key
                row = connection.execute(sa.select(*(_EVENTS.c[name] for name in columns)).where(chosen)).first()
                if row is not None:
                    values = dict(zip(columns, row, strict=True))
                    connection.execute(sa.insert(_WITHDRAWN).values(**values, withdrawn_at=now, reason=reason))
                    connection.execute(sa.delete(_EVENTS).where(chosen))
                    n_withdrawn += 1
        return n_withdrawn

    def damage(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when it is whole."""
        with self._reading(), self._engine.connect() as connection:
            lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [] if lines == ["ok"] else lines

    def close(self) -> None:
        """Close the database and let another process write."""
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_file(path: Path) -> Path:
    """The file whose lock the writer of a journal holds."""
    return path.with_suffix(".lock")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside, no other process writes the journal `path`; raises `CampaignError` when one does."""
    with _lock(lock_file(path)):
        yield


def is_held(path: Path) -> bool:
    """Whether a living process writes the journal."""
    try:
        with lock_file(path).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def readable_start(path: Path) -> list[Row]:
    """The events of a damaged journal up to the first that cannot be read or that this version does not know."""
    rows: list[Row] = []
    with suppress(sqlite3.DatabaseError, CampaignError), closing(sqlite3.connect(_uri(path), uri=True)) as connection:
        connection.execute("PRAGMA writable_schema=ON")  # or SQLite refuses a file that is shorter than its head says
        for values in connection.execute("SELECT sequence, key, type, payload, written_at FROM events ORDER BY 1"):
            row = Row(*values)
            if not row.is_whole or row.event().key != row.key:
                break
            rows.append(row)
    return rows


def write_journal(path: Path, rows: Iterable[Row]) -> None:
    """A new journal of these events, in place of what is there; the caller holds the lock."""

    def write(temporary: Path) -> None:
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(temporary)))
        with engine.begin() as connection:
            _bring_up_to_date(connection, 0)
            for row in rows:
                connection.execute(sa.insert(_EVENTS).values(**vars(row)))
        engine.dispose()

    replace_file(path, write)


def _lock(path: Path) -> IO[bytes]:
    """Hold an exclusive lock for as long as the file stays open; the kernel frees it when we die."""
    handle = path.open("ab")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise CampaignError(
            f"another process is running the campaign in {path.parent}; wait for it or stop it first"
        ) from None
    except OSError as error:
        handle.close()
        raise CampaignError(
            f"{path} cannot be locked ({error.strerror}), and without a lock two processes could run one campaign; put "
            "it on a file system with locks"
        ) from error
    return handle


def _version(connection: sa.Connection) -> int:
    """Version of the file; 0 for an empty one."""
    version = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    return version or int(sa.inspect(connection).has_table(_EVENTS.name))


def _bring_up_to_date(connection: sa.Connection, version: int) -> None:
    if version == FORMAT_VERSION:
        return
    if version == 0:
        _METADATA.create_all(connection)
    else:
        for step in range(version, FORMAT_VERSION):
            _MIGRATIONS[step](connection)
    connection.exec_driver_sql(f"PRAGMA user_version={FORMAT_VERSION}")


def _uri(path: Path) -> str:
    """The file as a reader opens it: not made when absent, and where no log can be made beside it, as it lies there."""
    fixed = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    return f"file:{quote(str(path.absolute()))}?mode={'ro&immutable=1' if fixed else 'rw'}"


def _engine(path: Path, *, read_only: bool) -> sa.Engine:
    if read_only:
        # pools choose by the name of the file, which a creator hides
        engine = sa.create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(_uri(path), uri=True, check_same_thread=False),
            poolclass=sa.QueuePool,
        )
    else:
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun by hand, below
        connection.execute("PRAGMA busy_timeout=10000")
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # a read that later wants to write would fail at once with "database is locked"
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine
