"""Thermodynamic stability: formation energies, convex hulls, decomposition energies and products."""

from opengnome.hull.decomposition import LowerHull, Mixture, lowest_mixture
from opengnome.hull.entry import Entry
from opengnome.hull.hull import STABILITY_TOLERANCE, Decomposition, Hull
from opengnome.hull.table import hull_table

__all__ = [
    "STABILITY_TOLERANCE",
    "Decomposition",
    "Entry",
    "Hull",
    "LowerHull",
    "Mixture",
    "hull_table",
    "lowest_mixture",
]
