"""What pw.x has answered for a crystal, on disk after every geometry, so that a killed relaxation loses none of it.

The relaxation is deterministic: begun again from the input it asks for the same geometries, and those that are here
need no pw.x. So it goes on after the last one, with all frames, and a finished one is read.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

_ARRAYS = ("forces", "stress")
_SAME_A = 1e-9
"""Coordinates that differ by less are the same geometry, Angstrom: another machine may round the last digit
differently, which changes energies by less than 1e-9 eV."""


@dataclass(frozen=True)
class Evaluation:
    """One geometry, and what is known of it."""

    inputs: str
    """Digest of all other inputs of pw.x that change results."""
    positions: list[list[float]]
    """Cartesian, shape (n_atoms, 3), Angstrom."""
    cell: list[list[float]]
    """Lattice vectors as rows, Angstrom."""
    results: dict[str, Any]
    """Numbers and nested lists by ASE's names of properties, in ASE's units."""
    band_gap: float | None
    version: str
    corrections: list[str]
    """All those in force at this geometry."""
    seconds: float
    """Wall time."""

    def properties(self) -> dict[str, Any]:
        """`results` as a calculator of ASE has them."""
        return {key: np.array(value) if key in _ARRAYS else value for key, value in self.results.items()}


class Evaluations:
    """The evaluations of one crystal in a file, one line of JSON each."""

    def __init__(self, path: Path, inputs: str) -> None:
        """`inputs` as in `Evaluation`; those of other inputs are left alone."""
        self._path, self._inputs = path, inputs
        self._known = [found for found in _read(path) if found.inputs == inputs]

    def __len__(self) -> int:
        return len(self._known)

    def find(self, positions: np.ndarray, cell: np.ndarray) -> Evaluation | None:
        """What is known of a geometry; shapes (n_atoms, 3) and (3, 3), Angstrom."""
        for one in self._known:
            known, lattice = np.array(one.positions), np.array(one.cell)
            if np.allclose(known, positions, rtol=0, atol=_SAME_A) and np.allclose(lattice, cell, rtol=0, atol=_SAME_A):
                return one
        return None

    def add(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        results: Mapping[str, Any],
        *,
        band_gap: float | None,
        version: str,
        corrections: list[str],
        seconds: float,
    ) -> None:
        """Write one down; it is on the disk when this returns. Raises `OSError` when it cannot be."""
        kept = {key: np.asarray(results[key]).tolist() for key in ("energy", "free_energy", *_ARRAYS) if key in results}
        one = Evaluation(
            self._inputs, positions.tolist(), cell.tolist(), kept, band_gap, version, list(corrections), seconds
        )
        with self._path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                file.write(b"\n")  # the line before was cut
            file.write(json.dumps(asdict(one)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._known.append(one)


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    last: bytes = file.read(1)
    return last


def _read(path: Path) -> list[Evaluation]:
    """All whole lines; one that was cut when the program was killed is no evaluation."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(Evaluation(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found
