"""Same or new, for whole tables: which rows are one crystal, and which polymorphs a composition really has.

Rows of one composition and one number of atoms in the primitive cell are compared: up to three by matching every
pair, more in three steps, the cheap ones first. Equal fingerprints are merged; pairs whose radial profiles are far
apart are left out; the rest is matched, closest profiles first, except where two rows are already joined. The
clusters are the connected components of the graph of matches (as in Merchant et al.,
doi:10.1038/s41586-023-06735-9), which depend neither on the order of the rows nor on the number of processes.
"""

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from multiprocessing import get_context

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from opengnome.crystals.crystal import Crystal
from opengnome.crystals.identity import reduced_fingerprint
from opengnome.crystals.matching import DEFAULT_TOLERANCES, MatchTolerances, match_structures
from opengnome.crystals.radial import N_PARTS, profile_distance, radial_profiles
from opengnome.crystals.reduction import ReducedCrystal, reduce_crystal
from opengnome.crystals.table import STRUCTURE_COLUMNS, CrystalTable, unreadable_rows
from opengnome.errors import InvalidCrystalError, SettingsError

OK, INVALID = "ok", "invalid_crystal"
UNIQUE, KEPT, EXACT, MATCH = "unique", "representative", "exact", "match"

PROFILE_TOLERANCE = 0.25
"""Profiles further apart than this (atomic spacings) are not matched: of 606 matches among 8,271 pairs of Materials
Project polymorphs the furthest was 0.232, 99.9 % were within 0.183."""

_EXACT_DISPLACEMENT = 1e-3
"""A match in which no atom is further off (atomic spacings), nor the volume by this share, is an exact one."""
_FEW_MEMBERS = 3
"""Up to this number, all pairs are matched."""
_MANY_ELEMENTS = 256
_ROWS_PER_TASK = 2_000
"""Rows that a process is given at once."""


@dataclass(frozen=True, eq=False)
class Deduplication:
    """What each row of a table is; all of length n_rows."""

    representative: np.ndarray
    """Row that stands for the cluster of this row; its own number where it stands for itself; int64."""
    step: tuple[str, ...]
    """`unique` (alone), `representative` (of others), or how the row was joined to its cluster: `exact` (the same
    cell up to its description) or `match` (the same within the tolerances)."""
    status: tuple[str, ...]
    """`ok`, or `invalid_crystal` for a row that could not be compared; it is a cluster of its own."""
    reason: tuple[str, ...]
    """Why not; empty where the status is `ok`."""

    @property
    def kept(self) -> np.ndarray:
        """The representatives in order, shape (n_clusters,)."""
        return np.flatnonzero(self.representative == np.arange(len(self.representative)))

    @property
    def cluster(self) -> np.ndarray:
        """Number of the cluster of each row, counted in the order of the representatives; shape (n_rows,)."""
        return np.searchsorted(self.kept, self.representative)

    @property
    def cluster_size(self) -> np.ndarray:
        """Rows in the cluster of each row, shape (n_rows,)."""
        return np.bincount(self.representative, minlength=len(self.representative))[self.representative]


