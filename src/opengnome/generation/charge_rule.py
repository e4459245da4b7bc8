"""Is a composition chemically plausible? The relaxed oxidation rule of the paper, with gates.

The paper (doi:10.1038/s41586-023-06735-9) gives every element one of its common oxidation states or zero, lets
up to two elements lie between two adjacent ones of their ordered states, and asks for neutrality. Strict balance
would lose Li15Si4; this rule loses nothing, because zero is always there: H2O11, TbSmF30 and Na3Cl pass. The
gates of `CompositionRuleSettings` say what the ions must be like, and where zero is plausible.

How a composition is judged: every division of its elements into cations and anions that the electronegativities
allow is tried. A cation has a positive state, or less where the bond is metallic; an anion has a negative state,
or less where it bonds to itself. Up to `max_between` elements take any mean charge from the lowest to the highest of
theirs (as the intervals between adjacent states join up), the others exactly one state. If the total can be zero,
the composition is accepted. Metals alone need no charges.

Everything works on arrays of compositions: row i holds the elements `atomic_numbers[i]` with `counts[i]` atoms,
both of shape (m, s); a count may be zero and an element may stand in several columns. The answer depends on the
stoichiometry alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations, product

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import ELECTRONEGATIVITIES, MAX_ATOMIC_NUMBER
from opengnome.errors import InvalidCrystalError
from opengnome.generation.composition_settings import CompositionRuleSettings
from opengnome.generation.composition_states import (
    ANION,
    AZIDE_CHARGE,
    CATION,
    EITHER,
    HARD_ANIONS,
    NITROGEN,
    OXYGEN,
    PEROXIDE_CHARGE,
    SUPEROXIDE_CHARGE,
    element_table,
)

_ELECTRONEGATIVITIES = np.array(ELECTRONEGATIVITIES)
_CHUNK = 16384  # compositions worked on at a time, so that the memory stays bounded
_ROUNDING = 1e-9  # of sums of charges and differences of electronegativities given with two decimals


class CompositionReason(IntEnum):
    """Why a composition is rejected: the first gate, in this order, with which nothing is left; zero is none."""

    NONE = 0
    NO_STATES = 1
    UNBALANCED = 2
    ANION_EXCESS = 3
    CATION_EXCESS = 4
    ORDER = 5
    TOO_MANY_METALS = 6


COMPOSITION_REASONS: dict[CompositionReason, str] = {
    CompositionReason.NO_STATES: "an element has no known oxidation state",
    CompositionReason.UNBALANCED: "no cations and anions of zero total charge",
    CompositionReason.ANION_EXCESS: "more anions than the cations can charge",
    CompositionReason.CATION_EXCESS: "more cations than the anions can discharge",
    CompositionReason.ORDER: "cations more electronegative than anions",
    CompositionReason.TOO_MANY_METALS: "more elements than an intermetallic compound may have",
}
"""How each reason is called in tables of counts."""


def accepts(composition: Composition, rule: CompositionRuleSettings) -> bool:
    """Whether the rule accepts one composition."""
    counts = np.array(composition.counts)
    return bool(accepted(counts[None, :, 0], counts[None, :, 1], rule)[0])


def reason(composition: Composition, rule: CompositionRuleSettings) -> str:
    """Why the rule rejects one composition, in words; empty when it is accepted."""
    counts = np.array(composition.counts)
    code = CompositionReason(judge(counts[None, :, 0], counts[None, :, 1], rule)[0])
    return COMPOSITION_REASONS.get(code, "")


def accepted(atomic_numbers: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """Whether the rule accepts each composition, boolean, shape (m,).

    Raises `InvalidCrystalError` when a count is negative, a composition has no atoms, or an atomic number is
    none.
    """
    result = np.zeros(len(counts), dtype=bool)
    for rows, elements, amounts in _by_number_of_elements(atomic_numbers, counts):
        result[rows] = _accepted(elements, amounts, rule)
    return result


def judge(atomic_numbers: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """`CompositionReason` of each composition, shape (m,); raises as `accepted` does."""
    codes = np.zeros(len(counts), dtype=np.int64)
    for rows, elements, amounts in _by_number_of_elements(atomic_numbers, counts):
        open_rows = np.flatnonzero(~_accepted(elements, amounts, rule))
        codes[rows[open_rows]] = _reasons(elements[open_rows], amounts[open_rows], rule)
    return codes


def _reasons(elements: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """Reasons of compositions known to be rejected: the gates are switched off, the last one first."""
    table = element_table()
    metals = table.is_metal[elements].all(axis=1)
    stateless = (table.n_states[EITHER, elements] == 0).any(axis=1)
    codes = np.full(len(elements), CompositionReason.ORDER)
    gates = {"electronegativity_order": False, "limit_cations": False, "limit_anions": False}
    verdicts = (CompositionReason.CATION_EXCESS, CompositionReason.ANION_EXCESS, CompositionReason.UNBALANCED)
    undecided = np.flatnonzero(~metals & ~stateless)
    for n_off, verdict in enumerate(verdicts, start=1):
        laxer = rule.model_copy(update=dict(list(gates.items())[:n_off]))
        undecided = undecided[~_accepted(elements[undecided], counts[undecided], laxer)]
        codes[undecided] = verdict
    codes[metals] = CompositionReason.TOO_MANY_METALS
    codes[stateless] = CompositionReason.NO_STATES
    return codes


def _by_number_of_elements(
    atomic_numbers: np.ndarray, counts: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, elements, reduced counts) of the compositions of each number of elements, in chunks.

    Elements are distinct and counts positive, shape (len(rows), n_elements).
    """
    elements, amounts = _merged(np.asarray(atomic_numbers), np.asarray(counts))
    sizes = (amounts > 0).sum(axis=1)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            own = amounts[part, :size]
            yield part, elements[part, :size], own // np.gcd.reduce(own, axis=1)[:, None]


