"""Symmetry-aware partial substitution (SAPS): some of an ion's atoms are replaced, once per symmetry class.

Section "Substitution patterns" of the paper's methods (doi:10.1038/s41586-023-06735-9): candidate
replacements come from the substitution model, 1 up to all atoms of the chosen ion are replaced, and only
groupings that are unique under the parent's space group are kept. This is how A2BB'X6 comes from A2B2X6.
The paper does not say what a grouping is; here it is any subset of the ion's atoms, modulo the space group.
"""

from dataclasses import dataclass

import numpy as np

from opengnome.crystals.symmetry import SymmetryDataset, site_permutations, symmetry_dataset
from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent
from opengnome.generation.probabilities import SubstitutionModel
from opengnome.generation.subsets import n_orbit_unions, n_unique_subsets, orbit_unions, unique_subsets
from opengnome.generation.supercells import supercell_of, unique_supercells

_SAME_VECTOR = 1e-3  # in units of a lattice vector; the shifts of a supercell are fractions of small integers


@dataclass(frozen=True, eq=False)
class Groupings:
    """Symmetry-unique groups of the sites of each ion of a parent, listed when they are asked for."""

    sites: tuple[np.ndarray, ...]
    """Sites of each ion."""
    permutations: tuple[np.ndarray, ...]
    """For each ion, how the parent's space group permutes its sites, shape (n_operations, n_sites), each
    permutation once."""
    max_subsets: int
    """Most groups of one ion and one count."""
    seed: int
    """Seed of the draws that are needed where there are more groups than `max_subsets`."""
    repeats: tuple[np.ndarray, ...]
    """For each ion, how the lattice vectors of the cell that was expanded permute its sites, shape (index - 1,
    n_sites); none in a cell that was not. Groups that one of them leaves in place belong to the smaller cell."""
    whole_orbits: bool = False
    """Only unions of whole orbits (Wyckoff sites) of the space group, instead of any sites."""

    def numbers(self, ion: int) -> list[int]:
        """How many groups of 0, 1, ... all atoms `choose` finds for an ion.

        Exact where the groups are listed; where they must be drawn, `choose` may find a few less. In a supercell
        those of the smaller cell are counted as well.
        """
        count = n_orbit_unions if self.whole_orbits else n_unique_subsets
        return [min(n, self.max_subsets) for n in count(self.permutations[ion])]

    def choose(self, ion: int, count: int) -> np.ndarray:
        """Sites to replace, one row per symmetry class of `count` atoms of an ion, shape (m, count)."""
        if self.whole_orbits:
            subsets = orbit_unions(self.permutations[ion], count, max_subsets=self.max_subsets)
        else:
            rng = np.random.default_rng((self.seed, ion, count))
            subsets = unique_subsets(self.permutations[ion], count, max_subsets=self.max_subsets, rng=rng)
        return self.sites[ion][subsets[~_left_in_place(subsets, self.repeats[ion])]]

    def draw(
        self, ions: np.ndarray, counts: np.ndarray, *, max_rows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray], int]:
        """The groups of `counts[i]` atoms of ion `ions[i]` for every i, both of shape (m,).

        Of more than `max_rows` that many are drawn without weights. Returns which i each group is of, shape
        (n_rows,), the sites of each, and the number left out.
        """
        keys = list(zip(ions.tolist(), counts.tolist(), strict=True))
        chosen = {key: self.choose(*key) for key in set(keys)}
        ends = np.cumsum([len(chosen[key]) for key in keys], dtype=np.int64)
        n_all = int(ends[-1]) if len(ends) else 0
        picked = np.arange(n_all)
        if n_all > max_rows:
            picked = np.sort(rng.choice(n_all, max_rows, replace=False))
        rows = np.searchsorted(ends, picked, side="right")
        sites = [
            chosen[keys[row]][-left] for row, left in zip(rows.tolist(), (ends[rows] - picked).tolist(), strict=True)
        ]
        return rows, sites, n_all - len(picked)


