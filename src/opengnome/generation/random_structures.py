"""Random crystals of a composition: sensible starting points for relaxations (structure search as in AIRSS).

The recipe is that of Pickard and Needs (2011), doi:10.1088/0953-8984/23/5/053201: a random number of formula
units, a random space group, a random cell of about the right volume, atoms at random on its Wyckoff positions,
and no two atoms closer than their elements come in known crystals. Volumes are scanned from 0.4 to 1.2 of the
estimate, as in the paper (doi:10.1038/s41586-023-06735-9, Methods, "AIRSS"). Overlaps are removed by packing
soft spheres within the symmetry, and where that is not enough by letting the cell grow.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import moyopy
import numpy as np
import pyarrow as pa

from opengnome.crystals import Crystal, CrystalTable, digest
from opengnome.crystals.composition import Composition
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.generation.minimum_distances import given_pairs, minimum_distances
from opengnome.generation.radii import COVALENT_RADII
from opengnome.generation.random_lattices import random_lattice
from opengnome.generation.random_packing import Packing, PackingResult, apply_rows, pack, projectors
from opengnome.generation.random_settings import RandomStructureSettings
from opengnome.generation.volume_estimate import volume_estimate
from opengnome.generation.wyckoff import (
    N_SPACE_GROUPS,
    Placement,
    SpaceGroup,
    can_place,
    random_placement,
    space_group,
)

METHOD = "random_structure"
_ID_PREFIX = "rss"
_DIGEST_LENGTH = 10
_BATCH, _BATCH_PAIRS = 128, 150_000
"""Crystals packed together, and pairs of their atoms; results do not depend on it, speed and memory do."""
_AHEAD = 24
"""Attempts worth making at once: a smaller batch takes nearly as long."""
_EVEN_STEPS = (0.7548776662466927, 0.5698402909980532)
"""Multiples of the two modulo one fill the unit square evenly (the plastic number's inverse and its square)."""
_LAST_RESORT_ROUNDS = 40
_MAX_GROUP_DRAWS = 2000


def random_crystals(
    composition: Composition, settings: RandomStructureSettings, *, seed: int, start: int = 0, stop: int
) -> CrystalTable:
    """Random crystals number `start` to `stop` (not included) of a composition.

    Each is a pure function of the reduced composition, the settings, `seed` and its number, so any cut of
    the numbers into batches gives the same crystals. The cell is a Niggli-reduced one of the group's
    primitive lattice. Columns beside those of every table:

    - ``method``: ``random_structure``; ``seed`` and ``number`` of the crystal;
    - ``n_formula_units`` per cell;
    - ``asked_space_group``: the group it was made in; symmetry may come out higher, never lower;
    - ``asked_volume_scale`` and ``volume_scale``: volume over the estimate, asked for and after any growth;
    - ``n_attempts``: draws until the packing succeeded; one above ``max_attempts`` for the last resort
      (no symmetry, cell as large as needed).

    The distances that hold are `CompositionRules.min_distances_at` the volume scale asked for.

    Raises `InvalidCrystalError` when an element has no tabulated volume or a minimum distance is given for
    no pair of elements, `SettingsError` when no formula unit fits into `max_atoms`, or ``start > stop``.
    """
    if not 0 <= start <= stop:
        raise SettingsError(f"{start=} must not be negative nor above {stop=}")
    recipe = _Recipe.of(composition, settings, seed)
    made: list[_Made] = []
    batch = recipe.batch_size()
    for first in range(start, stop, batch):
        made += _make(recipe, range(first, min(first + batch, stop)))
    return _table(recipe, made)


def random_structure_shards(
    compositions: Sequence[Composition],
    settings: RandomStructureSettings,
    *,
    seed: int,
    per_composition: int = 100,
    first_shard: int = 0,
) -> Iterator[CrystalTable]:
    """One table per composition, `per_composition` crystals each, from shard `first_shard` on.

    Shard i is a pure function of composition i, the settings and the seed: resume by starting at the
    first shard that is missing, and give shards to as many workers as there are. Raises as `random_crystals`.
    """
    for composition in compositions[first_shard:]:
        yield random_crystals(composition, settings, seed=seed, stop=per_composition)


def keeps_coming_back(energies: Sequence[float], *, tolerance: float, times: int) -> bool:
    """Whether the lowest of the energies (eV/atom) has been reached `times` times within `tolerance` (eV/atom).

    The sign that a search has found what it can find; energies that are not finite (failed relaxations)
    do not count.
    """
    if times < 1 or tolerance < 0:
        raise SettingsError(f"{times=} must be at least 1 and {tolerance=} eV/atom not negative")
    finite = np.asarray(energies, dtype=float)
    finite = finite[np.isfinite(finite)]
    return bool(len(finite) and np.count_nonzero(finite <= finite.min() + tolerance) >= times)


# --- One composition --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class CompositionRules:
    """What the settings come to for one composition."""

    atomic_numbers: np.ndarray
    """Of the elements, ascending, shape (E,)."""
    volume_per_atom: float
    """The estimate, A^3."""
    min_distances: np.ndarray
    """At the estimated volume, A, shape (E, E)."""
    smallest_distances: np.ndarray
    """Below which they do not shrink, A, shape (E, E)."""
    unit_numbers: tuple[int, ...]
    """Numbers of formula units that fit."""

    def min_distances_at(self, volume_scale: float) -> np.ndarray:
        """Minimum distances in a cell that is asked to have this volume over the estimate, A, shape (E, E).

        They shrink with the edges of the cell, down to the smallest ones: if those at the estimated volume
        held in a small cell it could only grow, and the scan of volumes would be none. Above the estimate they
        stay.
        """
        shrunk: np.ndarray = np.maximum(self.min_distances * min(1.0, volume_scale) ** (1 / 3), self.smallest_distances)
        return shrunk


def composition_rules(composition: Composition, settings: RandomStructureSettings) -> CompositionRules:
    """Volume, distances and numbers of formula units for a composition; raises as `random_crystals`."""
    reduced = composition.reduced
    numbers = np.array(reduced.atomic_numbers)
    most = min(settings.max_formula_units, settings.max_atoms // reduced.n_atoms)
    if most < settings.min_formula_units:
        raise SettingsError(
            f"{settings.min_formula_units} formula units of {reduced.reduced_formula} have "
            f"{settings.min_formula_units * reduced.n_atoms} atoms, more than max_atoms={settings.max_atoms}; "
            "raise max_atoms"
        )
    radii = COVALENT_RADII[numbers]
    smallest = settings.min_covalent_fraction * (radii[:, None] + radii)
    distances = minimum_distances(numbers, fraction=settings.distance_fraction, given=settings.min_distances)
    given = given_pairs(numbers, settings.min_distances)
    return CompositionRules(
        atomic_numbers=numbers,
        volume_per_atom=settings.volume_per_atom or volume_estimate(reduced).volume_per_atom,
        min_distances=np.where(given, distances, np.maximum(distances, smallest)),
        smallest_distances=np.where(given, distances, smallest),
        unit_numbers=tuple(range(settings.min_formula_units, most + 1)),
    )


def can_be_packed(composition: Composition, settings: RandomStructureSettings) -> bool:
    """Whether `random_crystals` can make crystals of a composition: not of more atoms than a cell may have, nor of
    elements of whose compounds no volume is known.
    """
    try:
        composition_rules(composition, settings)
    except (InvalidCrystalError, SettingsError):
        return False
    return True


@dataclass(frozen=True, eq=False)
class _Recipe:
    """What all crystals of one call share."""

    composition: Composition
    """Reduced."""
    settings: RandomStructureSettings
    seed: int
    identity: int
    """Hash of the seed and the composition, the start of every random stream."""
    rules: CompositionRules

    @classmethod
    def of(cls, composition: Composition, settings: RandomStructureSettings, seed: int) -> "_Recipe":
        reduced = composition.reduced
        content = hashlib.sha256(f"{seed}|{reduced.counts}".encode()).digest()
        identity = int.from_bytes(content[:16], "big")
        return cls(reduced, settings, seed, identity, composition_rules(reduced, settings))

    def volume_scale(self, number: int) -> float:
        """Volume asked for over the estimate: an even scan that starts somewhere else for each seed."""
        low, high = self.settings.volume_scales
        return low + (high - low) * self._even(number, 0)

    def is_p1(self, number: int) -> bool:
        """Whether the crystal is to have no symmetry; evenly spread over the scan of volumes."""
        return self._even(number, 1) < self.settings.p1_share

    def n_units(self, number: int) -> int:
        """Formula units, each number in turn."""
        return self.rules.unit_numbers[number % len(self.rules.unit_numbers)]

    def batch_size(self) -> int:
        """Crystals to pack together."""
        most_atoms = self.rules.unit_numbers[-1] * self.composition.n_atoms
        return max(1, min(_BATCH, _BATCH_PAIRS // most_atoms**2))

    def _even(self, number: int, dimension: int) -> float:
        start = (self.identity >> (32 * dimension)) % 2**32 / 2**32
        return (start + number * _EVEN_STEPS[dimension]) % 1.0


@dataclass(frozen=True, eq=False)
class _Draft:
    """A crystal before packing."""

    number: int
    attempt: int
    """1, 2, ..."""
    n_units: int
    group: SpaceGroup
    placement: Placement
    volume_scale: float
    lattice: np.ndarray
    """Primitive vectors as rows, A, shape (3, 3)."""
    sites: np.ndarray
    """Fractional coordinates of the first atom of each orbit, shape (n_orbits, 3)."""


@dataclass(frozen=True, eq=False)
class _Made:
    """A crystal after packing."""

    draft: _Draft
    crystal: Crystal
    growth: float
    """Its volume over the one asked for."""


def _make(recipe: _Recipe, numbers: Sequence[int]) -> list[_Made]:
    """The crystals of these numbers: drawn, packed together, and drawn again where the packing failed.

    When few are left, several attempts of each are made at once, of which the first that succeeds counts.
    """
    made: dict[int, _Made] = {}
    settings = recipe.settings
    attempt, pending = 1, list(numbers)
    ahead = min(_AHEAD, recipe.batch_size())
    while pending:
        last_resort = attempt > settings.max_attempts
        n_ahead = 1 if last_resort else min(max(1, ahead // len(pending)), settings.max_attempts + 1 - attempt)
        drafts = [_draft(recipe, number, attempt + i) for number in pending for i in range(n_ahead)]
        packing = _packing(recipe, drafts)
        result = pack(
            packing,
            n_rounds=_LAST_RESORT_ROUNDS if last_resort else settings.packing_rounds,
            n_steps=settings.packing_steps,
            max_growth=np.inf if last_resort else settings.max_growth,
            growth_per_round=settings.growth_per_round,
        )
        for finished in _finished(recipe, drafts, packing, result):
            made.setdefault(finished.draft.number, finished)
        attempt += n_ahead
        pending = [number for number in pending if number not in made]
    return [made[number] for number in numbers]


def _draft(recipe: _Recipe, number: int, attempt: int) -> _Draft:
    rng = np.random.default_rng([recipe.identity, number, attempt])
    settings, n_units = recipe.settings, recipe.n_units(number)
    counts = tuple(count * n_units for _, count in recipe.composition.counts)
    without_symmetry = attempt > settings.max_attempts or recipe.is_p1(number)
    group = space_group(1 if without_symmetry else _random_group(settings.space_groups, counts, rng))
    placement = random_placement(group.number, counts, rng)
    assert placement is not None, f"space group {group.number} was found to hold {counts}"
    scale = recipe.volume_scale(number)
    volume = scale * recipe.rules.volume_per_atom * sum(counts)
    shortest = max(
        settings.min_shortest_vector * volume ** (1 / 3), float(recipe.rules.min_distances_at(scale).diagonal().max())
    )
    lattice = random_lattice(group, volume=volume, min_shortest=shortest, rng=rng)
    positions = [group.positions[i] for i in placement.positions]
    parameters = rng.random((len(positions), 3))
    sites = [p.origin + p.basis @ u[: p.n_free] for p, u in zip(positions, parameters, strict=True)]
    return _Draft(number, attempt, n_units, group, placement, scale, lattice, np.array(sites))


def _random_group(allowed: tuple[int, ...] | None, counts: tuple[int, ...], rng: np.random.Generator) -> int:
    """One of the allowed groups (all but P1 when none are given) that can hold the atoms; P1 when none can."""
    numbers = allowed or tuple(range(2, N_SPACE_GROUPS + 1))
    for _ in range(_MAX_GROUP_DRAWS):  # so that few groups need their positions derived
        number = numbers[int(rng.random() * len(numbers))]
        if can_place(number, counts):
            return number
    return 1


def _packing(recipe: _Recipe, drafts: Sequence[_Draft]) -> Packing:
    """The drafts as flat arrays."""
    orbits = [(i, draft.group.positions[p]) for i, draft in enumerate(drafts) for p in draft.placement.positions]
    positions = [position for _, position in orbits]
    orbit_crystals = np.array([i for i, _ in orbits])
    sizes = np.array([position.multiplicity for position in positions])
    lattices = np.stack([draft.lattice for draft in drafts])
    reduced = np.array([moyopy.minkowski_reduce(lattice)[0] for lattice in lattices.tolist()])
    atom_orbits = np.repeat(np.arange(len(orbits)), sizes)
    of_atoms = lattices[orbit_crystals[atom_orbits]]
    rotations = np.concatenate([position.rotations for position in positions]).swapaxes(1, 2)
    translations = np.concatenate([position.translations for position in positions])
    bases = np.stack([position.padded_basis for position in positions])
    n_free = np.array([position.n_free for position in positions])
    return Packing(
        lattices=reduced,
        min_distances=np.stack([recipe.rules.min_distances_at(draft.volume_scale) for draft in drafts]),
        orbit_crystals=orbit_crystals,
        orbit_elements=np.array([element for draft in drafts for element in draft.placement.elements]),
        orbit_sizes=sizes,
        positions=apply_rows(lattices[orbit_crystals], np.concatenate([draft.sites for draft in drafts])),
        projectors=projectors(bases.swapaxes(1, 2) @ lattices[orbit_crystals], n_free),
        atom_orbits=atom_orbits,
        rotations=np.linalg.inv(of_atoms) @ rotations @ of_atoms,
        shifts=apply_rows(of_atoms, translations),
        growth=np.ones(len(drafts)),
    )


def _finished(recipe: _Recipe, drafts: Sequence[_Draft], packing: Packing, result: PackingResult) -> Iterator[_Made]:
    """The crystals whose packing succeeded."""
    grown = replace(packing.grown(result.growth), positions=result.positions)
    atoms = grown.atoms()
    atom_crystals = grown.orbit_crystals[grown.atom_orbits]
    elements = recipe.rules.atomic_numbers[grown.orbit_elements[grown.atom_orbits]]
    ends = np.cumsum(np.bincount(atom_crystals, minlength=len(drafts)))
    for row in np.flatnonzero(result.succeeded).tolist():
        own = slice(ends[row - 1] if row else 0, ends[row])
        lattice = np.array(moyopy.niggli_reduce(grown.lattices[row].tolist())[0])
        fractional = atoms[own] @ np.linalg.inv(lattice) % 1.0
        fractional[fractional == 1.0] = 0.0  # a coordinate just below zero
        order = np.argsort(elements[own], kind="stable")
        crystal = Crystal(lattice, fractional[order], elements[own][order])
        yield _Made(drafts[row], crystal, float(result.growth[row]))


def _table(recipe: _Recipe, made: Sequence[_Made]) -> CrystalTable:
    formula = recipe.composition.reduced_formula
    drafts = [crystal.draft for crystal in made]
    return CrystalTable.from_crystals(
        [crystal.crystal for crystal in made],
        [f"{_ID_PREFIX}-{formula}-{digest(crystal.crystal)[:_DIGEST_LENGTH]}" for crystal in made],
        {
            "method": pa.array([METHOD] * len(made), pa.string()),
            "seed": pa.array([recipe.seed] * len(made), pa.int64()),
            "number": pa.array([draft.number for draft in drafts], pa.int64()),
            "n_formula_units": pa.array([draft.n_units for draft in drafts], pa.int32()),
            "asked_space_group": pa.array([draft.group.number for draft in drafts], pa.int32()),
            "asked_volume_scale": pa.array([draft.volume_scale for draft in drafts], pa.float64()),
            "volume_scale": pa.array([c.draft.volume_scale * c.growth for c in made], pa.float64()),
            "n_attempts": pa.array([draft.attempt for draft in drafts], pa.int32()),
        },
    )
