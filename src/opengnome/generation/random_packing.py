"""Soft spheres: atoms that are too close push each other apart, many crystals at once, symmetry kept.

The energy of a crystal is half the sum over pairs of (sigma - d)^2 where d < sigma, sigma a little above the
minimum distance of the pair. Only one atom of each orbit moves, in the directions that its site symmetry
leaves free; the others follow by the symmetry operations. Its force is that of the whole crystal, so the
crystal moves as it would with all its atoms free. Minimised with FIRE (Bitzek et al. 2006,
doi:10.1103/PhysRevLett.97.170201), a time step for each crystal.

All sums over the pairs of a crystal run in an order that is the same whatever else is in the batch, so a
crystal comes out the same to the last bit in any batch.
"""

from dataclasses import dataclass, replace

import numpy as np

_MARGIN = 1.02
"""sigma over the minimum distance: spheres that just touch are apart by more than the minimum."""
_SKIN = 0.6
"""A; pairs this far beyond sigma at the start of a round are watched during it."""
_MAX_STEP = 0.25
"""A; the longest move of an atom in one step."""
_TIME_STEP, _MAX_TIME_STEP = 0.5, 0.7
"""In units where the spring constant and the mass are one; beyond 0.7 twelve contacts are unstable."""
_MIXING, _MIXING_DECAY, _SPEED_UP, _SLOW_DOWN, _N_DOWNHILL = 0.3, 0.99, 1.1, 0.5, 3
_CLOSE_ENOUGH = 1.01
"""Growth in volume that is taken at once, in place of another round."""
_OVERLAP_GUARD = 1e-9
_HOPELESS = 5.0
"""A crystal that needs this many times the largest growth after `_PATIENCE` rounds is given up; of a hundred
such one would succeed in the rounds that are left."""
_PATIENCE = 3
"""Rounds before a cell grows because its atoms have not found room; most find it."""


@dataclass(frozen=True, eq=False)
class Packing:
    """Crystals as flat arrays: S crystals, R orbits, A atoms; positions are Cartesian, A."""

    lattices: np.ndarray
    """Minkowski-reduced lattice vectors as rows, shape (S, 3, 3)."""
    min_distances: np.ndarray
    """Minimum distance of each pair of elements, A, shape (S, E, E)."""
    orbit_crystals: np.ndarray
    """Crystal of each orbit, ascending, shape (R,)."""
    orbit_elements: np.ndarray
    """Element of each orbit, as an index in `min_distances`, shape (R,)."""
    orbit_sizes: np.ndarray
    """Atoms of each orbit, shape (R,)."""
    positions: np.ndarray
    """The first atom of each orbit, shape (R, 3)."""
    projectors: np.ndarray
    """Onto the directions in which it may move, shape (R, 3, 3)."""
    atom_orbits: np.ndarray
    """Orbit of each atom, ascending, shape (A,)."""
    rotations: np.ndarray
    """Atom k is at positions[orbit] @ rotations[k] + shifts[k]; shape (A, 3, 3)."""
    shifts: np.ndarray
    """Shape (A, 3)."""
    growth: np.ndarray
    """Volume over the volume at the start, shape (S,)."""

    def __len__(self) -> int:
        return len(self.lattices)

    def atoms(self) -> np.ndarray:
        """Positions of all atoms, shape (A, 3)."""
        return apply_rows(self.rotations, self.positions[self.atom_orbits]) + self.shifts

    def grown(self, factors: np.ndarray) -> "Packing":
        """With the volume of each crystal multiplied by its factor, shape (S,)."""
        lengths = np.cbrt(factors)
        of_orbits = lengths[self.orbit_crystals]
        return replace(
            self,
            lattices=self.lattices * lengths[:, None, None],
            positions=self.positions * of_orbits[:, None],
            shifts=self.shifts * of_orbits[self.atom_orbits][:, None],
            growth=self.growth * factors,
        )

    def take(self, chosen: np.ndarray) -> "Packing":
        """The crystals where the boolean mask, shape (S,), is true."""
        orbits = chosen[self.orbit_crystals]
        atoms = orbits[self.atom_orbits]
        return Packing(
            lattices=self.lattices[chosen],
            min_distances=self.min_distances[chosen],
            orbit_crystals=(np.cumsum(chosen) - 1)[self.orbit_crystals[orbits]],
            orbit_elements=self.orbit_elements[orbits],
            orbit_sizes=self.orbit_sizes[orbits],
            positions=self.positions[orbits],
            projectors=self.projectors[orbits],
            atom_orbits=(np.cumsum(orbits) - 1)[self.atom_orbits[atoms]],
            rotations=self.rotations[atoms],
            shifts=self.shifts[atoms],
            growth=self.growth[chosen],
        )


