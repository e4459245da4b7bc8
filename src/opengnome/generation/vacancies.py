"""Ordered vacancies: some of an ion's atoms leave its sites, once per symmetry class of the sites they leave.

Partial substitution with nothing in the place of what goes: the half-Heusler XYZ from the Heusler X2YZ, Cs2SnI6 from
the perovskite CsSnI3. The sites are chosen as there (`partial.Groupings`); new is what becomes of charges and cell.
"""

from dataclasses import dataclass

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.generation.charge_rule import accepted
from opengnome.generation.composition_settings import CompositionRuleSettings
from opengnome.generation.ions import species_table
from opengnome.generation.oxidation import assign_ions
from opengnome.generation.parent import IonicParent
from opengnome.generation.partial import Groupings
from opengnome.generation.radii import COVALENT_RADII

VACANCY_RADIUS = 0.9
"""Radius of a vacancy over that of the ion or atom that left; see `vacancy_length_factors`."""

_ROUNDING = 1e-9  # 0.3 of ten atoms are three
_PLAUSIBLE = CompositionRuleSettings()


@dataclass(frozen=True, eq=False)
class Vacancies:
    """Compositions reached by taking `count` atoms of one ion from a parent."""

    parent: IonicParent
    ions: np.ndarray
    """Which of `parent.ions` leaves, shape (m,)."""
    counts: np.ndarray
    """Number of atoms that leave, never all of the ion, shape (m,)."""

    def __len__(self) -> int:
        return len(self.ions)

    def take(self, rows: np.ndarray) -> "Vacancies":
        """The given rows."""
        return Vacancies(self.parent, self.ions[rows], self.counts[rows])

    def compositions(self) -> tuple[np.ndarray, np.ndarray]:
        """Atomic numbers, and numbers of the atoms that stay, of each row; (m, n_ions) both."""
        elements = np.tile(species_table().atomic_numbers[self.parent.ions], (len(self), 1))
        counts = np.tile(self.parent.ion_counts, (len(self), 1))
        counts[np.arange(len(self)), self.ions] -= self.counts
        return elements, counts

    def balanced(self) -> np.ndarray:
        """Whether the charges of each row can balance, bool, shape (m,).

        No sum of fixed charges survives the loss of an ion: those that stay must change theirs. Of a parent with
        anions the rest must have neutral oxidation states (`oxidation`), as a neutral parent has, and no anion may
        have become a cation: SrFeO3 may lose a sixth of its oxygen, because Fe4+ can become Fe3+, MgO may not.

        The substitution model knows anions of N, O, S, Se and the halogens only. A parent without them, be it a
        metal, a telluride or a phosphide, has no charges that could balance. There the composition must be plausible
        by `charge_rule` with its default settings, which asks nothing of the charges of metals.
        """
        elements, counts = self.compositions()
        if not self.parent.has_anions:
            return accepted(elements, counts, _PLAUSIBLE)
        rows = zip(elements.tolist(), counts.tolist(), strict=True)
        return np.array([self._has_neutral_states(*row) for row in rows], dtype=bool)

    def _has_neutral_states(self, elements: list[int], counts: list[int]) -> bool:
        states = assign_ions(Composition(tuple(zip(elements, counts, strict=True))))
        charges = species_table().charges
        return states is not None and bool(((charges[list(states)] > 0) == (charges[self.parent.ions] > 0)).all())

    def decorate(
        self, groups: Groupings, *, max_rows: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Which sites are empty, one row per composition and symmetry-unique group of sites.

        Of more than `max_rows` that many are drawn without weights. Returns the empty sites, bool, shape
        (n_rows, n_atoms), the composition each row is of (a row of this table), shape (n_rows,), and the number
        left out.
        """
        rows, sites, n_left_out = groups.draw(self.ions, self.counts, max_rows=max_rows, rng=rng)
        vacant = np.zeros((len(rows), self.parent.crystal.n_atoms), dtype=bool)
        for position, group in enumerate(sites):
            vacant[position, group] = True
        return vacant, rows, n_left_out

    def replaced(self) -> list[str]:
        """What each row removes, e.g. ``Ni2+->vacancy (1 of 2)``."""
        names, totals = species_table().names, self.parent.ion_counts.tolist()
        ions = self.parent.ions.tolist()
        return [
            f"{names[ions[ion]]}->vacancy ({count} of {totals[ion]})"
            for ion, count in zip(self.ions.tolist(), self.counts.tolist(), strict=True)
        ]


def ordered_vacancies(parent: IonicParent, *, max_fraction: float) -> Vacancies:
    """All (ion, count) of a parent with at most `max_fraction` of the ion's atoms, and never all of them."""
    most = np.floor(max_fraction * parent.ion_counts + _ROUNDING).astype(np.int64)
    most = np.minimum(most, parent.ion_counts - 1)
    ions = np.repeat(np.arange(len(most)), most)
    counts = np.arange(len(ions)) - np.repeat(np.cumsum(most) - most, most) + 1
    return Vacancies(parent, ions, counts)


def vacancy_length_factors(parent: IonicParent, vacant: np.ndarray) -> np.ndarray:
    """Factor on all lengths of the parent's cell for each set of empty sites; `vacant` (m, n_atoms), result (m,).

    As `volume.length_factors`, with every vacancy `VACANCY_RADIUS` times as large as what was there. That constant is
    measured on 140 pairs of relaxed crystals of the Materials Project (PBE) of which one is the other without some
    atoms: volumes come out 0.6 % too large in the median, with a mean absolute error of 4.6 %; in the parent's own
    cell it would be 5.9 %, at its volume per atom 14 %. The ions that stay keep their radii: those of their new
    oxidation states describe the ionic pairs worse (7.7 against 5.3 %).
    """
    table = species_table()
    radii = table.radii if parent.has_anions else COVALENT_RADII[table.atomic_numbers]
    lengths = parent.contact_weights * radii[parent.site_species]
    return 1.0 - (1.0 - VACANCY_RADIUS) * (vacant @ lengths) / lengths.sum()
