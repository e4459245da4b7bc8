"""From known crystals to candidates: the front door of the package."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from opengnome.crystals import CrystalTable
from opengnome.errors import InvalidCrystalError
from opengnome.generation.candidate import Candidates, Method, candidate_table
from opengnome.generation.decoration import Decorations, build_candidates, count_reasons
from opengnome.generation.filters import REASONS, CompositionScreen, Reason, mark_repeated
from opengnome.generation.ions import species_table
from opengnome.generation.parent import IonicParent, ionic_parent
from opengnome.generation.partial import (
    Groupings,
    PartialSubstitutions,
    expanded_parents,
    groupings,
    partial_substitutions,
)
from opengnome.generation.settings import GenerationSettings
from opengnome.generation.substitution import full_substitutions
from opengnome.generation.vacancies import Vacancies, ordered_vacancies, vacancy_length_factors
from opengnome.generation.volume import length_factors

_TOO_LARGE = "more atoms than max_atoms"
_NOT_NEUTRAL = "no charge-neutral oxidation states"
_NOT_KNOWN = "elements that the substitution model does not know"
_NO_SYMMETRY = "no space group or reduced lattice"
_USED = "used"

_SUBSTITUTION_DRAWS, _VACANCY_DRAWS = 1, 2  # streams of random numbers; the groupings are drawn from others


@dataclass(frozen=True, eq=False)
class GenerationResult:
    """Candidates, and the fate of everything that did not become one."""

    table: CrystalTable
    """Candidates with the columns method, parent_ids, replaced, probability, seed."""
    counts: dict[str, int]
    """``proposed``, then the rejected by reason in the order of the checks, then ``kept``; proposed is the
    sum of the others. A proposal is a crystal that a method makes from a parent, whether or not it had
    to be built to be rejected."""
    parent_counts: dict[str, int]
    """``parents``, then those that could not be used by reason, then ``used``; parents is the sum."""


def generate(
    parents: CrystalTable, settings: GenerationSettings, *, known_formulas: frozenset[str], seed: int
) -> GenerationResult:
    """Candidates from the parents by the methods of `settings`, none with a reduced formula already known.

    A pure function of its arguments. What a parent gives depends on the parent, its id, the settings, the
    known formulas and `seed`, not on the other parents, except that of equal crystals only the first
    stays. Raises `InvalidCrystalError` when a known formula cannot be read.
    """
    screen = CompositionScreen.from_settings(settings, known_formulas)
    rejected: Counter[Reason] = Counter()
    fates: Counter[str] = Counter()
    kept: list[Candidates] = []
    seen: set[str] = set()
    for row, parent_id in enumerate(parents.ids):
        try:
            parent = _usable_parent(parents, row, settings)
            if isinstance(parent, str):
                fates[parent] += 1
                continue
            parts, reasons = _from_parent(parent, settings, screen, parent_seed(seed, parent_id), seed)
        except InvalidCrystalError:  # no crystal, or none whose symmetry or reduced lattice is found
            fates[_NO_SYMMETRY] += 1
            continue
        fates[_USED] += 1
        rejected += reasons
        for part in parts:
            new = _unseen(part, seen)
            rejected[Reason.DUPLICATE] += len(part) - len(new)
            kept.append(new)
    return GenerationResult(
        candidate_table(kept),
        {
            "proposed": len(seen) + rejected.total(),
            **{name: rejected[reason] for reason, name in REASONS.items()},
            "kept": len(seen),
        },
        {
            "parents": len(parents),
            **{fate: fates[fate] for fate in (_TOO_LARGE, _NOT_NEUTRAL, _NOT_KNOWN, _NO_SYMMETRY, _USED)},
        },
    )


def _unseen(part: Candidates, seen: set[str]) -> Candidates:
    """The candidates whose digest is not among `seen`, which then holds them too."""
    rows = []
    for row, digest in enumerate(part.digests):
        if digest not in seen:
            seen.add(digest)
            rows.append(row)
    return part if len(rows) == len(part) else part.take(np.array(rows, dtype=np.int64))


def parent_seed(seed: int, parent_id: str) -> int:
    """Seed of everything drawn for one parent: a hash of the call's seed and the parent's id."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{parent_id}".encode()).digest()[:8], "big")