@dataclass(frozen=True, eq=False)
class PackingResult:
    """Where `pack` left the crystals."""

    positions: np.ndarray
    """First atom of each orbit in the grown cell, A, shape (R, 3)."""
    growth: np.ndarray
    """Volume over the volume at the start, shape (S,)."""
    succeeded: np.ndarray
    """Whether no pair is closer than its minimum distance, shape (S,)."""


@dataclass(frozen=True, eq=False)
class _Contacts:
    """Pairs of an orbit's first atom and any atom or image of one."""

    orbits: np.ndarray
    """The first atom's orbit, shape (P,)."""
    atoms: np.ndarray
    """Shape (P,)."""
    images: np.ndarray
    """Lattice vector from the atom to its image, A, shape (P, 3)."""
    smallest: np.ndarray
    """Minimum distance of the pair, A, shape (P,)."""
    distances: np.ndarray
    """When the pairs were found, A, shape (P,)."""
    rigid: np.ndarray
    """Whether no move of the orbits changes the distance, shape (P,)."""


def pack(packing: Packing, *, n_rounds: int, n_steps: int, max_growth: float, growth_per_round: float) -> PackingResult:
    """Remove the overlaps of every crystal.

    A round finds the contacts and takes `n_steps` steps. After it a crystal is done when no pair is closer than
    its minimum distance, or when a growth of 1 % in volume mends it. Otherwise it grows: by what the overlaps
    need that no move can mend (between atoms at fixed points, or of an atom with its own images), and after
    `_PATIENCE` rounds by what the others need, up to `growth_per_round`. After the last round it grows by what is
    needed. It fails when it would have to grow by more than `max_growth` in all (factors on the volume), and
    early when it is far from fitting.
    """
    result = PackingResult(packing.positions.copy(), packing.growth.copy(), np.zeros(len(packing), dtype=bool))
    crystals, orbits = np.arange(len(packing)), np.arange(len(packing.positions))
    for round_ in range(n_rounds + 1):
        contacts = _find_contacts(packing)
        needed, rigid = _growth_needed(packing, contacts)
        last = round_ == n_rounds
        finished = ((needed <= _CLOSE_ENOUGH) | last) & (packing.growth * needed <= max_growth)
        _write(result, packing.grown(needed), finished, crystals, orbits)
        hopeless = (round_ >= _PATIENCE) & (packing.growth * needed > _HOPELESS * max_growth)
        unfinished = ~finished & ~hopeless & (packing.growth * rigid <= max_growth)
        if last or not unfinished.any():
            break
        of_orbits = unfinished[packing.orbit_crystals]
        contacts = _take_contacts(packing, contacts, of_orbits)
        packing, crystals, orbits = packing.take(unfinished), crystals[unfinished], orbits[of_orbits]
        factors = rigid[unfinished]
        if round_ >= _PATIENCE:
            factors = np.maximum(factors, np.minimum(needed[unfinished], growth_per_round))
        packing = packing.grown(factors)
        lengths = np.cbrt(factors)[packing.orbit_crystals[contacts.orbits]]
        packing = _minimise(packing, replace(contacts, images=contacts.images * lengths[:, None]), n_steps)
    return result


def _write(
    result: PackingResult, packing: Packing, finished: np.ndarray, crystals: np.ndarray, orbits: np.ndarray
) -> None:
    of_orbits = finished[packing.orbit_crystals]
    result.positions[orbits[of_orbits]] = packing.positions[of_orbits]
    result.growth[crystals[finished]] = packing.growth[finished]
    result.succeeded[crystals[finished]] = True