@dataclass(frozen=True, eq=False)
class PartialSubstitutions:
    """Compositions reached by replacing `count` atoms of one ion of a parent by another ion."""

    parent: IonicParent
    ions: np.ndarray
    """Which of `parent.ions` is replaced, shape (m,)."""
    targets: np.ndarray
    """Position in the species table of the ion that moves in, shape (m,)."""
    counts: np.ndarray
    """Number of atoms replaced, shape (m,)."""
    probabilities: np.ndarray
    """Conditional probability of the target given the ion, shape (m,)."""

    def __len__(self) -> int:
        return len(self.ions)

    def take(self, rows: np.ndarray) -> "PartialSubstitutions":
        """The given rows."""
        return PartialSubstitutions(
            self.parent, self.ions[rows], self.targets[rows], self.counts[rows], self.probabilities[rows]
        )

    def compositions(self) -> tuple[np.ndarray, np.ndarray]:
        """Species positions and atom counts of each row, (m, n_ions + 1) both; the target comes last."""
        species = np.column_stack([np.broadcast_to(self.parent.ions, (len(self), len(self.parent.ions))), self.targets])
        counts = np.tile(np.append(self.parent.ion_counts, 0), (len(self), 1))
        counts[np.arange(len(self)), self.ions] -= self.counts
        counts[:, -1] = self.counts
        return species, counts

    def decorate(
        self, groups: Groupings, *, max_rows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Species position on every site, one row per composition and symmetry-unique group of sites.

        Of more than `max_rows` that many are drawn without weights. Returns the species, shape
        (n_rows, n_atoms), the composition each row is of (a row of this table), shape (n_rows,), and the number
        left out.
        """
        rows, sites, n_left_out = groups.draw(self.ions, self.counts, max_rows=max_rows, rng=rng)
        site_species = np.tile(self.parent.site_species, (len(rows), 1))
        for position, (group, target) in enumerate(zip(sites, self.targets[rows].tolist(), strict=True)):
            site_species[position, group] = target
        return site_species, rows, n_left_out

    def replaced(self) -> list[str]:
        """What each row replaces, e.g. ``Ti4+->Zr4+ (1 of 2)``."""
        names, totals = species_table().names, self.parent.ion_counts.tolist()
        ions = self.parent.ions.tolist()
        texts = []
        for ion, target, count in zip(self.ions.tolist(), self.targets.tolist(), self.counts.tolist(), strict=True):
            share = "" if count == totals[ion] else f" ({count} of {totals[ion]})"
            texts.append(f"{names[ions[ion]]}->{names[target]}{share}")
        return texts


def partial_substitutions(
    parent: IonicParent, *, threshold: float, model: SubstitutionModel, include_all: bool
) -> PartialSubstitutions:
    """All (ion, target, count) of a parent with P(target | ion) above `threshold` and another element.

    Counts run from 1 to the number of the ion's atoms, the last only with `include_all`: replacing all atoms
    is a full substitution of one ion, so whoever also makes those would get it twice. Replacing all atoms
    by an ion that the parent holds elsewhere is left out; replacing some of them so is not.
    """
    elements = species_table().atomic_numbers
    columns = model.conditional_probabilities()[:, parent.ions]
    targets, ions = np.nonzero((columns > threshold) & (elements[:, None] != elements[parent.ions]))
    order = np.lexsort((targets, -columns[targets, ions], ions))
    targets, ions = targets[order], ions[order]
    n_counts = parent.ion_counts[ions] - (0 if include_all else 1)
    repeated = np.repeat(np.arange(len(ions)), n_counts)
    counts = np.arange(len(repeated)) - np.repeat(np.cumsum(n_counts) - n_counts, n_counts) + 1
    ions, targets = ions[repeated], targets[repeated]
    distinct = (counts < parent.ion_counts[ions]) | ~np.isin(targets, parent.ions)
    ions, targets, counts = ions[distinct], targets[distinct], counts[distinct]
    return PartialSubstitutions(parent, ions, targets, counts, columns[targets, ions])


def groupings(
    parent: IonicParent,
    *,
    symprec: float,
    max_subsets: int,
    seed: int = 0,
    expanded_from: np.ndarray | None = None,
    whole_orbits: bool = False,
) -> Groupings:
    """The symmetry-unique groups of sites of a parent.

    `expanded_from` is the lattice (3, 3) of the smaller cell when the parent's is a supercell. Raises
    `InvalidCrystalError` when no space group fits the parent within `symprec` (A).
    """
    dataset = symmetry_dataset(parent.crystal, symprec=symprec)
    permutations = site_permutations(parent.crystal, dataset)
    sites = tuple(np.flatnonzero(parent.ion_of_site == ion) for ion in range(len(parent.ions)))
    groups = tuple(np.unique(np.searchsorted(s, permutations[:, s]), axis=0) for s in sites)
    shifts = permutations[_translations(parent, dataset, expanded_from)]
    repeats = tuple(np.searchsorted(s, shifts[:, s]) for s in sites)
    return Groupings(sites, groups, max_subsets, seed, repeats, whole_orbits)


def expanded_parents(parent: IonicParent, *, size: int, max_atoms: int, symprec: float) -> list[IonicParent]:
    """The parent in its symmetry-unique supercells of 2 to `size` cells that hold at most `max_atoms` atoms.

    Raises as `groupings`.
    """
    largest = min(size, max_atoms // parent.crystal.n_atoms)
    if largest < 2:
        return []
    rotations = symmetry_dataset(parent.crystal, symprec=symprec).rotations
    cells = [
        supercell_of(parent.crystal, matrix)
        for index in range(2, largest + 1)
        for matrix in unique_supercells(rotations, index)
    ]
    return [IonicParent(parent.id, cell, parent.ions, parent.ion_of_site[sites]) for cell, sites in cells]


def _translations(parent: IonicParent, dataset: SymmetryDataset, lattice: np.ndarray | None) -> np.ndarray:
    """Positions of the operations that only shift, by a vector of `lattice` that is none of the parent's own."""
    if lattice is None:
        return np.empty(0, dtype=np.int64)
    pure = (dataset.rotations == np.eye(3, dtype=np.int64)).all(axis=(1, 2))
    steps = dataset.translations @ parent.crystal.lattice @ np.linalg.inv(lattice)
    of_lattice = (np.abs(steps - np.round(steps)) < _SAME_VECTOR).all(axis=1)
    moves = (np.abs(dataset.translations - np.round(dataset.translations)) > _SAME_VECTOR).any(axis=1)
    return np.flatnonzero(pure & of_lattice & moves)


def _left_in_place(subsets: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    """Whether one of the permutations (r, n_sites) maps a sorted subset onto itself; subsets (m, k), result (m,)."""
    images = np.sort(repeats[:, subsets], axis=-1)
    return np.asarray((images == subsets).all(axis=-1).any(axis=0))
