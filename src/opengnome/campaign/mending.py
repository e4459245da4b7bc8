"""Mending a campaign: what is in the way is set aside, what has to be done again is withdrawn.

Nothing is thrown away but temporaries and marks.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from opengnome.campaign.findings import Finding
from opengnome.campaign.journal import Journal, readable_start, write_journal
from opengnome.campaign.layout import Layout
from opengnome.crystals.replacement import make_folder

DAMAGED = "damaged"
"""Folder of a campaign for files that were set aside."""


def rebuild_journal(layout: Layout) -> int:
    """Begin a new journal with the readable start of a damaged one, which is set aside; how many events it has.

    The caller holds the lock. Killed between two steps, the journal is the damaged one or there is none.
    """
    rows = readable_start(layout.journal)
    files = [layout.journal.with_name(layout.journal.name + end) for end in ("", "-wal", "-shm")]
    files = [path for path in files if path.exists()]
    for path in files:
        shutil.copy2(path, _place_for(layout, path))
    for path in files:  # the journal before its log, which must not be taken for that of the new one
        path.unlink()
    write_journal(layout.journal, rows)
    return len(rows)


def mend(layout: Layout, findings: Sequence[Finding]) -> list[Finding]:
    """Do what mends the findings, and say which are mended. The caller holds the lock.

    Files go first: killed in between, an event without its file is found by the next check.
    """
    for finding in findings:
        if finding.mend is not None:
            for path in finding.mend.set_aside:
                if path.exists():
                    path.rename(_place_for(layout, path))
            for path in finding.mend.remove:
                _remove(path)
    withdrawing = [(f.mend.withdraw, f"{f.path}: {f.what}") for f in findings if f.mend is not None and f.mend.withdraw]
    if withdrawing:
        with Journal(layout.journal, locked=True) as journal:
            for keys, reason in withdrawing:
                journal.withdraw(keys, reason=reason)
    return [finding if finding.mend is None else replace(finding, mended=True) for finding in findings]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _place_for(layout: Layout, path: Path) -> Path:
    """A free name under `DAMAGED`; its folder is made."""
    place = layout.root / DAMAGED / path.relative_to(layout.root)
    make_folder(place.parent)
    number = 1
    while place.exists():
        place, number = place.with_name(f"{path.name}.{number}"), number + 1
    return place