def deduplicate(
    table: CrystalTable,
    *,
    energies: ArrayLike | None = None,
    tolerances: MatchTolerances = DEFAULT_TOLERANCES,
    profile_tolerance: float = PROFILE_TOLERANCE,
    workers: int = 1,
) -> Deduplication:
    """Clusters of rows that are the same crystal.

    Each is represented by its first row, or by the one lowest in `energies` (per atom, shape (n_rows,), NaN where
    unknown). More than one of `workers` divides the work among processes; the result is the same.
    A row that is no crystal, or cannot be compared, stays a cluster of its own with a reason.
    Raises `SettingsError` when the number of energies is not that of rows.
    """
    if workers < 0:
        raise SettingsError(f"{workers=} must be zero (all cores) or positive")
    better = _preference(len(table), energies)
    reasons = unreadable_rows(table)
    representative = np.arange(len(table))
    step = [UNIQUE] * len(table)
    buckets = [rows for rows in _buckets(table, reasons) if len(rows) > 1]
    for rows, outcome in _settled(table, buckets, tolerances, profile_tolerance, workers):
        reasons |= {int(rows[i]): reason for i, reason in outcome.reasons.items()}
        for members in _groups(outcome.cluster):
            if len(members) == 1:
                continue
            best = members[better[rows[members]].argmin()]
            representative[rows[members]] = rows[best]
            for i in members.tolist():
                is_exact = outcome.exact_class[i] == outcome.exact_class[best]
                step[rows[i]] = KEPT if i == best else EXACT if is_exact else MATCH
    return Deduplication(
        representative,
        tuple(step),
        tuple(INVALID if row in reasons else OK for row in range(len(table))),
        tuple(reasons.get(row, "") for row in range(len(table))),
    )


@dataclass(frozen=True, eq=False)
class PolymorphRanking:
    """The polymorphs of each composition of a table, by energy; all of length n_rows."""

    rank: np.ndarray
    """1 for the lowest polymorph of its composition, 2 for the next; 0 where a row is not one; int64."""
    representative: np.ndarray
    """The polymorph that this row is, by row number: the lowest of its cluster. Its own number where it was not
    compared."""
    status: tuple[str, ...]
    """`ok`, `invalid_crystal`, or `no_energy`."""
    reason: tuple[str, ...]
    """Why a row has rank 0, or could not be compared; empty for a polymorph."""

    @property
    def kept(self) -> np.ndarray:
        """Rows of the polymorphs, in order."""
        return np.flatnonzero(self.rank > 0)


