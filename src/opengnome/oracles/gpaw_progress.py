"""How far a relaxation with GPAW is, on disk after every step, so that a killed one goes on from there."""

import io
import json
import zipfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.replacement import replace_file
from opengnome.errors import OpenGnomeError
from opengnome.oracles.oracle import Calculation, Frames
from opengnome.oracles.store import read_calculation, write_calculation

PROGRESS_FILE = "progress.npz"
CALCULATION_FILE = "calculation.parquet"
"""The result, as `oracles.store` has it; when it is there the crystal is finished."""

_ARRAYS = tuple(one.name for one in fields(Frames))


@dataclass
class StageFrames:
    """The geometries one stage has evaluated so far; shapes and units per frame as in `Frames`."""

    positions: list[np.ndarray] = field(default_factory=list)
    lattices: list[np.ndarray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    forces: list[np.ndarray] = field(default_factory=list)
    stresses: list[np.ndarray] = field(default_factory=list)
    repeats_last: bool = False
    """Whether the next frame is the geometry of the last one evaluated again, and takes its place."""

    def __len__(self) -> int:
        return len(self.energies)

    def append(self, **frame: Any) -> None:
        """Add one frame, given by the names of all arrays."""
        for name in _ARRAYS:
            values = getattr(self, name)
            if self.repeats_last:
                values.pop()
            values.append(frame[name])
        self.repeats_last = False

    def frames(self) -> Frames:
        return Frames(*(np.array(getattr(self, name), dtype=np.float64) for name in _ARRAYS))


@dataclass
class Progress:
    """What a relaxation knows of itself between two steps."""

    start: Crystal
    """Where the first stage begins: the input, symmetrised, pre-relaxed where that is asked for."""
    stages: list[StageFrames] = field(default_factory=list)
    """One per stage that has begun; the last one is under way."""
    n_finished: int = 0
    """Stages that have converged."""
    ladder: list[str] = field(default_factory=list)
    """Names of the corrections in force, in order."""
    corrections: list[str] = field(default_factory=list)
    """The log of the corrections for the record of the calculation."""
    fmax: float | None = None
    """Largest generalised force at the end of the last relaxation, eV/Angstrom."""
    band_gap: float | None = None
    """Of the last evaluation, eV."""
    seconds: float = 0.0
    """Wall time spent before this process."""

    def geometry(self, number: int) -> Crystal:
        """Where stage `number` goes on, or begins."""
        for stage in reversed(self.stages[: number + 1]):
            if len(stage):
                return stage.frames().crystal(-1, self.start.atomic_numbers)
        return self.start

    def write(self, path: Path) -> None:
        """Replace `path` as a whole."""
        noted = {
            "n_stages": len(self.stages),
            "n_finished": self.n_finished,
            "ladder": self.ladder,
            "corrections": self.corrections,
            "fmax": self.fmax,
            "band_gap": self.band_gap,
            "seconds": self.seconds,
        }
        arrays: dict[str, Any] = {
            "start_lattice": self.start.lattice,
            "start_frac_coords": self.start.frac_coords,
            "atomic_numbers": self.start.atomic_numbers,
            "noted": np.array(json.dumps(noted)),
        }
        for number, stage in enumerate(self.stages):
            arrays |= {f"{name}_{number}": getattr(stage.frames(), name) for name in _ARRAYS}
        content = io.BytesIO()
        np.savez(content, **arrays)
        replace_file(path, lambda temporary: temporary.write_bytes(content.getvalue()))


def read_progress(path: Path) -> Progress | None:
    """What `Progress.write` wrote, or None when there is no such file or it is damaged: then all begins anew.

    Raises `OSError` when it is there and cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            noted = json.loads(str(arrays["noted"]))
            stages = [_stage(arrays, number) for number in range(noted.pop("n_stages"))]
            start = Crystal(arrays["start_lattice"], arrays["start_frac_coords"], arrays["atomic_numbers"])
        return Progress(start=start, stages=stages, **noted)
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile):
        return None


def _stage(arrays: Any, number: int) -> StageFrames:
    stage = StageFrames()
    for name in _ARRAYS:
        getattr(stage, name).extend(arrays[f"{name}_{number}"])
    return stage


def read_finished(folder: Path) -> Calculation | None:
    """The result in `folder`, or None when there is none or it is damaged."""
    path = folder / CALCULATION_FILE
    if not path.exists():
        return None
    try:
        return read_calculation(path)
    except OpenGnomeError:
        return None


def write_finished(folder: Path, calculation: Calculation) -> None:
    """Leave the result in `folder` and remove what was needed to go on."""
    write_calculation(folder / CALCULATION_FILE, calculation)
    (folder / PROGRESS_FILE).unlink(missing_ok=True)