def _growth_needed(packing: Packing, contacts: _Contacts) -> tuple[np.ndarray, np.ndarray]:
    """Factor on the volume that mends all overlaps, and that mends those no move can mend; each shape (S,)."""
    ratios = contacts.smallest / np.maximum(contacts.distances, _OVERLAP_GUARD)
    factors = np.where(ratios > 1, ratios * ratios * ratios * (1 + _OVERLAP_GUARD), 1.0)
    crystals = packing.orbit_crystals[contacts.orbits]
    needed, rigid = np.ones(len(packing)), np.ones(len(packing))
    np.maximum.at(needed, crystals, factors)
    np.maximum.at(rigid, crystals[contacts.rigid], factors[contacts.rigid])
    return needed, rigid


# --- Contacts ---------------------------------------------------------------------------------------------


def _find_contacts(packing: Packing) -> _Contacts:
    """All pairs within sigma plus the skin."""
    orbits, atoms = _pairs_within_crystals(packing)
    crystals = packing.orbit_crystals[orbits]
    smallest = packing.min_distances[
        crystals, packing.orbit_elements[orbits], packing.orbit_elements[packing.atom_orbits[atoms]]
    ]
    cutoffs = smallest * _MARGIN + _SKIN
    positions = packing.atoms()
    inverses = np.linalg.inv(packing.lattices)
    fractional = apply_rows(inverses[crystals], positions[atoms] - packing.positions[orbits])
    nearest = -np.round(fractional)
    fractional += nearest
    heights = 1 / np.sqrt(np.square(inverses).sum(axis=1))  # distance of the lattice planes, shape (S, 3)

    # An image within the cutoff is within it along each axis; axis by axis few of the images remain.
    rows = np.arange(len(orbits))
    steps = nearest
    for axis in range(3):
        reach = cutoffs[rows] / heights[crystals[rows], axis]
        furthest = int(np.floor(reach.max(initial=0.0) + 0.5))
        kept_rows, kept_steps = [], []
        for step in range(-furthest, furthest + 1):
            kept = np.abs(fractional[rows, axis] + step) < reach
            kept_rows.append(rows[kept])
            moved = steps[kept]
            moved[:, axis] += step
            kept_steps.append(moved)
        rows, steps = np.concatenate(kept_rows), np.concatenate(kept_steps)
    orbits, atoms = orbits[rows], atoms[rows]
    images = apply_rows(packing.lattices[crystals[rows]], steps)
    distances = _lengths(positions[atoms] + images - packing.positions[orbits])
    first_atoms = np.searchsorted(packing.atom_orbits, np.arange(len(packing.positions)))
    itself = first_atoms[orbits] == atoms
    movable = np.any(packing.projectors, axis=(1, 2))
    rigid = itself | ~(movable[orbits] | movable[packing.atom_orbits[atoms]])
    kept = np.flatnonzero((distances < cutoffs[rows]) & ~(itself & (steps == 0).all(axis=1)))
    return _Contacts(orbits[kept], atoms[kept], images[kept], smallest[rows[kept]], distances[kept], rigid[kept])


def _pairs_within_crystals(packing: Packing) -> tuple[np.ndarray, np.ndarray]:
    """Orbit and atom of every pair of an orbit and an atom of the same crystal, in order of the orbit."""
    atom_crystals = packing.orbit_crystals[packing.atom_orbits]
    n_atoms = np.bincount(atom_crystals, minlength=len(packing))
    first_atom = np.cumsum(n_atoms) - n_atoms
    partners = n_atoms[packing.orbit_crystals]
    orbits = np.repeat(np.arange(len(packing.positions)), partners)
    starts = np.cumsum(partners) - partners
    atoms = np.arange(len(orbits)) - starts[orbits] + first_atom[packing.orbit_crystals[orbits]]
    return orbits, atoms


def _take_contacts(packing: Packing, contacts: _Contacts, chosen_orbits: np.ndarray) -> _Contacts:
    """Contacts that a move can change, of the chosen orbits only and with their new numbers."""
    kept = chosen_orbits[contacts.orbits] & ~contacts.rigid
    new_orbits = np.cumsum(chosen_orbits) - 1
    new_atoms = np.cumsum(chosen_orbits[packing.atom_orbits]) - 1
    return _Contacts(
        new_orbits[contacts.orbits[kept]],
        new_atoms[contacts.atoms[kept]],
        contacts.images[kept],
        contacts.smallest[kept],
        contacts.distances[kept],
        contacts.rigid[kept],
    )