def _usable_parent(parents: CrystalTable, row: int, settings: GenerationSettings) -> IonicParent | str:
    if parents.n_atoms[row] > settings.max_atoms:
        return _TOO_LARGE
    usual = settings.parents_without_states == "usual_states"
    return ionic_parent(parents[row], parents.ids[row], usual=usual) or (_NOT_KNOWN if usual else _NOT_NEUTRAL)


def _from_parent(
    parent: IonicParent, settings: GenerationSettings, screen: CompositionScreen, own_seed: int, seed: int
) -> tuple[list[Candidates], Counter[Reason]]:
    """All candidates of one parent by method, and its rejected proposals by reason."""
    candidates: list[Candidates] = []
    rejected: Counter[Reason] = Counter()
    task = _Task(parent, settings, screen, own_seed)
    for method in settings.methods:
        for decorations, by_composition in _MAKERS[method](task):
            built, by_structure = build_candidates(decorations, settings, seed=seed)
            candidates += built
            rejected += by_composition + by_structure
    return candidates, rejected


@dataclass(frozen=True, eq=False)
class _Cell:
    """The cell of a parent or a supercell of it, where partial substitution and vacancies choose sites."""

    parent: IonicParent
    groups: Groupings
    is_supercell: bool
    max_rows: int
    """Most candidates of one method."""
    seed: int


@dataclass(frozen=True, eq=False)
class _Task:
    """What every method needs to know of a parent."""

    parent: IonicParent
    settings: GenerationSettings
    screen: CompositionScreen
    own_seed: int

    @cached_property
    def cells(self) -> list[_Cell]:
        """The parent's cell, and its supercells where the settings ask for them; raises as `groupings`."""
        settings = self.settings
        larger = expanded_parents(
            self.parent, size=settings.supercell_size, max_atoms=settings.max_supercell_atoms, symprec=settings.symprec
        )
        cap = settings.max_partial_per_parent
        caps = [cap, *np.diff(np.linspace(0, cap, len(larger) + 1).astype(int)).tolist()]
        lattices = [None, *[self.parent.crystal.lattice] * len(larger)]
        return [
            self._cell(cell, self.own_seed + i, max_rows=max_rows, expanded_from=lattice)
            for i, (cell, max_rows, lattice) in enumerate(zip([self.parent, *larger], caps, lattices, strict=True))
        ]

    def _cell(self, parent: IonicParent, seed: int, *, max_rows: int, expanded_from: np.ndarray | None) -> _Cell:
        groups = groupings(
            parent,
            symprec=self.settings.symprec,
            max_subsets=self.settings.max_subsets_per_count,
            seed=seed,
            expanded_from=expanded_from,
            whole_orbits=self.settings.whole_orbits,
        )
        return _Cell(parent, groups, expanded_from is not None, max_rows, seed)


def _full_decorations(task: _Task) -> list[tuple[Decorations, Counter[Reason]]]:
    settings, parent = task.settings, task.parent
    proposals = full_substitutions(parent, threshold=settings.threshold, model=settings.model)
    codes = task.screen.reasons(proposals.targets, proposals.counts, charge=parent.charge)
    mark_repeated(codes, species_table().atomic_numbers[proposals.targets])
    codes[np.flatnonzero(codes == Reason.NONE)[settings.max_substitutions_per_parent :]] = Reason.CAP
    rows = np.flatnonzero(codes == Reason.NONE)
    site_species = proposals.decorate(rows)
    decorations = Decorations(
        parent,
        "ionic_substitution",
        site_species,
        np.zeros_like(site_species, dtype=bool),
        length_factors(parent, site_species),
        proposals.probabilities[rows],
        proposals.replaced(rows),
    )
    return [(decorations, count_reasons(codes))]


