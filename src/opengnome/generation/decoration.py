"""Decorations: other ions, or none, on the sites of a parent, and the candidates built from those that pass."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengnome.generation.candidate import Candidates, Method
from opengnome.generation.filters import Reason, structure_reasons
from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent
from opengnome.generation.settings import GenerationSettings


@dataclass(frozen=True, eq=False)
class Decorations:
    """Many ways to put ions on the sites of one parent, before any crystal is built."""

    parent: IonicParent
    method: Method
    site_species: np.ndarray
    """Position in the species table of the ion on each site, shape (m, n_atoms); at a vacancy, of the one that left."""
    vacant: np.ndarray
    """Which sites are empty, shape (m, n_atoms), bool."""
    length_factors: np.ndarray
    """Factor on all lengths of the parent's cell, shape (m,)."""
    probabilities: np.ndarray
    """Conditional probability of each, shape (m,); NaN where there is none."""
    replaced: Sequence[str]
    """What was replaced, e.g. ``Ba2+->Sr2+; Ti4+->Zr4+ (1 of 2)``, one per row."""


def build_candidates(
    decorations: Decorations, settings: GenerationSettings, *, seed: int
) -> tuple[list[Candidates], Counter[Reason]]:
    """Candidates in their rescaled cells, and the number of those rejected by reason.

    One `Candidates` for each number of atoms, the largest first.
    """
    codes = structure_reasons(
        decorations.parent,
        decorations.site_species,
        decorations.length_factors,
        settings,
        vacant=decorations.vacant,
    )
    kept = np.flatnonzero(codes == Reason.NONE)
    n_vacant = decorations.vacant[kept].sum(axis=1)
    parts = [_candidates(decorations, kept[n_vacant == n], seed=seed) for n in np.unique(n_vacant).tolist()]
    return parts, count_reasons(codes)


def _candidates(decorations: Decorations, rows: np.ndarray, *, seed: int) -> Candidates:
    """The decorations at `rows`, all with as many atoms, as crystals."""
    parent = decorations.parent
    occupied = ~decorations.vacant[rows]
    sites = np.nonzero(occupied)[1].reshape(len(rows), -1)
    species = np.take_along_axis(decorations.site_species[rows], sites, axis=1)
    return Candidates(
        method=decorations.method,
        parent_ids=(parent.id,),
        frac_coords=parent.crystal.frac_coords,
        sites=sites,
        lattices=parent.crystal.lattice * decorations.length_factors[rows, None, None],
        atomic_numbers=species_table().atomic_numbers[species],
        replaced=[decorations.replaced[row] for row in rows.tolist()],
        probabilities=decorations.probabilities[rows],
        seed=seed,
    )


def count_reasons(codes: np.ndarray) -> Counter[Reason]:
    """Number of rejected proposals by reason."""
    numbers = np.bincount(codes, minlength=len(Reason)).tolist()
    return Counter({reason: numbers[reason] for reason in Reason if reason != Reason.NONE and numbers[reason]})
