"""Compositions as candidates: a seeded stream of plausible new formulas over chemical systems.

The stream is a list of chemical systems, each answered by itself: all formulas that the rule accepts, without the
known ones. Shard i of n takes every n-th system of the list. What a system gives depends on its elements, the
settings, the known formulas and the seed alone, so that the union over the shards is the same for any number of
them, and any shard can be redone, or taken up at any system, without the rest.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import MAX_ATOMIC_NUMBER
from opengnome.errors import SettingsError
from opengnome.generation.charge_rule import accepted
from opengnome.generation.composition_assignment import assigned_states
from opengnome.generation.composition_enumeration import enumerate_counts, n_count_vectors, reduced_counts
from opengnome.generation.composition_settings import CompositionRuleSettings, CompositionSettings
from opengnome.generation.composition_states import EITHER, element_table
from opengnome.generation.composition_systems import n_systems, shuffled, system_at
from opengnome.generation.novelty import composition_keys, is_known

METHOD = "composition"

COMPOSITION_FATES = ("implausible", "composition already known", "over the cap per system", "kept")
"""What becomes of a proposed formula, in the order of the checks."""


@dataclass(frozen=True, eq=False)
class CompositionBatch:
    """New formulas of a run of chemical systems."""

    atomic_numbers: np.ndarray
    """Elements, ascending, then zeros; shape (m, max_elements), int16."""
    counts: np.ndarray
    """Atoms of each in the reduced formula, then zeros; same shape, int16."""
    positions: np.ndarray
    """Place of each formula's chemical system in the whole stream, shape (m,)."""
    fates: dict[str, int]
    """``proposed``, then `COMPOSITION_FATES`; proposed is the sum of the others. Every reduced formula of a
    system counts as proposed; of a system that is drawn from, every distinct formula drawn."""
    next_start: int
    """Systems of this shard that are done: give it as `start` to go on after this batch."""

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def keys(self) -> np.ndarray:
        """As `novelty.composition_keys`, shape (m,)."""
        return composition_keys(self.atomic_numbers, self.counts)

    def take(self, rows: np.ndarray) -> "CompositionBatch":
        """Some of the formulas, e.g. those with the lowest predicted energies; `fates` stay those of the batch."""
        return replace(
            self, atomic_numbers=self.atomic_numbers[rows], counts=self.counts[rows], positions=self.positions[rows]
        )

    def composition(self, row: int) -> Composition:
        """One of the compositions."""
        pairs = zip(self.atomic_numbers[row].tolist(), self.counts[row].tolist(), strict=True)
        return Composition(tuple((z, count) for z, count in pairs if count))


def composition_batches(
    settings: CompositionSettings,
    elements: Sequence[int],
    *,
    known_keys: np.ndarray,
    seed: int,
    shard: int = 0,
    n_shards: int = 1,
    start: int = 0,
    systems_per_batch: int = 64,
) -> Iterator[CompositionBatch]:
    """Batches of new formulas of one shard, in its fixed order.

    `elements` are the allowed atomic numbers (those without oxidation states take no part); `known_keys` are
    sorted keys as of `novelty.known_composition_keys`; `start` leaves out that many systems of the shard. Memory
    is that of one batch. Raises `SettingsError` when an element, the shard or `start` does not exist, or when
    there are fewer usable elements than `min_elements`.
    """
    usable = _usable_elements(elements)
    if len(usable) < settings.min_elements:
        raise SettingsError(
            f"{len(usable)} elements with oxidation states are allowed, min_elements={settings.min_elements} are "
            "needed; allow more elements"
        )
    if not 0 <= shard < n_shards or start < 0 or systems_per_batch < 1:
        raise SettingsError(
            f"{shard=} must be from 0 to n_shards - 1 ({n_shards=}), {start=} not below 0 and "
            f"{systems_per_batch=} not below 1"
        )
    return _batches(settings, usable, known_keys, seed, shard, n_shards, start, systems_per_batch)


def count_systems(settings: CompositionSettings, elements: Sequence[int]) -> int:
    """Length of the stream of all shards together, in chemical systems."""
    return n_systems(len(_usable_elements(elements)), settings.min_elements, settings.max_elements)


def system_compositions(
    system: Sequence[int], settings: CompositionSettings, *, known_keys: np.ndarray, seed: int
) -> tuple[np.ndarray, dict[str, int]]:
    """Counts of the new formulas with all elements of one system, shape (m, len(system)), and their fates.

    The order of the columns is that of `system`; rows ascend. A pure function of its arguments.
    """
    elements = np.array(system)
    rng = np.random.default_rng(system_seed(seed, system))
    if n_count_vectors(len(elements), settings.max_atoms) <= settings.max_enumerated:
        n_proposed = len(reduced_counts(len(elements), settings.max_atoms))
        counts = enumerate_counts(elements, max_atoms=settings.max_atoms, rule=settings.rule)
    else:
        drawn = draw_counts(len(elements), settings.max_atoms, settings.n_draws, rng)
        n_proposed = len(drawn)
        counts = drawn[accepted(np.broadcast_to(elements, drawn.shape), drawn, settings.rule)]
    new = counts[~is_known(composition_keys(np.broadcast_to(elements, counts.shape), counts), known_keys)]
    kept = new
    if settings.max_per_system is not None and len(new) > settings.max_per_system:
        kept = new[np.sort(rng.choice(len(new), settings.max_per_system, replace=False))]
    fates = (n_proposed - len(counts), len(counts) - len(new), len(new) - len(kept), len(kept))
    return kept, {"proposed": n_proposed, **dict(zip(COMPOSITION_FATES, fates, strict=True))}