# --- Minimisation -----------------------------------------------------------------------------------------


def _minimise(packing: Packing, contacts: _Contacts, n_steps: int) -> Packing:
    """`n_steps` of FIRE on the orbits' first atoms."""
    n_crystals, crystals = len(packing), packing.orbit_crystals
    positions, velocities = packing.positions, np.zeros_like(packing.positions)
    time_steps = np.full(n_crystals, _TIME_STEP)
    mixing = np.full(n_crystals, _MIXING)
    n_downhill = np.zeros(n_crystals, dtype=np.int64)
    sigma = contacts.smallest * _MARGIN

    def total(per_orbit: np.ndarray) -> np.ndarray:
        return np.bincount(crystals, packing.orbit_sizes * per_orbit, n_crystals)

    for _ in range(n_steps):
        forces = _forces(packing, positions, contacts, sigma)
        power = total(_dot(forces, velocities))
        uphill = power < 0
        n_downhill = np.where(uphill, 0, n_downhill + 1)
        faster = n_downhill > _N_DOWNHILL
        time_steps = np.where(
            uphill,
            time_steps * _SLOW_DOWN,
            np.where(faster, np.minimum(time_steps * _SPEED_UP, _MAX_TIME_STEP), time_steps),
        )
        mixing = np.where(uphill, _MIXING, np.where(faster, mixing * _MIXING_DECAY, mixing))
        velocities = np.where(uphill[crystals, None], 0.0, velocities)
        speed, force = np.sqrt(total(_dot(velocities, velocities))), np.sqrt(total(_dot(forces, forces)))
        along = mixing * speed / np.maximum(force, _OVERLAP_GUARD)
        velocities = (1 - mixing)[crystals, None] * velocities + along[crystals, None] * forces
        velocities += time_steps[crystals, None] * forces
        moves = time_steps[crystals, None] * velocities
        longest = np.sqrt(_dot(moves, moves))
        positions = positions + moves * np.minimum(1.0, _MAX_STEP / np.maximum(longest, _OVERLAP_GUARD))[:, None]
    return replace(packing, positions=positions)


def _forces(packing: Packing, positions: np.ndarray, contacts: _Contacts, sigma: np.ndarray) -> np.ndarray:
    """Force on the first atom of each orbit along its free directions, shape (R, 3), A."""
    atoms = apply_rows(packing.rotations, positions[packing.atom_orbits]) + packing.shifts
    separations = atoms[contacts.atoms] + contacts.images - positions[contacts.orbits]
    distances = np.maximum(_lengths(separations), _OVERLAP_GUARD)
    strengths = -np.maximum(sigma - distances, 0.0) / distances
    forces = np.stack(
        [np.bincount(contacts.orbits, strengths * separations[:, axis], len(positions)) for axis in range(3)], axis=1
    )
    return apply_rows(packing.projectors, forces)


def apply_rows(matrices: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """rows[i] @ matrices[i], written out: a library product may round differently from batch to batch."""
    return (
        rows[:, 0, None] * matrices[:, 0, :]
        + rows[:, 1, None] * matrices[:, 1, :]
        + rows[:, 2, None] * matrices[:, 2, :]
    )


def projectors(directions: np.ndarray, n_free: np.ndarray) -> np.ndarray:
    """Projectors onto the span of the first `n_free` rows of each of `directions`, shape (R, 3, 3).

    `directions` are Cartesian, shape (R, 3, 3), `n_free` is 0 to 3, shape (R,).
    """
    identity = np.eye(3)
    first = directions[:, 0]
    normal = np.cross(first, directions[:, 1])
    found = np.zeros_like(directions)
    for count, vectors, sign in ((1, first, 1.0), (2, normal, -1.0)):
        chosen = n_free == count
        unit = vectors[chosen] / _lengths(vectors[chosen])[:, None]
        found[chosen] = sign * unit[:, :, None] * unit[:, None, :]
    found[n_free >= 2] += identity
    return found


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    product: np.ndarray = first[:, 0] * second[:, 0] + first[:, 1] * second[:, 1] + first[:, 2] * second[:, 2]
    return product


def _lengths(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.sqrt(_dot(vectors, vectors))
    return lengths
