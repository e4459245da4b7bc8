"""The folder of a VASP calculation: who works in it, how each step ended, and what is left to go on with."""

import json
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.oracles.oracle import Frames, Status
from opengnome.oracles.tether import end_orphan
from opengnome.oracles.vasp_inputs import PoscarOrder, Step
from opengnome.oracles.vasp_outputs import VaspOutput, read_contcar, read_output
from opengnome.oracles.vasp_settings import VaspSettings

ENDED_FILE = "ended.json"
"""Written into a step's folder when the step has ended, however it did; missing when the program was killed."""

BEGUN_FILE = "begun.json"
"""Written when a run begins, with the wall time of those before it: a killed run leaves no other note of its time."""

_OUTPUTS = ("vasprun.xml", "OUTCAR", "OSZICAR", "CONTCAR", "XDATCAR", "vasp.out", "std_err.txt", "custodian.json")
_GOES_ON = (Status.UNCONVERGED, Status.TIMED_OUT)
"""A step that ended so is continued when the crystal is asked for again; after another end it starts anew."""

_ARCHIVES = "error.*.tar*"
"""Where custodian puts the files of a run before it corrects something and starts VASP again; numbered from 1, and
unpacked from .tar.gz to .tar when another run begins in the folder or above."""


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
    end_orphan(folder)
    if status is not None and status not in _GOES_ON:
        folder.rename(_next_name(folder.parent, f"{folder.name}.failed"))
        folder.mkdir()
        return geometry
    if step.kind == "relax":
        geometry = _where_it_was(folder, order, geometry) or geometry
    (folder / ENDED_FILE).unlink(missing_ok=True)
    kept = [folder / name for name in _OUTPUTS if (folder / name).exists()] + list(folder.glob(_ARCHIVES))
    if kept:
        aside = _next_name(folder, "interrupted")
        aside.mkdir()
        for path in kept:
            path.rename(aside / path.name)
    return geometry


def _where_it_was(folder: Path, order: PoscarOrder, crystal: Crystal) -> Crystal | None:
    """The geometry that VASP would have evaluated next, else the last one it evaluated; None when there is none.

    A run that was stopped in its first ionic step has neither, but the one before it may.
    """
    for run in (folder, *reversed(_interrupted(folder))):
        contcar = read_contcar(run, order, crystal)
        if contcar is not None:
            return contcar
        frames = read_output(run, order).frames
        if frames is not None:
            return frames.crystal(-1, crystal.atomic_numbers)
    return None


def _next_name(folder: Path, stem: str) -> Path:
    number = 1
    while (folder / f"{stem}.{number}").exists():
        number += 1
    return folder / f"{stem}.{number}"


def earlier_frames(folder: Path, step: Step, order: PoscarOrder, last: VaspOutput | None) -> tuple[Frames | None, ...]:
    """The ionic steps of all runs of a step before the `last` one, in order.

    These are the runs that were interrupted and those that custodian corrected. One that computed something else
    than `last` (with another smearing, see `NUMERICS`) does not count; of a corrected one only ionic steps with
    converged electrons and an energy below zero do: the rest is what the correction was for. A static calculation
    has none worth keeping.
    """
    if step.kind == "static":
        return ()
    outputs: list[VaspOutput] = []
    for run in _interrupted(folder):
        outputs += [*_corrected_runs(run, order), read_output(run, order)]
    outputs += _corrected_runs(folder, order)
    wanted = None if last is None or last.frames is None else last.numerics
    return tuple(output.frames for output in outputs if wanted in (None, output.numerics))


def earlier_corrections(folder: Path) -> tuple[str, ...]:
    """What custodian changed in the runs of a step that were interrupted."""
    return tuple(_describe(correction) for correction in _noted_corrections(folder))


def earlier_actions(folder: Path) -> list[dict[str, Any]]:
    """The changes of INCAR and KPOINTS among them, as custodian writes them, in order."""
    actions = [action for correction in _noted_corrections(folder) for action in correction["actions"]]
    return [action for action in actions if action.get("dict") in ("INCAR", "KPOINTS")]


