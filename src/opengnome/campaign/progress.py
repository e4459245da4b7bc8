"""Progress of a campaign: a line that rewrites itself on a terminal, plain lines elsewhere, JSON lines beside."""

import json
import sys
import time
from pathlib import Path
from typing import IO

_PLAIN_INTERVAL_SECONDS = 10.0


class Progress:
    """Tells what the campaign is doing; `quiet` keeps the JSON lines only."""

    def __init__(self, path: Path | None = None, *, stream: IO[str] | None = None, quiet: bool = False) -> None:
        self.path = path
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.live = not quiet and self.stream.isatty()
        self.started = time.monotonic()
        self._last_plain = 0.0
        self._width = 0
        self._told_of_disk = False

    def message(self, text: str) -> None:
        """A line that stays."""
        self._record(text)
        if not self.quiet:
            self._clear()
            print(f"[{self._elapsed()}] {text}", file=self.stream, flush=True)

    def step(self, stage: str, done: int, total: int, note: str = "") -> None:
        """How far a stage is; the last step always stays."""
        text = f"{stage}: {done}/{total}{'  ' + note if note else ''}"
        if done == total:
            self.message(text)
        elif self.live:
            self._rewrite(text)
        elif not self.quiet and time.monotonic() - self._last_plain > _PLAIN_INTERVAL_SECONDS:
            self._last_plain = time.monotonic()
            self.message(text)

    def record_stage(self, stage: str, n_units: int, *, busy_s: float, wall_s: float, workers: int | None) -> None:
        """In the JSON lines alone: how long workers were at the units of a stage that ended, and how long it took."""
        self._record(
            f"{stage}: {n_units} units ended",
            stage=stage,
            units=n_units,
            busy_s=round(busy_s, 3),
            wall_s=round(wall_s, 3),
            workers=workers,
        )

    def _elapsed(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        return f"{minutes:3d}:{seconds:02d}"

    def _rewrite(self, text: str) -> None:
        line = f"[{self._elapsed()}] {text}"[:150]
        self.stream.write("\r" + line.ljust(self._width))
        self.stream.flush()
        self._width = len(line)

    def _clear(self) -> None:
        if self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0

    def _record(self, text: str, **more: str | float | None) -> None:
        if self.path is None:
            return
        try:
            # the newline in front parts the record from one that a kill cut off; readers skip empty lines
            with self.path.open("a", encoding="utf-8") as log:
                log.write("\n" + json.dumps({"time": time.time(), "message": text, **more}) + "\n")
        except OSError as error:  # a full disk stops the work where results are written, with what can be done
            if not self._told_of_disk:
                self._told_of_disk = True
                print(f"no progress is recorded in {self.path}: {error.strerror}", file=self.stream, flush=True)
