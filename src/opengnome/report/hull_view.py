"""One chemical system of the hull as points: what is drawn, and what a table of it says."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

from opengnome.campaign import CampaignResults
from opengnome.crystals import Composition
from opengnome.crystals.elements import atomic_number
from opengnome.errors import SettingsError
from opengnome.hull import STABILITY_TOLERANCE, Entry, Hull


@dataclass(frozen=True)
class Phase:
    """The lowest entry of one composition within a chemical system."""

    reduced_formula: str
    fractions: tuple[float, ...]
    """Atomic fraction of each element of the system."""
    formation_energy_per_atom: float
    distance: float
    """Distance to the current hull, eV/atom; zero on it."""
    calculated: bool
    """Found by the campaign; known at the start otherwise."""

    @property
    def stable(self) -> bool:
        return self.distance <= STABILITY_TOLERANCE

    @property
    def discovered(self) -> bool:
        return self.stable and self.calculated


@dataclass(frozen=True)
class HullView:
    """A chemical system: its elements in alphabetical order and its phases, the stable ones first."""

    elements: tuple[str, ...]
    phases: tuple[Phase, ...]

    @property
    def name(self) -> str:
        return "-".join(self.elements)

    @property
    def stable(self) -> tuple[Phase, ...]:
        return tuple(phase for phase in self.phases if phase.stable)


def default_system(results: CampaignResults) -> str | None:
    """The system of the deepest discovery of two or three elements, else of the deepest of all; None of none."""
    systems = [d.crystal.chemical_system for d in results.discoveries]
    drawable = [system for system in systems if system.count("-") in (1, 2)]
    return next(iter(drawable or systems), None)


def hull_view(results: CampaignResults, chemical_system: str) -> HullView:
    """Phases of a chemical system such as ``Na-Zr-O`` (any order) and of its subsystems.

    Raises `SettingsError` when it is no system of two or more elements, `InvalidCrystalError` for a symbol
    that is no element, `MissingReferenceError` for an element outside the known set.
    """
    elements = tuple(sorted({part.strip() for part in chemical_system.split("-")}))
    numbers = [atomic_number(symbol) for symbol in elements]
    if len(elements) < 2:
        raise SettingsError(f"{chemical_system!r} is one element; name two or more, e.g. Na-Cl")
    hull = results.hull
    inside = [e for e in hull.entries if set(e.composition.atomic_numbers) <= set(numbers)]
    hull.energy_per_atom_at(Composition.from_counts(dict.fromkeys(numbers, 1)))  # refuses unknown elements
    lowest: dict[str, Entry] = {}
    for entry in sorted(inside, key=lambda e: (e.corrected_energy_per_atom, e.id)):
        lowest.setdefault(entry.reduced_formula, entry)
    phases = [_phase(hull, entry, numbers, calculated=entry.id in results.entries) for entry in lowest.values()]
    return HullView(elements, tuple(sorted(phases, key=lambda p: (p.distance, p.reduced_formula))))


def tie_lines(view: HullView) -> list[tuple[int, int]]:
    """Pairs of positions in `view.stable` that coexist; for three elements.

    The edges of the lower convex hull (qhull) of formation energy over composition. A point above everything
    makes the hull a solid also where only the elements are stable.
    """
    points = np.array([[p.fractions[1], p.fractions[2], p.formation_energy_per_atom] for p in view.stable])
    top = [[1 / 3, 1 / 3, 1.0 + points[:, 2].max()]]
    found = ConvexHull(np.concatenate([points, top]))
    lower = found.simplices[found.equations[:, 2] < -1e-9]
    edges = {tuple(sorted(pair)) for s in lower.tolist() for pair in ((s[0], s[1]), (s[1], s[2]), (s[0], s[2]))}
    return sorted((a, b) for a, b in edges if b < len(points))


def lower_edge(view: HullView, *, known_only: bool) -> list[Phase]:
    """Vertices of the convex hull of a two-element system, from the first element to the second."""
    phases = sorted(
        (p for p in view.phases if not (known_only and p.calculated)),
        key=lambda p: (p.fractions[1], p.formation_energy_per_atom),
    )
    edge: list[Phase] = []
    for phase in phases:
        while len(edge) >= 2 and _turns_down(edge[-2], edge[-1], phase):
            edge.pop()
        edge.append(phase)
    return edge


def _phase(hull: Hull, entry: Entry, numbers: list[int], *, calculated: bool) -> Phase:
    fractions = entry.composition.fractions
    return Phase(
        reduced_formula=entry.reduced_formula,
        fractions=tuple(fractions.get(z, 0.0) for z in numbers),
        formation_energy_per_atom=hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom),
        distance=max(0.0, hull.energy_above_hull(entry)),
        calculated=calculated,
    )


def _turns_down(first: Phase, middle: Phase, last: Phase) -> bool:
    """Whether `middle` lies on or above the line from `first` to `last` (Andrew's monotone chain)."""
    dx1 = middle.fractions[1] - first.fractions[1]
    dx2 = last.fractions[1] - first.fractions[1]
    dy1 = middle.formation_energy_per_atom - first.formation_energy_per_atom
    dy2 = last.formation_energy_per_atom - first.formation_energy_per_atom
    return dx1 * dy2 - dx2 * dy1 <= 0
