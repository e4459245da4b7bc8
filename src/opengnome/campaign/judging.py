"""Candidates against the hull: predicted formation energies become distances and probabilities."""

from collections.abc import Sequence

import numpy as np

from opengnome.campaign.acquisition import probability_stable
from opengnome.crystals import Composition, CrystalTable
from opengnome.hull import CompositionArrays, Hull

JUDGED = ("hull_energy_per_atom", "predicted_decomposition_energy", "probability_stable")
"""Columns that `judged` adds: formation energy of the hull (eV/atom), distance to it (eV/atom), probability."""


def judged(table: CrystalTable, hull: Hull) -> CrystalTable:
    """A table of candidates (columns `formation_energy_per_atom` and `std`, eV/atom) with the columns `JUDGED`.

    What could not be predicted (NaN) has no distance and no probability.
    """
    formulas, of_row = np.unique(np.array(table.reduced_formulas, dtype=object), return_inverse=True)
    hull_energies = hull_formation_energies(hull, [Composition.from_formula(formula) for formula in formulas])[of_row]
    distances = table.arrow["formation_energy_per_atom"].to_numpy() - hull_energies
    probabilities = probability_stable(distances, table.arrow["std"].to_numpy())
    for name, values in zip(JUDGED, (hull_energies, distances, probabilities), strict=True):
        table = table.with_column(name, values)
    return table


def hull_formation_energies(hull: Hull, compositions: Sequence[Composition] | CompositionArrays) -> np.ndarray:
    """Formation energy of the hull at each composition, eV/atom, shape (n,)."""
    return hull.formation_energies(compositions, hull.energies_per_atom_at(compositions))
