"""A calculator whose disk is full at lead, as long as a file is there."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

LEAD = 82


class FullDisk(Calculator):
    """No forces and -1 eV per atom; notes every evaluation in `log`."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, filler: str, log: str) -> None:
        super().__init__()
        self.filler, self.log = Path(filler), Path(log)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if LEAD in atoms.numbers and self.filler.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "scratch.dat")
        with self.log.open("a") as log:
            log.write(f"{atoms.get_chemical_formula()}\n")
        self.results = {"energy": -1.0 * len(atoms), "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
