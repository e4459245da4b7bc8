"""Thermodynamic stability: formation energies, convex hulls, decomposition energies and products, and what follows."""

from opengnome.hull.chemical_potentials import (
    AIR_OXYGEN_PRESSURE,
    StabilityRegion,
    critical_chemical_potentials,
    gas_potential_shift,
    stability_region,
    stability_regions,
)
from opengnome.hull.composition_arrays import CompositionArrays
from opengnome.hull.correction_schemes import correction_scheme
from opengnome.hull.corrections import CorrectedEntries, Correction, CorrectionScheme, EnergyDetails, apply_correction
from opengnome.hull.decomposition import LowerHull, Mixture, lowest_mixture
from opengnome.hull.entry import Entry
from opengnome.hull.entry_table import EntryTable
from opengnome.hull.fitted_references import FittedReferences, fit_references
from opengnome.hull.grand_potential import (
    ElectrochemicalWindow,
    ElementProfile,
    GrandPotentialHull,
    electrochemical_window,
    element_profile,
)
from opengnome.hull.hull import STABILITY_TOLERANCE, Decomposition, Hull
from opengnome.hull.probability import (
    JointProbability,
    draw_energies,
    joint_probability_on_hull,
    probability_on_hull,
)
from opengnome.hull.reactions import Reaction, Species, equilibrium_reaction, reaction_energy
from opengnome.hull.snapshots import (
    Displacement,
    MergedSnapshot,
    SnapshotDistances,
    displaced_entries,
    merge_recomputed,
    snapshot_distances,
)
from opengnome.hull.table import hull_table

__all__ = [
    "AIR_OXYGEN_PRESSURE",
    "STABILITY_TOLERANCE",
    "CompositionArrays",
    "CorrectedEntries",
    "Correction",
    "CorrectionScheme",
    "Decomposition",
    "Displacement",
    "ElectrochemicalWindow",
    "ElementProfile",
    "EnergyDetails",
    "Entry",
    "EntryTable",
    "FittedReferences",
    "GrandPotentialHull",
    "Hull",
    "JointProbability",
    "LowerHull",
    "MergedSnapshot",
    "Mixture",
    "Reaction",
    "SnapshotDistances",
    "Species",
    "StabilityRegion",
    "apply_correction",
    "correction_scheme",
    "critical_chemical_potentials",
    "displaced_entries",
    "draw_energies",
    "electrochemical_window",
    "element_profile",
    "equilibrium_reaction",
    "fit_references",
    "gas_potential_shift",
    "hull_table",
    "joint_probability_on_hull",
    "lowest_mixture",
    "merge_recomputed",
    "probability_on_hull",
    "reaction_energy",
    "snapshot_distances",
    "stability_region",
    "stability_regions",
]
