"""The journal: a table of events that is only ever appended to.

SQLite in write-ahead-log mode through SQLAlchemy, so that a database URL of another dialect works as
well. One writer: the driver of the campaign, held by a file lock; readers are free at any time. A
committed event survives `kill -9`; a power cut may lose the last ones (`synchronous=NORMAL`), whose
work is then found again by its result files.
"""

import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError

from opengnome.campaign.events import EVENT_ADAPTER, Event
from opengnome.errors import CampaignError

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


class Journal:
    """Events of one campaign, in the order they were written."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if read_only and not path.is_file():
            raise CampaignError(f"{path.parent} holds no campaign: there is no {path.name} in it")
        self.path = path
        self._lock = None if read_only else _lock(path.with_suffix(".lock"))
        self._engine = _engine(path, read_only=read_only)
        if not read_only:
            _METADATA.create_all(self._engine)

    def append(self, event: Event) -> bool:
        """Write an event durably; False when its key is there already, and nothing is written."""
        with self._engine.begin() as connection:
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
        query = sa.select(_EVENTS.c.payload, _EVENTS.c.written_at).order_by(_EVENTS.c.sequence)
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
        except DatabaseError as error:
            raise CampaignError(f"the journal {self.path} cannot be read: {error.orig}") from error
        for payload, written_at in rows:
            yield datetime.fromisoformat(written_at), EVENT_ADAPTER.validate_json(payload)

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
    return handle


def _engine(path: Path, *, read_only: bool) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}")

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
