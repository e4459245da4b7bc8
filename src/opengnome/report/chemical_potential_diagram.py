"""Where the phases of a chemical system are stable, over the chemical potentials of its elements.

Two elements: the boundary of the region in which no phase precipitates, a segment per phase. Three elements:
seen along the potential of the third, so that phases with it are fields and phases without it are edges. A
field is exact: the projection of the phase's stability region. Potentials are relative to the elements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

from opengnome.crystals.elements import atomic_number
from opengnome.errors import SettingsError
from opengnome.hull import Hull
from opengnome.hull.chemical_potentials import StabilityRegion, stability_regions
from opengnome.report.drawing_files import check_drawing_path, save_drawing
from opengnome.report.figures import INK, SOFT, canvas
from opengnome.report.html import Cell, table, text
from opengnome.report.labels import label, number_overlapping
from opengnome.report.phase_diagram import system_elements

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGIN = 0.5
"""Regions without a lower end are drawn this far below the lowest vertex, eV/atom."""
# A projection thinner than this (eV/atom) is an edge, not a field.
_FLAT = 1e-6
_COLOURS = "Pastel1"


@dataclass(frozen=True)
class Field:
    """The stability region of one phase in the plane of the drawing."""

    id: str
    reduced_formula: str
    corners: np.ndarray
    """(c, 2) in order around the field, or the two ends of an edge; eV/atom relative to the elements, cut off at the
    lower end of the drawing."""
    limits: tuple[tuple[float, float], ...]
    """Lowest and highest potential of each element of the system within the region, eV/atom, -inf where it has no
    lower end."""

    @property
    def is_edge(self) -> bool:
        return len(self.corners) == 2


@dataclass(frozen=True)
class ChemicalPotentialDiagram:
    """Fields of all stable phases; the axes are the potentials of the first two elements."""

    elements: tuple[str, ...]
    level: str
    lowest: float
    """Lower end of both axes, eV/atom."""
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        return "-".join(self.elements)


def chemical_potential_diagram(hull: Hull, elements: Sequence[str]) -> ChemicalPotentialDiagram:
    """The diagram of two or three elements (symbols), the first two along the axes.

    Raises `SettingsError` for another number of elements, `InvalidCrystalError` for a symbol that is no element,
    `MissingReferenceError` for an element that the hull lacks.
    """
    if len(elements) not in (2, 3):
        raise SettingsError(
            f"{'-'.join(elements)} has {len(elements)} elements; chemical potentials are drawn of two or three: name "
            "them with --system"
        )
    numbers = [atomic_number(symbol) for symbol in elements]
    regions = stability_regions(hull, numbers)
    columns = [regions[0].elements.index(z) for z in numbers]
    lowest = min(float((region.vertices - region.references).min()) for region in regions) - _MARGIN
    fields = [_field(region, columns, lowest) for region in regions]
    return ChemicalPotentialDiagram(tuple(elements), hull.level, lowest, tuple(fields))


def draw_chemical_potentials(hull: Hull, path: Path, *, system: str | None = None) -> ChemicalPotentialDiagram:
    """Draw the diagram of a chemical system of two or three elements to an .svg, .png or .html file.

    `system` names the elements, the axes first; without it they are those of the hull. Gives back what is drawn.
    Raises as `chemical_potential_diagram`, and `SettingsError` for another suffix.
    """
    check_drawing_path(path)
    diagram = chemical_potential_diagram(hull, system_elements(hull, system))
    with canvas(6.4, 5.6) as figure:
        _draw(figure, diagram)
        save_drawing(
            figure,
            path,
            title=f"Chemical potentials of {diagram.name}",
            subtitle=f"level of theory: {diagram.level}; potentials relative to the elements",
            body=_limits_table(diagram),
        )
    return diagram


def _field(region: StabilityRegion, columns: list[int], lowest: float) -> Field:
    vertices = (region.vertices - region.references)[:, columns]
    unbounded = [columns.index(region.elements.index(z)) for z in region.unbounded]
    corners = _extended(vertices, [axis for axis in unbounded if axis < 2], lowest)[:, :2]
    limits = tuple(
        (-np.inf if axis in unbounded else float(vertices[:, axis].min()), float(vertices[:, axis].max()))
        for axis in range(len(columns))
    )
    return Field(region.entry.id, region.entry.reduced_formula, _outline(corners), limits)


def _extended(vertices: np.ndarray, axes: list[int], lowest: float) -> np.ndarray:
    """The vertices, and each of them moved down to the end of the drawing along the axes without a lower end.

    The hull of these points is the region cut off there: a phase without an element stays in equilibrium when
    the potential of that element falls.
    """
    moved = [vertices]
    for chosen in chain.from_iterable(combinations(axes, size) for size in range(1, len(axes) + 1)):
        copy = vertices.copy()
        copy[:, list(chosen)] = lowest
        moved.append(copy)
    return np.vstack(moved)


def _outline(points: np.ndarray) -> np.ndarray:
    """Corners (c, 2) of the convex hull of points in the plane, in order; the two ends where it is flat."""
    centred = points - points.mean(axis=0)
    direction = np.linalg.svd(centred, full_matrices=False)[2][0]
    across = centred @ np.array([-direction[1], direction[0]])
    if np.ptp(across) < _FLAT:
        along = centred @ direction
        return points[[int(along.argmin()), int(along.argmax())]]
    return points[ConvexHull(points).vertices]


def _draw(figure: "Figure", diagram: ChemicalPotentialDiagram) -> None:
    from matplotlib import colormaps

    ax = figure.subplots()
    colours = colormaps[_COLOURS]
    areas = [field for field in diagram.fields if not field.is_edge]
    for i, field in enumerate(areas):
        ax.fill(*field.corners.T, facecolor=colours(i % colours.N), edgecolor=SOFT, linewidth=0.8, zorder=1)
    edges = [field for field in diagram.fields if field.is_edge]
    for i, field in enumerate(edges):
        colour = colours(i % colours.N) if not areas else INK
        ax.plot(*field.corners.T, color=INK if areas else colour, linewidth=1.6 if areas else 3.0, zorder=2)
        ax.plot(*field.corners.T, linestyle="none", marker="o", markersize=2.5, color=INK, zorder=3)
    room = 0.06 * -diagram.lowest
    first, second = diagram.elements[:2]
    ax.set(
        xlim=(diagram.lowest, room),
        ylim=(diagram.lowest, room),
        xlabel=f"chemical potential of {first}, eV/atom",
        ylabel=f"chemical potential of {second}, eV/atom",
    )
    ax.set_aspect("equal")
    # Large fields first: they keep their names where names would cover each other.
    by_size = sorted(diagram.fields, key=lambda field: (-_size(field), field.id))
    labels = []
    for field in by_size:
        x, y = _middle(field.corners)
        labels.append(label(ax, field.reduced_formula, (x, y), offset=0.0, size=8))
    number_overlapping(figure, labels)


def _size(field: Field) -> float:
    """Length of an edge, square root of the area of a field, eV/atom."""
    if field.is_edge:
        return float(np.linalg.norm(field.corners[1] - field.corners[0]))
    return float(np.sqrt(ConvexHull(field.corners).volume))


def _middle(corners: np.ndarray) -> np.ndarray:
    """Centroid of a convex polygon with corners in order, or the middle of an edge; inside, unlike their mean."""
    if len(corners) == 2:
        return corners.mean(axis=0)
    following = np.roll(corners, -1, axis=0)
    cross = corners[:, 0] * following[:, 1] - following[:, 0] * corners[:, 1]
    return ((corners + following) * cross[:, None]).sum(axis=0) / (3.0 * cross.sum())


def _limits_table(diagram: ChemicalPotentialDiagram) -> Cell:
    head = ["formula", "id", *(f"{symbol}, eV/atom" for symbol in diagram.elements)]
    rows = [
        [text(field.reduced_formula), text(field.id), *(text(_range(*limits)) for limits in field.limits)]
        for field in diagram.fields
    ]
    return table(head, rows)


def _range(low: float, high: float) -> str:
    if np.isinf(low):
        return f"up to {high:.3f}"
    return f"{low:.3f} to {high:.3f}" if high - low > _FLAT else f"{high:.3f}"