def _noted_corrections(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for run in _interrupted(folder):
        with suppress(OSError, ValueError, KeyError, TypeError):  # the file may have been cut
            log = json.loads((run / "custodian.json").read_text())
            found += [correction for part in log for correction in part["corrections"] if correction["actions"]]
    return found


def described(log: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Custodian's log as it is or as custodian.json has it: a line per correction."""
    return tuple(_describe(correction) for run in log for correction in run["corrections"] if correction["actions"])


def _describe(correction: Mapping[str, Any]) -> str:
    """One correction, e.g. "brmix: INCAR IMIX = 1 (VaspErrorHandler)"."""
    changes = []
    for action in correction["actions"]:
        where = str(action.get("dict") or action.get("file") or "")
        for verb, values in action.get("action", {}).items():
            if verb == "_set":
                changes += [f"{where} {tag} = {value}" for tag, value in values.items()]
            elif verb == "_file_copy":
                changes.append(f"{where} copied to {values['dest']}")
            else:
                changes.append(f"{where} {verb} {values}")
    handler = correction["handler"]
    name = handler["@class"] if isinstance(handler, Mapping) else type(handler).__name__
    return f"{', '.join(map(str, correction['errors']))}: {', '.join(changes)} ({name})"


def _interrupted(folder: Path) -> list[Path]:
    return sorted(folder.glob("interrupted.*"), key=_number)


def _number(path: Path) -> int:
    """Of "interrupted.2" or "error.2.tar.gz"."""
    return int(path.name.split(".")[1])


def _corrected_runs(run: Path, order: PoscarOrder) -> list[VaspOutput]:
    """What custodian's archives of a folder hold, in order.

    A run is archived once for each correction that follows it, and the one that is given up is archived too though
    its files stay: each counts once.
    """
    following = b""
    with suppress(OSError):
        following = (run / "vasprun.xml").read_bytes()
    outputs: list[VaspOutput] = []
    for archive in sorted(run.glob(_ARCHIVES), key=_number, reverse=True):
        content = _archived_vasprun(archive)
        if content and content != following:
            outputs.insert(0, _sound_output(content, run, order))
            following = content
    return outputs


def _archived_vasprun(archive: Path) -> bytes:
    """The vasprun.xml of an archive; empty when there is none, or the archive is damaged."""
    with suppress(tarfile.TarError, EOFError, OSError, zlib.error), tarfile.open(archive) as files:
        for name in files.getnames():
            member = files.extractfile(name) if Path(name).name == "vasprun.xml" else None
            if member is not None:
                return member.read()
    return b""


def _sound_output(vasprun: bytes, run: Path, order: PoscarOrder) -> VaspOutput:
    """A run that custodian corrected, with the frames that count."""
    with tempfile.TemporaryDirectory(dir=run) as unpacked:
        (Path(unpacked) / "vasprun.xml").write_bytes(vasprun)
        output = read_output(Path(unpacked), order, only_converged=True)
    frames = output.frames
    if frames is None:
        return output
    sound = frames.energies < 0
    arrays = (frames.positions, frames.lattices, frames.energies, frames.forces, frames.stresses)
    return replace(output, frames=Frames(*(array[sound] for array in arrays)) if sound.any() else None)


def how_it_ended(folder: Path) -> Ended:
    """How a step ended in this or an earlier program."""
    with suppress(OSError, ValueError, KeyError):
        note = json.loads((folder / ENDED_FILE).read_text())
        return Ended(Status(note["status"]), float(note["seconds"]), tuple(note["corrections"]))
    return Ended()


def note_begin(folder: Path, *, earlier_s: float) -> None:
    """Write down that a run begins now, `earlier_s` seconds of wall time into its step."""
    replace_file(folder / BEGUN_FILE, lambda path: path.write_text(json.dumps({"earlier_s": round(earlier_s, 3)})))


def seconds_spent(folder: Path, before: Ended) -> float:
    """Wall time of the runs that a step goes on from, of which `before` tells; asked for before `prepare_folder`.

    A killed run counts from its beginning to the last time that it wrote.
    """
    if before.status is not None:
        return before.seconds if before.status in _GOES_ON else 0.0
    with suppress(OSError, ValueError, KeyError, TypeError):  # there was none, or the file was cut
        begun = folder / BEGUN_FILE
        written = [path.stat().st_mtime for name in _OUTPUTS if (path := folder / name).exists()]
        ran_s = max(written, default=0.0) - begun.stat().st_mtime
        return float(json.loads(begun.read_text())["earlier_s"]) + max(0.0, ran_s)
    return 0.0


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
