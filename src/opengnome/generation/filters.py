"""Which proposals are not worth an evaluation, and why: arrays of reason codes, cheap checks first."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from opengnome.generation.ions import species_table
from opengnome.generation.novelty import composition_keys, is_known, known_composition_keys
from opengnome.generation.parent import CONTACT_CUTOFF, IonicParent
from opengnome.generation.radii import COVALENT_RADII
from opengnome.generation.settings import GenerationSettings


class Reason(IntEnum):
    """Why a proposal is rejected, in the order of the checks; zero is none."""

    NONE = 0
    CHARGE = 1
    ELEMENT = 2
    KNOWN = 3
    CAP = 4
    TOO_CLOSE = 5
    VOLUME = 6
    DUPLICATE = 7


REASONS: dict[Reason, str] = {
    Reason.CHARGE: "charges do not balance",
    Reason.ELEMENT: "element not allowed",
    Reason.KNOWN: "composition already known",
    Reason.CAP: "over the cap per parent",
    Reason.TOO_CLOSE: "atoms too close",
    Reason.VOLUME: "volume per atom out of range",
    Reason.DUPLICATE: "duplicate",
}
"""How each reason is called in tables of counts."""


@dataclass(frozen=True, eq=False)
class CompositionScreen:
    """The checks that need no crystal."""

    charge_balanced: bool
    allowed: np.ndarray
    """Whether each element is allowed, by atomic number, shape (MAX_ATOMIC_NUMBER + 1,)."""
    known_keys: np.ndarray
    """Sorted keys of the known compositions."""

    @classmethod
    def from_settings(cls, settings: GenerationSettings, known_formulas: frozenset[str]) -> "CompositionScreen":
        return cls(settings.charge_balanced, settings.element_mask(), known_composition_keys(known_formulas))

    def reasons(self, species: np.ndarray, counts: np.ndarray, *, charge: int) -> np.ndarray:
        """Reason code of each composition: ions `species[i]` with `counts[i]` atoms, both shape (m, s).

        `charge` is that of the parent, in e.
        """
        table = species_table()
        unbalanced = (table.charges[species] * counts).sum(axis=1) != charge
        return self.judge(table.atomic_numbers[species], counts, unbalanced=unbalanced)

    def judge(self, elements: np.ndarray, counts: np.ndarray, *, unbalanced: np.ndarray) -> np.ndarray:
        """As `reasons`, of atomic numbers `elements` (m, s), where it is known which are `unbalanced`, bool (m,)."""
        forbidden = ((counts > 0) & ~self.allowed[elements]).any(axis=1)
        codes = np.where(forbidden, Reason.ELEMENT, Reason.NONE)
        if self.charge_balanced:
            codes[unbalanced] = Reason.CHARGE
        open_rows = np.flatnonzero(codes == Reason.NONE)
        keys = composition_keys(elements[open_rows], counts[open_rows])
        codes[open_rows[is_known(keys, self.known_keys)]] = Reason.KNOWN
        return codes


def mark_repeated(codes: np.ndarray, keys: np.ndarray) -> None:
    """Write `Reason.DUPLICATE` in `codes`, shape (m,), at kept rows whose `keys`, shape (m, k), came before.

    Ions of one element with other charges, as Mn2+ V5+ and Mn3+ V4+, put the same atoms on the same sites;
    they would differ only in the guess of the volume.
    """
    open_rows = np.flatnonzero(codes == Reason.NONE)
    first = np.unique(keys[open_rows], axis=0, return_index=True)[1]
    codes[np.delete(open_rows, first)] = Reason.DUPLICATE


def structure_reasons(
    parent: IonicParent,
    site_species: np.ndarray,
    factors: np.ndarray,
    settings: GenerationSettings,
    *,
    vacant: np.ndarray,
) -> np.ndarray:
    """Reason code of each decoration of the parent's sites, its lengths scaled by `factors`.

    `site_species` has shape (m, n_atoms), `factors` shape (m,); where `vacant`, bool, shape (m, n_atoms), there is no
    atom that could be too close to another or take volume.
    """
    first, second = np.nonzero(np.triu(parent.closest < CONTACT_CUTOFF))
    radii = COVALENT_RADII[species_table().atomic_numbers[site_species]]
    smallest = settings.min_distance_ratio * (radii[:, first] + radii[:, second])
    distances = factors[:, None] * parent.closest[first, second]
    close = distances < np.maximum(smallest, settings.min_distance)
    if vacant.any():
        close &= ~(vacant[:, first] | vacant[:, second])
    too_close = close.any(axis=1)
    volumes = parent.crystal.volume_per_atom * factors**3 / (1.0 - vacant.mean(axis=1))
    out_of_range = (volumes < settings.min_volume_per_atom) | (volumes > settings.max_volume_per_atom)
    return np.where(too_close, Reason.TOO_CLOSE, np.where(out_of_range, Reason.VOLUME, Reason.NONE))
