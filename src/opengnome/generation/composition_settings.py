"""Settings of the composition rule and of the stream of compositions."""

from typing import Literal, Self

from pydantic import Field, model_validator

from opengnome.settings import Settings


class CompositionRuleSettings(Settings):
    """The relaxed oxidation rule of the paper and the gates that make it selective; see `charge_rule`.

    The literal rule of the paper is `LITERAL_RULE`: every gate off. With zero among the states of every
    element it rejects nothing.
    """

    max_between: int = Field(2, ge=0)
    """Elements whose mean charge may lie anywhere between two adjacent oxidation states (the paper: two)."""
    require_ions: bool = True
    """At least one cation and one anion, or metals only; off, zero is a state of every element."""
    electronegativity_order: bool = True
    """No cation more electronegative than an anion."""
    order_tolerance: float = Field(0.5, ge=0)
    """By how much, on Pauling's scale, a *metal* may break the order: PbTe (0.23), RhSi (0.38), WSi2 (0.46)."""
    limit_anions: bool = True
    """No more anions than the cations' highest states can charge, down to the smallest mean charge that the
    element shows in its homonuclear bonds (`composition_states.SMALLEST_CHARGE`): no bonds for F, Cl and Br,
    peroxides and azides only beside electropositive metals, chains and cages for the others. Off, any mean
    charge below zero will do."""
    max_peroxide_electronegativity: float = Field(1.31, ge=0)
    """Peroxides and azides need a cation at most this electronegative (Mg)."""
    max_superoxide_electronegativity: float = Field(0.95, ge=0)
    """In superoxides every cation is at most this electronegative (Sr)."""
    limit_cations: bool = True
    """No cation below its lowest state, unless one of the next three rules calls it metallic."""
    max_metallic_difference: float = Field(0.6, ge=0)
    """A metal or metalloid may keep its electrons, down to zero, if no element is more electronegative than it
    by this much or more: silicides, germanides, phosphides and arsenides of the later metals."""
    max_interstitial_difference: float = Field(1.6, ge=0)
    """The same for d and f metals beside no other nonmetal than H, B, C and N: Fe3C, Mn4N, PdH."""
    max_subvalent_difference: float = Field(2.1, ge=0)
    """A d or f metal may go down to +1 (metal-metal bonds, as in Gd2Cl3 and GdS) up to this difference; never
    beside N, O or F."""
    max_metallic_elements: int | None = Field(4, ge=1)
    """Elements of a compound in which a cation may go down to zero, and of a compound of metals only, which needs
    no charges; no limit when not given."""

    @model_validator(mode="after")
    def _gates_need_ions(self) -> Self:
        if not self.require_ions and (self.electronegativity_order or self.limit_anions or self.limit_cations):
            raise ValueError(
                "require_ions=false leaves no cations and anions to compare; switch electronegativity_order, "
                "limit_anions and limit_cations off too"
            )
        return self


LITERAL_RULE = CompositionRuleSettings(
    require_ions=False, electronegativity_order=False, limit_anions=False, limit_cations=False
)
"""The rule as the paper words it."""


class CompositionSettings(Settings):
    """Which compositions are proposed."""

    rule: CompositionRuleSettings = CompositionRuleSettings()
    """What makes a composition plausible."""
    min_elements: int = Field(2, ge=1)
    """Smallest number of elements of a chemical system."""
    max_elements: int = Field(4, ge=1)
    """Largest number of elements of a chemical system."""
    max_atoms: int = Field(20, ge=1)
    """Largest number of atoms of a reduced formula."""
    max_per_system: int | None = Field(None, ge=1)
    """Of the new formulas of a chemical system at most this many, drawn by seed; all when not given."""
    max_enumerated: int = Field(200_000, ge=1)
    """A system with more formulas than this, before the rule, is not enumerated: `n_draws` formulas are drawn
    by seed instead."""
    n_draws: int = Field(20_000, ge=1)
    """Draws per system that is too large to enumerate; the rule, and repeats, leave fewer."""
    order: Literal["listed", "shuffled"] = "shuffled"
    """Chemical systems fewest elements first, or in an order drawn by seed, so that any beginning of the stream
    is a fair sample of all of it."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if not self.min_elements <= self.max_elements <= self.max_atoms:
            raise ValueError(
                f"min_elements={self.min_elements}, max_elements={self.max_elements} and max_atoms={self.max_atoms} "
                "must not decrease in this order"
            )
        return self
