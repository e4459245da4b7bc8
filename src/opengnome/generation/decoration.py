"""Decorations: other ions on the sites of a parent, and the candidates built from those that pass."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from opengnome.crystals import Crystal
from opengnome.generation.candidate import Candidate, Method, Provenance
from opengnome.generation.filters import Reason, structure_reasons
from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent
from opengnome.generation.settings import GenerationSettings
from opengnome.generation.volume import length_factors


@dataclass(frozen=True, eq=False)
class Decorations:
    """Many ways to put ions on the sites of one parent, before any crystal is built."""

    parent: IonicParent
    method: Method
    site_species: np.ndarray
    """Position in the species table of the ion on each site, shape (m, n_atoms)."""
    probabilities: np.ndarray
    """Conditional probability of each, shape (m,)."""


def build_candidates(
    decorations: Decorations, settings: GenerationSettings, *, seed: int
) -> tuple[list[Candidate], Counter[Reason]]:
    """Candidates whose volume is rescaled to the new ions, and the number of those rejected by reason."""
    parent, site_species = decorations.parent, decorations.site_species
    factors = length_factors(parent, site_species)
    codes = structure_reasons(parent, site_species, factors, settings)
    elements = species_table().atomic_numbers
    candidates = []
    for row in np.flatnonzero(codes == Reason.NONE).tolist():
        crystal = Crystal(
            parent.crystal.lattice * factors[row], parent.crystal.frac_coords, elements[site_species[row]]
        )
        provenance = Provenance(
            method=decorations.method,
            parent_ids=(parent.id,),
            replaced=describe(parent, site_species[row]),
            probability=float(decorations.probabilities[row]),
            seed=seed,
        )
        candidates.append(Candidate(crystal, provenance))
    return candidates, count_reasons(codes)


def describe(parent: IonicParent, site_species: np.ndarray) -> str:
    """What was replaced, e.g. ``Ba2+->Sr2+; Ti4+->Zr4+ (1 of 2)``; site_species has shape (n_atoms,)."""
    names = species_table().names
    changes = Counter(zip(parent.site_species.tolist(), site_species.tolist()))
    totals = dict(zip(parent.ions.tolist(), parent.ion_counts.tolist()))
    parts = []
    for (old, new), count in changes.items():
        if old != new:
            share = "" if count == totals[old] else f" ({count} of {totals[old]})"
            parts.append(f"{names[old]}->{names[new]}{share}")
    return "; ".join(sorted(parts))


def count_reasons(codes: np.ndarray) -> Counter[Reason]:
    """Number of rejected proposals by reason."""
    numbers = np.bincount(codes, minlength=len(Reason)).tolist()
    return Counter({reason: numbers[reason] for reason in Reason if reason != Reason.NONE and numbers[reason]})
