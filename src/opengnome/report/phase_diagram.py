"""The hull of a chemical system drawn: energy over fraction, a triangle, or a tetrahedron.

Drawn by matplotlib as SVG or PNG, or as one HTML page that has the drawing and a table of the phases.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import ConvexHull

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS, atomic_number
from opengnome.datasets import elements_of_system
from opengnome.errors import SettingsError
from opengnome.hull import STABILITY_TOLERANCE, Entry, Hull
from opengnome.hull.chemical_potentials import phases_inside
from opengnome.report.drawing_files import check_drawing_path, save_drawing
from opengnome.report.figures import INK, LINE, SOFT, canvas
from opengnome.report.html import Cell, table, text
from opengnome.report.labels import label, number_overlapping

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

_CANDIDATE = "#d55e00"
_COLOURS = "viridis"
_MAX_DISTANCE = 0.2
"""Colours end here, eV/atom."""
_MAX_LABELS = 40
_TRIANGLE = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
_TETRAHEDRON = np.array([[0.0, 0.0], [1.0, -0.08], [0.69, 0.2], [0.53, 0.87]])
"""A tetrahedron as it is seen from slightly above, the third corner behind; a parallel projection, so straight lines
stay straight and mixtures stay where they are along them."""
_HIDDEN_EDGES = ((0, 2), (1, 2), (2, 3))
# Facets steeper than this are the vertical walls between the elements.
_VERTICAL = 1e-9


@dataclass(frozen=True)
class Phase:
    """One composition of a chemical system: its lowest entry on the hull, or a candidate judged against it."""

    id: str
    reduced_formula: str
    fractions: tuple[float, ...]
    """Atomic fraction of each element of the system; they sum to one."""
    formation_energy_per_atom: float
    """eV/atom."""
    distance: float
    """Distance to the hull, eV/atom; below zero where a candidate breaks it."""
    candidate: bool
    """Not among the entries of the hull."""

    @property
    def stable(self) -> bool:
        return self.distance <= STABILITY_TOLERANCE


@dataclass(frozen=True)
class PhaseDiagram:
    """A chemical system of k elements: its phases, and which of them coexist."""

    elements: tuple[str, ...]
    """In the order of the axes or corners."""
    level: str
    phases: tuple[Phase, ...]
    """The closest to the hull first."""
    tie_lines: tuple[tuple[int, int], ...]
    """Pairs of indices of phases that coexist: edges of the lower convex hull."""

    @property
    def name(self) -> str:
        return "-".join(self.elements)


def phase_diagram(hull: Hull, elements: Sequence[str], *, entries: Iterable[Entry] = ()) -> PhaseDiagram:
    """The phases of a chemical system of two or more elements (symbols) and its subsystems.

    Of each composition the lowest entry of the hull; of `entries` those that the hull does not have, as
    candidates, which do not change it. Raises `MissingReferenceError` for an element that the hull lacks.
    """
    numbers = [atomic_number(symbol) for symbol in elements]
    hull.energy_per_atom_at(Composition.from_counts(dict.fromkeys(numbers, 1)))  # refuses unknown elements
    lowest = phases_inside(hull, numbers).entries
    candidates = [e for e in entries if set(e.composition.atomic_numbers) <= set(numbers) and e not in hull]
    phases = _phases(hull, numbers, lowest, candidate=False)
    if candidates:
        phases += _phases(hull, numbers, candidates, candidate=True)
    phases.sort(key=lambda phase: (phase.distance, phase.id))
    return PhaseDiagram(tuple(elements), hull.level, tuple(phases), _tie_lines(phases))


def draw_phase_diagram(
    hull: Hull, path: Path, *, system: str | None = None, entries: Sequence[Entry] = ()
) -> PhaseDiagram:
    """Draw the hull of a chemical system of two to four elements to an .svg, .png or .html file.

    `system` names the elements in the order of the axes or corners; without it they are those of `entries`, or of
    the hull. Entries that are not of the hull are drawn as candidates. Gives back what is drawn.
    Raises `SettingsError` for another number of elements or another suffix, `InvalidCrystalError` for a symbol
    that is no element, `MissingReferenceError`.
    """
    check_drawing_path(path)
    elements = system_elements(hull, system, entries)
    if not 2 <= len(elements) <= 4:
        raise SettingsError(
            f"{'-'.join(elements)} has {len(elements)} elements; a hull is drawn of two to four: name them by --system"
        )
    diagram = phase_diagram(hull, elements, entries=entries)
    draw = {2: _binary, 3: _ternary, 4: _quaternary}[len(elements)]
    with canvas(7.2, 4.2) if len(elements) == 2 else canvas(7.0, 5.8) as figure:
        draw(figure, diagram)
        save_drawing(
            figure,
            path,
            title=f"Convex hull of {diagram.name}",
            subtitle=f"level of theory: {diagram.level}",
            body=_phase_table(diagram),
        )
    return diagram


def system_elements(hull: Hull, system: str | None, entries: Sequence[Entry] = ()) -> tuple[str, ...]:
    """The elements of a named system, else of the entries, else of the hull; then by symbol."""
    if system is not None:
        return elements_of_system(system)
    numbers = {z for entry in entries or hull.entries for z in entry.composition.atomic_numbers}
    return tuple(sorted(SYMBOLS[z] for z in numbers))


def _phases(hull: Hull, numbers: list[int], entries: Sequence[Entry], *, candidate: bool) -> list[Phase]:
    energies = np.array([entry.corrected_energy_per_atom for entry in entries])
    distances = hull.distances_from_hull([entry.composition for entry in entries], energies)
    references = hull.elemental_references
    phases = []
    for entry, distance in zip(entries, distances.tolist(), strict=True):
        own = entry.composition.fractions
        phases.append(
            Phase(
                id=entry.id,
                reduced_formula=entry.reduced_formula,
                fractions=tuple(own.get(z, 0.0) for z in numbers),
                formation_energy_per_atom=entry.corrected_energy_per_atom
                - sum(x * references[z] for z, x in own.items()),
                # Rounding must not put a member of the hull below it.
                distance=distance if candidate else max(0.0, distance),
                candidate=candidate,
            )
        )
    return phases


def _tie_lines(phases: Sequence[Phase]) -> tuple[tuple[int, int], ...]:
    """Edges of the lower hull over the stable members, by qhull.

    A point above everything makes it a solid also where only the elements are stable.
    """
    members = [i for i, phase in enumerate(phases) if phase.stable and not phase.candidate]
    points = np.array([[*phases[i].fractions[1:], phases[i].formation_energy_per_atom] for i in members])
    k = points.shape[1]
    top = np.append(np.full(k - 1, 1.0 / k), 1.0 + points[:, -1].max())
    found = ConvexHull(np.vstack([points, top]))
    lower = found.simplices[found.equations[:, k - 1] < -_VERTICAL]
    edges = {pair for simplex in lower.tolist() for pair in combinations(sorted(simplex), 2)}
    return tuple(sorted((members[a], members[b]) for a, b in edges if b < len(members)))


def _binary(figure: "Figure", diagram: PhaseDiagram) -> None:
    ax = figure.subplots()
    phases = diagram.phases
    for a, b in diagram.tie_lines:
        ax.plot(*_energy_points([phases[a], phases[b]]), color=INK, linewidth=1.0, zorder=2)
    for own, style, name in _kinds(phases):
        ax.scatter(*_energy_points(own), label=name, zorder=3, **style)
    lowest = min(phase.formation_energy_per_atom for phase in phases)
    highest = max(phase.formation_energy_per_atom for phase in phases)
    span = max(-lowest, 0.1)
    # Room for labels below, and no phase far above zero that would flatten the rest.
    ax.set_ylim(lowest - 0.16 * span, min(highest, 0.5 * span) + 0.08 * span)
    first, second = diagram.elements
    ax.set(xlabel=f"fraction of {second} in {first}-{second}", ylabel="formation energy, eV/atom", xlim=(-0.04, 1.04))
    ax.legend(loc="upper center", ncols=4, bbox_to_anchor=(0.5, 1.12), fontsize=7.5)
    labels = [
        label(ax, p.reduced_formula, (p.fractions[1], p.formation_energy_per_atom), offset=-9, color=_colour(p))
        for p in _labelled(phases)
    ]
    number_overlapping(figure, labels)


def _ternary(figure: "Figure", diagram: PhaseDiagram) -> None:
    ax = figure.subplots()
    ax.fill(*_TRIANGLE.T, facecolor="none", edgecolor=LINE, linewidth=0.8)
    _draw_simplex(figure, ax, diagram, _TRIANGLE, line_color=SOFT)


def _quaternary(figure: "Figure", diagram: PhaseDiagram) -> None:
    ax = figure.subplots()
    for edge in combinations(range(4), 2):
        ax.plot(*_TETRAHEDRON[list(edge)].T, color=SOFT, linewidth=0.8, linestyle=":" if edge in _HIDDEN_EDGES else "-")
    _draw_simplex(figure, ax, diagram, _TETRAHEDRON, line_color=LINE)


def _draw_simplex(figure: "Figure", ax: "Axes", diagram: PhaseDiagram, corners: np.ndarray, *, line_color: str) -> None:
    """Tie lines and phases over corners (k, 2); phases above the hull are coloured by their distance."""
    phases = diagram.phases
    places = np.array([phase.fractions for phase in phases]) @ corners  # (n, 2)
    for a, b in diagram.tie_lines:
        ax.plot(*places[[a, b]].T, color=line_color, linewidth=0.8, zorder=1)
    for candidate, marker, edge in ((False, "o", "none"), (True, "D", _CANDIDATE)):
        own = [i for i, phase in enumerate(phases) if not phase.stable and phase.candidate == candidate]
        if own:
            ax.scatter(
                places[own, 0],
                places[own, 1],
                c=[1e3 * phases[i].distance for i in own],
                cmap=_COLOURS,
                vmin=0,
                vmax=1e3 * _MAX_DISTANCE,
                marker=marker,
                s=18,
                edgecolors=edge,
                linewidths=0.8,
                label="candidate, above the hull" if candidate else "above the hull",
                zorder=3,
            )
    for own_phases, style, name in _kinds([phase for phase in phases if phase.stable]):
        points = np.array([phase.fractions for phase in own_phases]) @ corners
        ax.scatter(points[:, 0], points[:, 1], label=name, zorder=4, **style)
    if not all(phase.stable for phase in phases):
        _colour_bar(figure, ax)
    low, high = corners.min(axis=0) - 0.09, corners.max(axis=0) + 0.09
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set_aspect("equal")
    ax.axis("off")
    ax.legend(loc="upper left", fontsize=7.5)
    number_overlapping(figure, [_simplex_label(ax, phase, corners) for phase in _labelled(phases)])


def _simplex_label(ax: "Axes", phase: Phase, corners: np.ndarray) -> "Annotation":
    x, y = np.array(phase.fractions) @ corners
    corner = max(phase.fractions) == 1.0
    return label(
        ax,
        phase.reduced_formula,
        (x, y),
        offset=-11 if corner and y < corners[:, 1].mean() else 9,
        color=_colour(phase),
        bold=corner,
        size=10 if corner else 7.5,
    )


def _colour(phase: Phase) -> str:
    return _CANDIDATE if phase.candidate else INK


def _colour_bar(figure: "Figure", ax: "Axes") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, 1e3 * _MAX_DISTANCE), cmap=_COLOURS)
    bar = figure.colorbar(scale, ax=ax, shrink=0.6, extend="max", pad=0.02)
    bar.set_label("distance to the hull, meV/atom")


def _kinds(phases: Sequence[Phase]) -> list[tuple[list[Phase], dict[str, Any], str]]:
    """Phases by whether they are stable and of the hull, with the style of each kind."""
    hollow = {"facecolors": "white", "linewidths": 0.9}
    kinds = (
        (False, False, {"s": 16, "edgecolors": SOFT} | hollow, "above the hull"),
        (True, False, {"s": 22, "marker": "D", "edgecolors": _CANDIDATE} | hollow, "candidate, above the hull"),
        (False, True, {"s": 26, "color": INK}, "stable"),
        (True, True, {"s": 95, "marker": "*", "color": _CANDIDATE}, "candidate, on or below the hull"),
    )
    found = []
    for candidate, stable, style, name in kinds:
        own = [phase for phase in phases if phase.candidate == candidate and phase.stable == stable]
        if own:
            found.append((own, style, name))
    return found


def _labelled(phases: Sequence[Phase]) -> list[Phase]:
    """Elements, then candidates on the hull, then the most strongly bound stable phases while there is room."""
    stable = [phase for phase in phases if phase.stable]
    stable.sort(key=lambda p: (max(p.fractions) < 1.0, not p.candidate, p.formation_energy_per_atom, p.id))
    # A candidate and a phase of the hull may share a composition, hence a place.
    distinct = {phase.reduced_formula: phase for phase in reversed(stable)}
    return [phase for phase in stable if distinct[phase.reduced_formula] is phase][:_MAX_LABELS]


def _energy_points(phases: Sequence[Phase]) -> tuple[list[float], list[float]]:
    return [p.fractions[1] for p in phases], [p.formation_energy_per_atom for p in phases]


def _phase_table(diagram: PhaseDiagram) -> Cell:
    rows = [
        [
            text(phase.reduced_formula),
            text(phase.id),
            text(f"{phase.formation_energy_per_atom:.4f}"),
            text(f"{1e3 * phase.distance:.1f}"),
            text("candidate" if phase.candidate else ""),
        ]
        for phase in diagram.phases
    ]
    head = ["formula", "id", "formation energy, eV/atom", "distance to the hull, meV/atom", ""]
    return table(head, rows, numeric=(2, 3))
