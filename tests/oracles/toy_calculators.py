"""Calculators that misbehave in one way each."""

import time

import numpy as np
from ase.calculators.calculator import Calculator, all_changes


class Toy(Calculator):
    """A force along x on the first atom, weakening slowly with x, and a constant isotropic stress."""

    implemented_properties = ["energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, *, energy=0.0, force=0.0, stress=0.0, sleep_s=0.0, raise_at=None, nan_at=None):
        super().__init__()
        self.values = (energy, force, stress)
        self.sleep_s, self.raise_at, self.nan_at = sleep_s, raise_at, nan_at
        self.n_calls = 0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.raise_at == self.n_calls:
            raise ArithmeticError(f"broken at call {self.n_calls}")
        energy, force, stress = self.values
        forces = np.zeros((len(atoms), 3))
        forces[0, 0] = np.nan if self.nan_at == self.n_calls else force * (1 - 0.01 * atoms.positions[0, 0])
        time.sleep(self.sleep_s)
        self.n_calls += 1
        self.results = {"energy": energy, "forces": forces, "stress": np.array([stress] * 3 + [0.0] * 3)}


def broken():
    """Not a calculator at all."""
    raise LookupError("no licence")


NOT_CALLABLE = 1