def _partial_decorations(task: _Task) -> list[tuple[Decorations, Counter[Reason]]]:
    return [_partial_in_cell(cell, task.settings, task.screen) for cell in task.cells]


def _partial_in_cell(
    cell: _Cell, settings: GenerationSettings, screen: CompositionScreen
) -> tuple[Decorations, Counter[Reason]]:
    parent = cell.parent
    proposals = partial_substitutions(
        parent,
        threshold=settings.threshold,
        model=settings.model,
        include_all="ionic_substitution" not in settings.methods and not cell.is_supercell,
    )
    codes = screen.reasons(*proposals.compositions(), charge=parent.charge)
    elements = species_table().atomic_numbers[proposals.targets]
    mark_repeated(codes, np.column_stack([proposals.ions, elements, proposals.counts]))
    rejected = _count_groupings(proposals, cell.groups, codes)
    allowed = proposals.take(np.flatnonzero(codes == Reason.NONE))
    site_species, rows, n_left_out = allowed.decorate(
        cell.groups,
        max_rows=cell.max_rows,
        rng=np.random.default_rng([cell.seed, _SUBSTITUTION_DRAWS]),
    )
    rejected[Reason.CAP] += n_left_out
    texts = allowed.replaced()
    decorations = Decorations(
        parent,
        "partial_substitution",
        site_species,
        np.zeros_like(site_species, dtype=bool),
        length_factors(parent, site_species),
        allowed.probabilities[rows],
        [texts[row] for row in rows.tolist()],
    )
    return decorations, rejected


def _vacancy_decorations(task: _Task) -> list[tuple[Decorations, Counter[Reason]]]:
    return [_vacancies_in_cell(cell, task.settings, task.screen) for cell in task.cells]


def _vacancies_in_cell(
    cell: _Cell, settings: GenerationSettings, screen: CompositionScreen
) -> tuple[Decorations, Counter[Reason]]:
    parent = cell.parent
    proposals = ordered_vacancies(parent, max_fraction=settings.max_vacancy_fraction)
    codes = screen.judge(*proposals.compositions(), unbalanced=~proposals.balanced())
    rejected = _count_groupings(proposals, cell.groups, codes)
    allowed = proposals.take(np.flatnonzero(codes == Reason.NONE))
    vacant, rows, n_left_out = allowed.decorate(
        cell.groups,
        max_rows=cell.max_rows,
        rng=np.random.default_rng([cell.seed, _VACANCY_DRAWS]),
    )
    rejected[Reason.CAP] += n_left_out
    texts = allowed.replaced()
    decorations = Decorations(
        parent,
        "ordered_vacancies",
        np.broadcast_to(parent.site_species, vacant.shape),
        vacant,
        vacancy_length_factors(parent, vacant),
        np.full(len(rows), np.nan),
        [texts[row] for row in rows.tolist()],
    )
    return decorations, rejected


_MAKERS: dict[Method, Callable[[_Task], list[tuple[Decorations, Counter[Reason]]]]] = {
    "ionic_substitution": _full_decorations,
    "partial_substitution": _partial_decorations,
    "ordered_vacancies": _vacancy_decorations,
}


def _count_groupings(
    proposals: PartialSubstitutions | Vacancies, groups: Groupings, codes: np.ndarray
) -> Counter[Reason]:
    """Crystals behind the rejected compositions, by reason, counted without listing them."""
    rejected: Counter[Reason] = Counter()
    numbers = [np.array(groups.numbers(ion)) for ion in range(len(groups.sites))]
    for ion, of_ion in enumerate(numbers):
        rows = (proposals.ions == ion) & (codes != Reason.NONE)
        crystals = np.bincount(codes[rows], weights=of_ion[proposals.counts[rows]], minlength=len(Reason))
        rejected += Counter({reason: int(n) for reason, n in zip(Reason, crystals.tolist(), strict=True)})
    return rejected