def _merged(elements: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each element in one column, those that are there first."""
    if elements.shape != counts.shape or elements.ndim != 2:
        raise InvalidCrystalError(
            f"atomic numbers of shape {elements.shape} and counts of shape {counts.shape}; both are (m, s)"
        )
    if (counts < 0).any() or not (counts > 0).any(axis=1).all():
        raise InvalidCrystalError("a composition has a negative count or no atoms; counts are whole numbers from zero")
    present = counts > 0
    if ((elements < 1) | (elements > MAX_ATOMIC_NUMBER))[present].any():
        raise InvalidCrystalError(f"an atomic number is outside 1..{MAX_ATOMIC_NUMBER}")
    elements, counts = _packed(np.where(present, elements, 0), counts)
    repeated = (elements[:, 1:] == elements[:, :-1]) & (elements[:, 1:] > 0)
    if not repeated.any():
        return elements, counts
    for column in range(1, elements.shape[1]):
        same = repeated[:, column - 1]
        counts[same, column] += counts[same, column - 1]
        counts[same, column - 1] = 0
    return _packed(np.where(counts > 0, elements, 0), counts)


def _packed(elements: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns by falling atomic number, those without atoms last."""
    order = np.argsort(-elements, axis=1, kind="stable")
    return np.take_along_axis(elements, order, axis=1), np.take_along_axis(counts, order, axis=1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class ChargeRanges:
    """Total charge of all atoms of an element, for elements as anions and as cations; m rows of s elements."""

    lowest: np.ndarray
    """Shape (2, m, s)."""
    highest: np.ndarray
    """Shape (2, m, s)."""
    exact: np.ndarray
    """Of each oxidation state, shape (2, m, s, n_states + 1)."""
    has: np.ndarray
    """Which of `exact` there are, same shape."""

    @property
    def possible(self) -> np.ndarray:
        """Whether the element can have the sign at all, shape (2, m, s)."""
        possible: np.ndarray = np.logical_or.reduce(self.has, axis=-1)
        return possible


def charge_ranges(elements: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> ChargeRanges:
    """What each element of each composition may carry as an anion (index 0) and as a cation (1)."""
    table = element_table()
    states, n_states = table.states[:EITHER, elements], table.n_states[:EITHER, elements]
    bounds = np.stack([_smallest_anion_charges(elements, rule), _smallest_cation_charges(elements, rule)])
    amounts = counts[None]

    # One more state for cations that may fall below their lowest one; for anions, an unused place.
    has = np.arange(states.shape[-1] + 1) < n_states[..., None]
    exact = np.concatenate([states, np.zeros_like(states[..., :1])], axis=-1)
    exact[CATION, ..., -1] = bounds[CATION]
    has[CATION, ..., -1] = (bounds[CATION] < states[CATION, ..., 0]) & (n_states[CATION] > 0)
    exact = exact * amounts[..., None]

    # Total charges are whole numbers; an anion's is never zero.
    nearest = -np.maximum(np.ceil(np.nan_to_num(bounds[ANION]) * counts - _ROUNDING), 1).astype(np.int64)
    last = np.take_along_axis(states, np.maximum(n_states - 1, 0)[..., None], axis=-1)[..., 0]
    lowest = np.stack([states[ANION, ..., 0] * counts, bounds[CATION].astype(np.int64) * counts])
    highest = np.stack([nearest, last[CATION] * counts])
    has[ANION] &= exact[ANION] <= nearest[..., None]
    return ChargeRanges(lowest, highest, exact, has)


def _smallest_anion_charges(elements: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """Smallest mean charge, in magnitude, of each element as an anion, shape (m, s); zero for no limit."""
    if not rule.limit_anions:
        return np.zeros(elements.shape)
    x = _ELECTRONEGATIVITIES[elements]
    smallest = element_table().smallest_charge[elements]
    electropositive = (x <= rule.max_peroxide_electronegativity + _ROUNDING).any(axis=1, keepdims=True)
    superoxide = ((x <= rule.max_superoxide_electronegativity + _ROUNDING) | (elements == OXYGEN)).all(
        axis=1, keepdims=True
    )
    of_oxygen = np.where(superoxide, SUPEROXIDE_CHARGE, np.where(electropositive, PEROXIDE_CHARGE, 2.0))
    of_nitrogen = np.where(electropositive, AZIDE_CHARGE, 3.0)
    smallest = np.where(elements == OXYGEN, of_oxygen, smallest)
    return np.where(elements == NITROGEN, of_nitrogen, smallest)


def _smallest_cation_charges(elements: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """Smallest charge of each element as a cation, integers, shape (m, s)."""
    table = element_table()
    lowest = table.states[CATION, elements, 0]
    if not rule.limit_cations:
        return np.zeros_like(lowest)
    x = _ELECTRONEGATIVITIES[elements]
    difference = np.max(np.nan_to_num(x), axis=1, keepdims=True) - x + _ROUNDING
    is_d_or_f = table.is_d_or_f[elements]
    hard = np.isin(elements, HARD_ANIONS).any(axis=1, keepdims=True)
    subvalent = is_d_or_f & ~hard & (difference < rule.max_subvalent_difference)
    lowest = np.where(subvalent, np.minimum(lowest, 1), lowest)
    if not _few_enough(elements.shape[1], rule):
        return lowest
    interstitial = (table.is_metal | table.is_interstitial)[elements].all(axis=1, keepdims=True)
    metallic = table.is_metallic[elements] & (difference < rule.max_metallic_difference)
    metallic |= is_d_or_f & interstitial & (difference < rule.max_interstitial_difference)
    return np.where(metallic, 0, lowest)


def _accepted(elements: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """As `accepted`, for compositions of one number of elements."""
    n_elements = elements.shape[1]
    if not rule.require_ions:
        return _literally_balanced(elements, counts, rule)
    result = is_metallic(elements, rule)
    ranges = charge_ranges(elements, counts, rule)
    possible = ranges.possible
    as_cation, as_anion = _order_bounds(elements, rule)
    for signs in sign_patterns(n_elements):
        cations, anions = np.flatnonzero(signs == CATION), np.flatnonzero(signs == ANION)
        columns = np.arange(n_elements)
        lowest = ranges.lowest[ANION][:, anions].sum(axis=1) + ranges.lowest[CATION][:, cations].sum(axis=1)
        highest = ranges.highest[ANION][:, anions].sum(axis=1) + ranges.highest[CATION][:, cations].sum(axis=1)
        open_rows = ~result & (lowest <= 0) & (highest >= 0)
        open_rows &= possible[ANION][:, anions].all(axis=1) & possible[CATION][:, cations].all(axis=1)
        open_rows &= as_cation[:, cations].max(axis=1) <= as_anion[:, anions].min(axis=1)
        rows = np.flatnonzero(open_rows)
        if not len(rows):
            continue
        result[rows] = _balanced(
            ranges.lowest[signs[None], rows[:, None], columns],
            ranges.highest[signs[None], rows[:, None], columns],
            ranges.exact[signs[None], rows[:, None], columns],
            ranges.has[signs[None], rows[:, None], columns],
            rule.max_between,
        )
    return result


def _few_enough(n_elements: int, rule: CompositionRuleSettings) -> bool:
    """Whether a compound of this many elements may be metallic."""
    return rule.max_metallic_elements is None or n_elements <= rule.max_metallic_elements


def allowed_signs(elements: np.ndarray, rule: CompositionRuleSettings) -> list[np.ndarray]:
    """The divisions of the elements of one composition, shape (s,), that their electronegativities allow."""
    as_cation, as_anion = (bounds[0] for bounds in _order_bounds(elements[None], rule))
    return [
        signs
        for signs in sign_patterns(len(elements))
        if as_cation[signs == CATION].max() <= as_anion[signs == ANION].min()
    ]


def is_metallic(elements: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """Whether each row of `elements`, shape (m, s), passes as an intermetallic compound, whatever the counts."""
    result = np.zeros(len(elements), dtype=bool)
    if _few_enough(elements.shape[1], rule):
        result |= element_table().is_metal[elements].all(axis=1)
    return result


def sign_patterns(n_elements: int) -> Iterator[np.ndarray]:
    """Every division of n elements into anions and cations with one of each at least, shape (n_elements,)."""
    for signs in product((ANION, CATION), repeat=n_elements):
        if ANION in signs and CATION in signs:
            yield np.array(signs)


def _order_bounds(elements: np.ndarray, rule: CompositionRuleSettings) -> tuple[np.ndarray, np.ndarray]:
    """What counts as the electronegativity of each element as a cation and as an anion, shapes (m, s).

    A division into ions keeps the order if no cation's value exceeds an anion's.
    """
    x = _ELECTRONEGATIVITIES[elements]
    if not rule.electronegativity_order:
        return np.zeros_like(x), np.zeros_like(x)
    return x - rule.order_tolerance * element_table().is_metal[elements] - _ROUNDING, x


def _literally_balanced(elements: np.ndarray, counts: np.ndarray, rule: CompositionRuleSettings) -> np.ndarray:
    """The paper's rule: states of both signs and zero for every element."""
    table = element_table()
    exact = table.states[EITHER, elements] * counts[..., None]
    has = np.arange(exact.shape[-1]) < table.n_states[EITHER, elements][..., None]
    lowest, highest = exact.min(axis=-1), exact.max(axis=-1)  # the empty places hold zero, which is a state
    return has.any(axis=-1).all(axis=1) & _balanced(lowest, highest, exact, has, rule.max_between)


def _balanced(
    lowest: np.ndarray, highest: np.ndarray, exact: np.ndarray, has: np.ndarray, max_between: int
) -> np.ndarray:
    """Whether the charges can sum to zero with at most `max_between` elements between their states, shape (m,).

    `lowest`, `highest`: shape (m, s); `exact` and `has` (which of them count): shape (m, s, n_states). As every
    state lies in its interval, only the largest allowed number of free elements needs to be tried.
    """
    feasible = (lowest.sum(axis=1) <= 0) & (highest.sum(axis=1) >= 0)
    n_elements = lowest.shape[1]
    if max_between >= n_elements:
        return feasible
    result = np.zeros(len(lowest), dtype=bool)
    for free in combinations(range(n_elements), max_between):
        rows = np.flatnonzero(feasible & ~result)
        if not len(rows):
            break
        fixed = [column for column in range(n_elements) if column not in free]
        result[_balanced_rows(rows, fixed, lowest, highest, exact, has)] = True
    return result


def _balanced_rows(
    rows: np.ndarray, fixed: list[int], lowest: np.ndarray, highest: np.ndarray, exact: np.ndarray, has: np.ndarray
) -> np.ndarray:
    """Those of `rows` that balance when the columns `fixed` have exact states and the others their intervals.

    A dynamic program over charges: after each column the distinct (row, charge) pairs that the rest can still
    bring to zero.
    """
    charges = np.zeros(len(rows), dtype=np.int64)
    low, high = lowest.sum(axis=1), highest.sum(axis=1)
    for step, column in enumerate(fixed):
        low, high = low - lowest[:, column], high - highest[:, column]
        sums = charges[:, None] + exact[rows, column]
        open_sums = has[rows, column] & (sums + low[rows, None] <= 0) & (sums + high[rows, None] >= 0)
        places, states = np.nonzero(open_sums)
        charges, rows = sums[places, states], rows[places]
        if 0 < step < len(fixed) - 1 and len(rows):
            rows, charges = _distinct(rows, charges)
    return rows


def _distinct(rows: np.ndarray, charges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset = charges.min()
    span = int(charges.max() - offset) + 1
    keys = np.unique(rows * span + (charges - offset))
    return keys // span, keys % span + offset