def system_seed(seed: int, system: Sequence[int]) -> int:
    """Seed of everything drawn for one chemical system: a hash of the seed and its elements."""
    identity = f"{seed}|{'-'.join(map(str, sorted(system)))}"
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")


def draw_counts(n_elements: int, max_atoms: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct reduced count vectors, rows ascending, shape (m, n_elements), m <= n_draws.

    The differences of n random marks out of 1..max_atoms make every count vector of at most `max_atoms` atoms
    equally likely; those with a common divisor are left out.
    """
    marks = np.argpartition(rng.random((n_draws, max_atoms)), n_elements - 1, axis=1)[:, :n_elements] + 1
    counts = np.diff(np.sort(marks, axis=1), axis=1, prepend=0)
    return np.unique(counts[np.gcd.reduce(counts, axis=1) == 1], axis=0)


def formula_table(batch: CompositionBatch, rule: CompositionRuleSettings, *, seed: int) -> pa.Table:
    """The formulas of a batch with where they come from, a row each.

    Columns: id (``comp-<reduced formula>``), reduced_formula, chemical_system, n_elements, n_atoms (of the reduced
    formula), method, states (as `assigned_states`; null for a rule without ions), position (of the chemical
    system in the stream) and seed. The states take about half a millisecond a row: `take` what is wanted first.
    """
    compositions = [batch.composition(row) for row in range(len(batch))]
    formulas = [composition.reduced_formula for composition in compositions]
    states = [assigned_states(composition, rule) if rule.require_ions else None for composition in compositions]
    return pa.table(
        {
            "id": pa.array([f"comp-{formula}" for formula in formulas], pa.string()),
            "reduced_formula": pa.array(formulas, pa.string()),
            "chemical_system": pa.array([c.chemical_system for c in compositions], pa.string()),
            "n_elements": pa.array([c.n_elements for c in compositions], pa.int16()),
            "n_atoms": pa.array([c.n_atoms for c in compositions], pa.int32()),
            "method": pa.array([METHOD] * len(batch), pa.string()),
            "states": pa.array(states, pa.string()),
            "position": pa.array(batch.positions, pa.int64()),
            "seed": pa.array([seed] * len(batch), pa.int64()),
        }
    )


def _usable_elements(elements: Sequence[int]) -> tuple[int, ...]:
    numbers = sorted({int(z) for z in elements})
    wrong = [z for z in numbers if not 1 <= z <= MAX_ATOMIC_NUMBER]
    if wrong:
        raise SettingsError(f"atomic numbers {wrong} are outside 1..{MAX_ATOMIC_NUMBER}")
    return tuple(z for z in numbers if element_table().n_states[EITHER, z])


def _batches(
    settings: CompositionSettings,
    elements: tuple[int, ...],
    known_keys: np.ndarray,
    seed: int,
    shard: int,
    n_shards: int,
    start: int,
    systems_per_batch: int,
) -> Iterator[CompositionBatch]:
    total = n_systems(len(elements), settings.min_elements, settings.max_elements)
    in_shard = len(range(shard, total, n_shards))
    for first in range(start, in_shard, systems_per_batch):
        last = min(first + systems_per_batch, in_shard)
        positions = [shard + n_shards * step for step in range(first, last)]
        yield _batch(settings, elements, known_keys, seed, total, positions, last)


def _batch(
    settings: CompositionSettings,
    elements: tuple[int, ...],
    known_keys: np.ndarray,
    seed: int,
    total: int,
    positions: list[int],
    next_start: int,
) -> CompositionBatch:
    fates = dict.fromkeys(("proposed", *COMPOSITION_FATES), 0)
    found = []
    for position in positions:
        index = shuffled(position, total, seed) if settings.order == "shuffled" else position
        system = system_at(index, elements, settings.min_elements, settings.max_elements)
        counts, own_fates = system_compositions(system, settings, known_keys=known_keys, seed=seed)
        fates = {name: number + own_fates[name] for name, number in fates.items()}
        found.append((position, system, counts))
    shape = (fates["kept"], settings.max_elements)
    numbers, amounts = np.zeros(shape, dtype=np.int16), np.zeros(shape, dtype=np.int16)
    places = np.repeat([position for position, _, _ in found], [len(counts) for _, _, counts in found])
    row = 0
    for _, system, counts in found:
        rows = slice(row, row + len(counts))
        numbers[rows, : len(system)] = system
        amounts[rows, : len(system)] = counts
        row += len(counts)
    return CompositionBatch(numbers, amounts, places.astype(np.int64), fates, next_start)
