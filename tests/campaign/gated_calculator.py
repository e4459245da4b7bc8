"""A calculator that waits at lead until a file appears, as a calculation of hours would keep a worker."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

LEAD = 82


class Gated(Calculator):
    """No forces and -1 eV per atom; a crystal with lead in it takes until the file `gate` is there."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, gate: str) -> None:
        super().__init__()
        self.gate = Path(gate)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        while LEAD in atoms.numbers and not self.gate.exists():
            time.sleep(0.05)
        self.results = {"energy": -1.0 * len(atoms), "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
