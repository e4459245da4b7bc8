"""Settings of candidate generation."""

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from opengnome.crystals.elements import (
    ATOMIC_NUMBERS,
    MAX_ATOMIC_NUMBER,
    RADIOACTIVE,
    SCARCE,
    SYMBOLS,
    check_symbols,
)
from opengnome.generation.candidate import Method
from opengnome.generation.probabilities import Normalisation, SubstitutionModel
from opengnome.settings import Settings

_F_ELEMENTS = (*range(57, 72), *range(89, 104))


class GenerationSettings(Settings):
    """Which candidates are made from the known crystals, and which of them are kept."""

    methods: tuple[Method, ...] = ("ionic_substitution", "partial_substitution")
    """Generators to use. ``ordered_vacancies`` is off by default: the paper only replaces."""
    threshold: float = Field(1e-3, gt=0, lt=1)
    """Smallest conditional probability of a substitution."""
    floor_lambdas: bool = True
    """Raise the negative weights of the data-mined model to zero (the paper); false is stock pymatgen."""
    unchanged_ions_count: bool = False
    """Whether ions that stay contribute to the probability; the paper counts only those that change."""
    normalisation: Normalisation = "floored"
    """Normalisation of the conditional probability; see `SubstitutionModel`."""
    charge_balanced: bool = True
    """Keep only candidates with the total charge of their parent: the neutral ones (the paper's early rounds; it
    dropped the rule later), and of a parent without neutral states those that keep the sum of its usual charges.
    With vacancies: those that have neutral states, and of a parent without anions the plausible compositions; see
    `Vacancies.balanced`."""
    parents_without_states: Literal["usual_states", "skip"] = "usual_states"
    """Parents whose elements have no neutral oxidation states, intermetallics and mixed valence above all: give each
    element its usual state, or make nothing from them."""
    max_substitutions_per_parent: int = Field(100, ge=1)
    """Of the new, allowed compositions reached by full substitution, the most probable this many."""
    max_partial_per_parent: int = Field(100, ge=1)
    """Of the partial substitutions to new, allowed compositions, this many, drawn by seed without weights:
    the most probable ones would all be groupings of one pair of ions."""
    supercell_size: int = Field(1, ge=1)
    """Partial substitution also in the symmetry-unique supercells of up to this many parent cells (2 makes double
    perovskites of the primitive perovskite cell, and layered oxides of rock salt); as many again as
    `max_partial_per_parent` come from them, spread over the supercells."""
    max_supercell_atoms: int = Field(20, ge=1)
    """Largest supercell."""
    whole_orbits: bool = False
    """Replace only whole orbits of the parent's space group, so that it keeps its symmetry; else any groups of sites.
    The paper does not say which it did."""
    max_vacancy_fraction: float = Field(0.5, gt=0, lt=1)
    """Ordered vacancies: largest share of an ion's atoms that leaves (a half makes half-Heuslers), never all of them.
    Cells, supercells, orbits and caps are those of partial substitution, `max_partial_per_parent` counting the
    vacancies apart; no probability ranks them."""
    max_subsets_per_count: int = Field(100, ge=1)
    """Symmetry-unique groupings of one ion's atoms per number of atoms replaced or removed; drawn by seed if more."""
    symprec: float = Field(0.01, gt=0)
    """Tolerance in A of the parent's space group in partial substitution and vacancies."""
    max_atoms: int = Field(40, ge=1)
    """Largest parent cell."""
    allowed_elements: tuple[str, ...] | None = None
    """Symbols of the elements a candidate may contain; all when not given."""
    excluded_elements: tuple[str, ...] = tuple(SYMBOLS[z] for z in sorted(RADIOACTIVE | SCARCE))
    """Symbols of elements no candidate contains; by default the radioactive and the scarce ones."""
    f_elements: bool = True
    """Whether lanthanides and actinides may occur (those excluded above still do not)."""
    min_distance: float = Field(0.7, ge=0)
    """Shortest distance between two atoms in A."""
    min_distance_ratio: float = Field(0.6, ge=0)
    """Shortest distance between two atoms as a fraction of the sum of their covalent radii."""
    min_volume_per_atom: float = Field(4.0, ge=0)
    """A^3 per atom."""
    max_volume_per_atom: float = Field(120.0, gt=0)
    """A^3 per atom."""

    @field_validator("allowed_elements", "excluded_elements")
    @classmethod
    def _known_symbols(cls, symbols: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_symbols(symbols or ())
        return symbols

    @model_validator(mode="after")
    def _volume_range(self) -> Self:
        if self.min_volume_per_atom >= self.max_volume_per_atom:
            raise ValueError(
                f"min_volume_per_atom={self.min_volume_per_atom} must be below "
                f"max_volume_per_atom={self.max_volume_per_atom}"
            )
        return self

    @property
    def model(self) -> SubstitutionModel:
        """The substitution model these settings describe."""
        return SubstitutionModel(
            floor_lambdas=self.floor_lambdas,
            unchanged_ions_count=self.unchanged_ions_count,
            normalisation=self.normalisation,
        )

    @model_serializer(mode="wrap")
    def _without_unused_vacancies(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The share of vacancies is written where there are any: campaigns begun before it was a setting go on."""
        written: dict[str, Any] = write(self)
        if "ordered_vacancies" not in self.methods:
            written.pop("max_vacancy_fraction", None)
        return written

    def element_mask(self) -> np.ndarray:
        """Whether candidates may contain each element, by atomic number, shape (MAX_ATOMIC_NUMBER + 1,)."""
        mask = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=bool)
        mask[[ATOMIC_NUMBERS[s] for s in self.allowed_elements or ATOMIC_NUMBERS]] = True
        mask[[ATOMIC_NUMBERS[s] for s in self.excluded_elements]] = False
        if not self.f_elements:
            mask[list(_F_ELEMENTS)] = False
        return mask