def rank_polymorphs(
    table: CrystalTable,
    energy_column: str,
    *,
    top_k: int = 100,
    tolerances: MatchTolerances = DEFAULT_TOLERANCES,
    profile_tolerance: float = PROFILE_TOLERANCE,
    workers: int = 1,
) -> PolymorphRanking:
    """The distinct polymorphs among the `top_k` rows of lowest energy of each composition.

    `energy_column` is in eV per atom. Of a cluster of rows that are one crystal the lowest is kept; the paper
    ranks the structures of a composition so (Merchant et al., doi:10.1038/s41586-023-06735-9).
    Raises `InvalidCrystalError` when there is no such column, `SettingsError` when `top_k` is not positive.
    """
    if top_k < 1:
        raise SettingsError(f"{top_k=} must be positive")
    energies = np.array([np.nan if e is None else e for e in table.column(energy_column)], dtype=np.float64)
    reasons = unreadable_rows(table)
    status = [INVALID if row in reasons else OK for row in range(len(table))]
    for row in np.flatnonzero(~np.isfinite(energies)).tolist():
        if status[row] == OK:
            status[row], reasons[row] = "no_energy", f"the column {energy_column!r} has no energy for it"
    lowest: list[np.ndarray] = []
    for rows in _buckets(table, reasons):
        by_energy = rows[np.argsort(energies[rows], kind="stable")]
        lowest.append(by_energy[:top_k])
        reasons |= dict.fromkeys(by_energy[top_k:].tolist(), f"not among the {top_k} lowest of its composition")
    chosen = np.sort(np.concatenate(lowest)) if lowest else np.empty(0, dtype=np.int64)
    found = deduplicate(
        table.take(chosen),
        energies=energies[chosen],
        tolerances=tolerances,
        profile_tolerance=profile_tolerance,
        workers=workers,
    )
    representative = np.arange(len(table))
    representative[chosen] = chosen[found.representative]
    for row, row_status, reason in zip(chosen.tolist(), found.status, found.reason, strict=True):
        if row_status != OK:
            status[row], reasons[row] = row_status, reason
    rank = np.zeros(len(table), dtype=np.int64)
    for by_energy in lowest:
        polymorphs = by_energy[representative[by_energy] == by_energy]
        rank[polymorphs] = np.arange(1, len(polymorphs) + 1)
    for row in np.flatnonzero(representative != np.arange(len(table))).tolist():
        reasons[row] = f"the same crystal as row {representative[row]}, which is lower"
    return PolymorphRanking(
        rank, representative, tuple(status), tuple(reasons.get(row, "") for row in range(len(table)))
    )


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Which rows of one composition are the same; arrays of shape (n_rows,)."""

    cluster: np.ndarray
    exact_class: np.ndarray
    reasons: dict[int, str]
    """Rows that could not be compared."""


class _Components:
    """Connected components of a graph that grows by edges: the label of each node, always up to date."""

    def __init__(self, n_nodes: int) -> None:
        self.labels = np.arange(n_nodes)

    def join(self, first: int, second: int) -> None:
        low, high = sorted((int(self.labels[first]), int(self.labels[second])))
        self.labels[self.labels == high] = low


def _preference(n_rows: int, energies: ArrayLike | None) -> np.ndarray:
    """Place of each row in the order in which rows are preferred as representatives, shape (n_rows,)."""
    place = np.arange(n_rows)
    if energies is None:
        return place
    values = np.asarray(energies, dtype=np.float64)
    if values.shape != (n_rows,):
        raise SettingsError(f"energies of shape {values.shape} for {n_rows} rows; give one energy per atom for each")
    place[np.argsort(values, kind="stable")] = np.arange(n_rows)  # NaN goes last
    return place


def _buckets(table: CrystalTable, excluded: Container[int]) -> list[np.ndarray]:
    """Rows of one stoichiometry each, whatever the table calls it; in the order of their first rows."""
    row_of_atom = np.repeat(np.arange(len(table)), table.n_atoms)
    # Of excluded rows the numbers may be anything; they only must not reach into another row.
    pairs, counts = np.unique(
        row_of_atom * _MANY_ELEMENTS + table.flat_atomic_numbers % _MANY_ELEMENTS, return_counts=True
    )
    rows, elements = pairs // _MANY_ELEMENTS, pairs % _MANY_ELEMENTS
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    divisors = np.gcd.reduceat(counts, starts) if len(starts) else counts
    reduced = counts // np.repeat(divisors, np.diff(starts, append=len(rows)))
    formulas = np.stack([elements, reduced], axis=1)
    found: dict[bytes, list[int]] = {}
    for start, end in pairwise([*starts.tolist(), len(rows)]):
        row = int(rows[start])
        if row not in excluded:
            found.setdefault(formulas[start:end].tobytes(), []).append(row)
    return [np.array(bucket) for bucket in found.values()]


def _groups(labels: np.ndarray) -> list[np.ndarray]:
    """Positions of each label."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _settled(
    table: CrystalTable,
    buckets: Sequence[np.ndarray],
    tolerances: MatchTolerances,
    profile_tolerance: float,
    workers: int,
) -> Iterator[tuple[np.ndarray, _Outcome]]:
    """The outcome of each bucket."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        for rows in buckets:
            yield rows, _settle([table[row] for row in rows.tolist()], tolerances, profile_tolerance)
        return
    tasks = list(_tasks(buckets))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(
                _settle_part,
                CrystalTable(table.arrow.select(STRUCTURE_COLUMNS)).take(np.concatenate(task)),
                [len(rows) for rows in task],
                tolerances,
                profile_tolerance,
            )
            for task in tasks
        ]
        for task, future in zip(tasks, futures, strict=True):
            yield from zip(task, future.result(), strict=True)


def _tasks(buckets: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Buckets in lots of about `_ROWS_PER_TASK` rows."""
    task: list[np.ndarray] = []
    n_rows = 0
    for rows in buckets:
        task.append(rows)
        n_rows += len(rows)
        if n_rows >= _ROWS_PER_TASK:
            yield task
            task, n_rows = [], 0
    if task:
        yield task


