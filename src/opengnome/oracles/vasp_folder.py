"""The folder of a VASP calculation: who works in it, how each step ended, and what is left to go on with."""

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.oracles.oracle import Frames, Status
from opengnome.oracles.vasp_inputs import PoscarOrder, Step
from opengnome.oracles.vasp_outputs import read_contcar, read_output
from opengnome.oracles.vasp_settings import VaspSettings

ENDED_FILE = "ended.json"
"""Written into a step's folder when the step has ended, however it did; missing when the program was killed."""

_OUTPUTS = ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR", "XDATCAR", "vasp.out", "std_err.txt", "custodian.json")
_GOES_ON = (Status.UNCONVERGED, Status.TIMED_OUT)
"""A step that ended so is continued when the crystal is asked for again; after another end it starts anew."""


@dataclass(frozen=True)
class Ended:
    """What `note_end` wrote; a step that never came to that has no status."""

    status: Status | None = None
    seconds: float = 0.0
    corrections: tuple[str, ...] = ()


def clean(folder: Path, settings: VaspSettings, status: Status) -> None:
    """Remove the folder of a finished calculation unless the settings keep it."""
    if settings.keep == "none" or (settings.keep == "failed" and status is Status.CONVERGED):
        shutil.rmtree(folder, ignore_errors=True)


def prepare_folder(folder: Path, step: Step, geometry: Crystal, order: PoscarOrder, status: Status | None) -> Crystal:
    """Make `folder` ready for a run; the geometry to start from.

    Outputs of a run that was killed or may go on are moved to ``interrupted.N`` inside, the folder of a failed
    one to ``<step>.failed.N`` beside.
    """
    if not (folder / "POSCAR").exists():
        folder.mkdir(parents=True, exist_ok=True)
        return geometry
    from opengnome.oracles.vasp_run import end_orphan

    end_orphan(folder)
    if status is not None and status not in _GOES_ON:
        folder.rename(_next_name(folder.parent, f"{folder.name}.failed"))
        folder.mkdir()
        return geometry
    if step.kind == "relax":
        frames = read_output(folder, order).frames
        last = geometry if frames is None else frames.crystal(-1, geometry.atomic_numbers)
        geometry = read_contcar(folder, order, geometry) or last
    (folder / ENDED_FILE).unlink(missing_ok=True)
    kept = [folder / name for name in _OUTPUTS if (folder / name).exists()]
    if kept:
        aside = _next_name(folder, "interrupted")
        aside.mkdir()
        for path in kept:
            path.rename(aside / path.name)
    return geometry


def _next_name(folder: Path, stem: str) -> Path:
    number = 1
    while (folder / f"{stem}.{number}").exists():
        number += 1
    return folder / f"{stem}.{number}"


def interrupted_frames(folder: Path, step: Step, order: PoscarOrder) -> tuple[Frames | None, ...]:
    """The ionic steps of the runs that were stopped, in order; a static calculation has none worth keeping."""
    if step.kind == "static":
        return ()
    folders = sorted(folder.glob("interrupted.*"), key=lambda path: int(path.suffix[1:]))
    return tuple(read_output(path, order).frames for path in folders)


def how_it_ended(folder: Path) -> Ended:
    """How a step ended in this or an earlier program."""
    with suppress(OSError, ValueError, KeyError):
        note = json.loads((folder / ENDED_FILE).read_text())
        return Ended(Status(note["status"]), float(note["seconds"]), tuple(note["corrections"]))
    return Ended()


def note_end(
    folder: Path,
    status: Status,
    reason: str,
    *,
    seconds: float,
    corrections: tuple[str, ...],
    magnetization: float | None,
) -> None:
    """Write down how a step ended; what is read again is `Ended`, the rest is for people."""
    note = {
        "status": status.value,
        "reason": reason,
        "seconds": round(seconds, 3),
        "corrections": corrections,
        "magnetization": magnetization,
    }
    replace_file(folder / ENDED_FILE, lambda path: path.write_text(json.dumps(note, indent=1)))


def last_line(folder: Path) -> str:
    """The last line of VASP's error stream, else of its output."""
    for name in ("std_err.txt", "vasp.out"):
        with suppress(OSError):
            lines = [line for line in (folder / name).read_text(errors="replace").splitlines() if line.strip(" |-*")]
            if lines:
                return lines[-1].strip(" |")[:200]
    return ""
