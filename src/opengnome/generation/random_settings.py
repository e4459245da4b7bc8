"""Settings of random structures."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from opengnome.generation.wyckoff import N_SPACE_GROUPS
from opengnome.settings import Settings


class RandomStructureSettings(Settings):
    """Which random crystals are made of a composition."""

    min_formula_units: int = Field(1, ge=1)
    """Fewest formula units per primitive cell."""
    max_formula_units: int = Field(4, ge=1)
    """Most formula units per primitive cell."""
    max_atoms: int = Field(40, ge=1)
    """Largest primitive cell; of the numbers of formula units those that fit are drawn with equal probability."""
    p1_share: float = Field(0.1, ge=0, le=1)
    """Share of crystals without symmetry. The others get a group drawn from those that can hold the atoms, all
    with equal probability."""
    space_groups: tuple[int, ...] | None = None
    """Numbers of the groups to draw from, other than the share of P1; all when not given. A crystal whose atoms
    none of them can hold is made in P1, as its ``asked_space_group`` says."""
    volume_scales: tuple[float, float] = (0.4, 1.2)
    """Range of the volume asked for, as a fraction of the estimate; scanned evenly over the crystals of a seed."""
    volume_per_atom: float | None = Field(None, gt=0)
    """A^3 per atom in place of the estimate from the tables."""
    min_shortest_vector: float = Field(0.45, gt=0, lt=1)
    """Shortest lattice vector as a fraction of the cube root of the cell's volume; bounds how flat or long a cell
    is (1 for a cube, 0.5 for a square prism eight times as long as wide)."""
    distance_fraction: float = Field(0.85, gt=0)
    """Minimum distances as a fraction of the contact distances of the elements in known crystals. In a cell that
    is asked to be smaller than the estimate they shrink with its edges."""
    min_covalent_fraction: float = Field(0.6, ge=0)
    """No minimum distance shrinks below this fraction of the sum of covalent radii."""
    min_distances: dict[str, float] = Field(default_factory=dict)
    """Minimum distances in A by pair of elements (``{"Na-Cl" = 2.4}``) that replace the tabulated ones; these
    do not shrink."""
    packing_rounds: int = Field(6, ge=1)
    """Rounds of soft-sphere packing; from the fourth on the cell may grow a little before each."""
    packing_steps: int = Field(10, ge=1)
    """Steps of minimisation per round."""
    growth_per_round: float = Field(1.08, ge=1)
    """Largest factor by which the cell's volume grows at once."""
    max_growth: float = Field(1.5, ge=1)
    """Largest factor by which the cell's volume may grow over the volume asked for to make room; a crystal
    that needs more is drawn anew."""
    max_attempts: int = Field(20, ge=1)
    """Draws of one crystal. After the last one it is made without symmetry in a cell as large as needed."""

    @field_validator("space_groups")
    @classmethod
    def _valid_groups(cls, numbers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        wrong = [number for number in numbers or () if not 1 <= number <= N_SPACE_GROUPS]
        if wrong or numbers == ():
            raise ValueError(f"space groups {wrong} are outside 1..{N_SPACE_GROUPS}; give at least one that is not")
        return numbers

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.volume_scales
        if not 0 < low <= high:
            raise ValueError(f"volume_scales={self.volume_scales} must be positive and in ascending order")
        if self.min_formula_units > self.max_formula_units:
            raise ValueError(f"{self.min_formula_units=} must not be above {self.max_formula_units=}")
        return self
