"""Decorations: other ions on the sites of a parent, and the candidates built from those that pass."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengnome.generation.candidate import Candidates, Method
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
    replaced: Sequence[str]
    """What was replaced, e.g. ``Ba2+->Sr2+; Ti4+->Zr4+ (1 of 2)``, one per row."""


def build_candidates(
    decorations: Decorations, settings: GenerationSettings, *, seed: int
) -> tuple[Candidates, Counter[Reason]]:
    """Candidates whose volume is rescaled to the new ions, and the number of those rejected by reason."""
    parent, site_species = decorations.parent, decorations.site_species
    factors = length_factors(parent, site_species)
    codes = structure_reasons(parent, site_species, factors, settings)
    rows = np.flatnonzero(codes == Reason.NONE)
    candidates = Candidates(
        method=decorations.method,
        parent_ids=(parent.id,),
        frac_coords=parent.crystal.frac_coords,
        lattices=parent.crystal.lattice * factors[rows, None, None],
        atomic_numbers=species_table().atomic_numbers[site_species[rows]],
        replaced=[decorations.replaced[row] for row in rows.tolist()],
        probabilities=decorations.probabilities[rows],
        seed=seed,
    )
    return candidates, count_reasons(codes)


def count_reasons(codes: np.ndarray) -> Counter[Reason]:
    """Number of rejected proposals by reason."""
    numbers = np.bincount(codes, minlength=len(Reason)).tolist()
    return Counter({reason: numbers[reason] for reason in Reason if reason != Reason.NONE and numbers[reason]})
