"""A calculator that takes its process down at lead, as a crash in compiled code would."""

import os
import signal
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

LEAD = 82


class Poison(Calculator):
    """No forces and -1 eV per atom; SIGKILL at a crystal with lead in it."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        if LEAD in atoms.numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        self.results = {"energy": -1.0 * len(atoms), "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
