"""What a check of a campaign finds, and how it is told."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path


class Severity(StrEnum):
    """How bad a finding is."""

    NOTE = "note"
    """As it may be: nothing is lost and nothing has to be done."""
    WARNING = "warning"
    """Not as it should be; the campaign can go on."""
    ERROR = "error"
    """The campaign cannot go on, or something computed is lost."""


@dataclass(frozen=True)
class Mend:
    """What mends a finding."""

    rebuild_journal: bool = False
    """Keep the readable start of the journal."""
    withdraw: tuple[str, ...] = ()
    """Keys of events that count no more: `discover` plans their work again."""
    set_aside: tuple[Path, ...] = ()
    """Files that are moved into the folder `damaged`."""
    remove: tuple[Path, ...] = ()
    """Files that are removed."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found."""

    severity: Severity
    path: str
    """Relative to the campaign directory."""
    what: str
    remedy: str = ""
    mend: Mend | None = None
    """How `--mend` mends it; None where it cannot."""
    mended: bool = False

    @property
    def is_wrong(self) -> bool:
        """Whether somebody has to do something."""
        return self.severity != Severity.NOTE and not self.mended


@dataclass(frozen=True)
class Checked:
    """A campaign that was looked at."""

    findings: Sequence[Finding] = ()
    counts: dict[str, int] = field(default_factory=dict)
    """How many events and files were looked at."""

    @property
    def exit_code(self) -> int:
        """0 when the campaign is whole (or mended), 1 when something is wrong."""
        return int(any(finding.is_wrong for finding in self.findings))


def lines(checked: Checked, *, as_json: bool = False) -> Iterator[str]:
    """One line per finding, the worst first, and a last one with what was looked at."""
    order = list(reversed(Severity))
    for finding in sorted(checked.findings, key=lambda f: (order.index(f.severity), f.path)):
        yield _json(finding) if as_json else _text(finding)
    n_wrong = sum(finding.is_wrong for finding in checked.findings)
    if as_json:
        yield json.dumps({"looked_at": checked.counts, "n_wrong": n_wrong})
    else:
        looked_at = ", ".join(f"{n} {name}" for name, n in checked.counts.items()) or "nothing"
        yield f"looked at {looked_at}: " + (f"{n_wrong} wrong" if n_wrong else "whole")


def _json(finding: Finding) -> str:
    told = {name: value for name, value in asdict(finding).items() if name != "mend"}
    return json.dumps(told | {"mendable": finding.mend is not None})


def _text(finding: Finding) -> str:
    state = "mended" if finding.mended else finding.severity.value
    return f"{state:8}{finding.path}: {finding.what}" + (f"; {finding.remedy}" if finding.remedy else "")