def _settle_part(
    table: CrystalTable, sizes: Sequence[int], tolerances: MatchTolerances, profile_tolerance: float
) -> list[_Outcome]:
    """The outcomes of buckets that stand one after another in a table."""
    ends = np.cumsum(sizes).tolist()
    return [
        _settle([table[row] for row in range(end - size, end)], tolerances, profile_tolerance)
        for size, end in zip(sizes, ends, strict=True)
    ]


def _settle(crystals: Sequence[Crystal], tolerances: MatchTolerances, profile_tolerance: float) -> _Outcome:
    """Which crystals of one composition are the same."""
    clusters, exact, reasons = _Components(len(crystals)), _Components(len(crystals)), {}
    of_size: dict[int, list[int]] = {}
    reduced: dict[int, ReducedCrystal] = {}
    for i, crystal in enumerate(crystals):
        try:
            reduced[i] = reduce_crystal(crystal)
        except InvalidCrystalError as error:
            reasons[i] = str(error)
            continue
        of_size.setdefault(reduced[i].n_atoms, []).append(i)
    for members in of_size.values():
        if len(members) <= _FEW_MEMBERS:
            _settle_few(members, reduced, clusters, exact, tolerances)
        else:
            _settle_many(members, reduced, clusters, exact, reasons, tolerances, profile_tolerance)
    return _Outcome(clusters.labels, exact.labels, reasons)


def _settle_few(
    members: Sequence[int],
    reduced: Mapping[int, ReducedCrystal],
    clusters: _Components,
    exact: _Components,
    tolerances: MatchTolerances,
) -> None:
    """Two or three crystals are matched at once: that costs less than their fingerprints and profiles."""
    for i, j in combinations(members, 2):
        match = match_structures(reduced[i], reduced[j], tolerances)
        if match is None:
            continue
        clusters.join(i, j)
        larger = abs(reduced[i].volume / reduced[j].volume - 1)
        if max(match.largest, larger) <= _EXACT_DISPLACEMENT:
            exact.join(i, j)


def _settle_many(
    members: Sequence[int],
    reduced: Mapping[int, ReducedCrystal],
    clusters: _Components,
    exact: _Components,
    reasons: dict[int, str],
    tolerances: MatchTolerances,
    profile_tolerance: float,
) -> None:
    """Merge equal fingerprints, then match what is left in the order of the distance of profiles."""
    copies: dict[str, list[int]] = {}
    for i in members:
        try:
            copies.setdefault(reduced_fingerprint(reduced[i]), []).append(i)
        except InvalidCrystalError as error:
            reasons[i] = str(error)
    for same in copies.values():
        for i in same[1:]:
            clusters.join(same[0], i)
            exact.join(same[0], i)
    # The copy that stands for the others, and the order of the work, must not depend on the order of the rows.
    distinct = [min(same, key=lambda i: reduced[i].sort_key) for _, same in sorted(copies.items())]
    if len(distinct) < 2:
        return
    profiles = np.stack(radial_profiles([reduced[i] for i in distinct]))
    # The mean over the parts of a pair of elements differs by no more than the profiles do: what the tree
    # leaves out is too far apart.
    means = profiles.reshape(len(distinct), -1, N_PARTS).mean(axis=-1)
    tree = cKDTree(means)
    nodes = np.array(distinct)
    for place, node in enumerate(distinct):
        near = np.array(tree.query_ball_point(means[place], profile_tolerance, p=np.inf), dtype=np.int64)
        near = near[near > place]
        near = near[clusters.labels[nodes[near]] != clusters.labels[node]]
        apart = profile_distance(profiles[place], profiles[near])
        for other in nodes[near[np.argsort(apart, kind="stable")][: int((apart <= profile_tolerance).sum())]].tolist():
            if clusters.labels[other] != clusters.labels[node] and match_structures(
                reduced[node], reduced[other], tolerances
            ):
                clusters.join(node, other)
