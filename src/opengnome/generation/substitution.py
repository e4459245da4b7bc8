"""Full ionic substitution: every atom of one or more ions is replaced."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent
from opengnome.generation.probabilities import SubstitutionModel, likely_targets


@dataclass(frozen=True, eq=False)
class FullSubstitutions:
    """Ways to replace whole ions of a parent, most probable first."""

    parent: IonicParent
    targets: np.ndarray
    """Positions in the species table of the ions that stand in for `parent.ions`, shape (m, n_ions)."""
    probabilities: np.ndarray
    """Shape (m,)."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def counts(self) -> np.ndarray:
        """Number of atoms of each target ion, shape (m, n_ions)."""
        return np.broadcast_to(self.parent.ion_counts, self.targets.shape)

    def decorate(self, rows: np.ndarray) -> np.ndarray:
        """Species position on every site for the given rows, shape (len(rows), n_atoms)."""
        return self.targets[rows][:, self.parent.ion_of_site]

    def replaced(self, rows: np.ndarray) -> list[str]:
        """What the given rows replace, e.g. ``Ba2+->Sr2+; Ti4+->Zr4+``."""
        changes = [_changes(ion) for ion in self.parent.ions.tolist()]
        return [
            "; ".join(sorted(filter(None, map(tuple.__getitem__, changes, row)))) for row in self.targets[rows].tolist()
        ]


@cache
def _changes(ion: int) -> tuple[str, ...]:
    """Text of the change of an ion into each of the species table, nothing for itself."""
    names = species_table().names
    return tuple("" if target == ion else f"{names[ion]}->{name}" for target, name in enumerate(names))


def full_substitutions(parent: IonicParent, *, threshold: float, model: SubstitutionModel) -> FullSubstitutions:
    """All substitutions of the parent's ions above `threshold` that change at least one element.

    A target that differs from the ion only in charge puts the same atoms on the same sites, so rows
    where no element changes are left out.
    """
    targets, probabilities = likely_targets(parent.ions, threshold=threshold, model=model)
    elements = species_table().atomic_numbers
    changes = (elements[targets] != elements[parent.ions]).any(axis=1)
    targets, probabilities = targets[changes], probabilities[changes]
    order = np.lexsort((*targets.T[::-1], -probabilities))
    return FullSubstitutions(parent, targets[order], probabilities[order])
