"""Drawings of a chemical system: energy over composition for two elements, a triangle for three."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from opengnome.report.figures import INK, LINE, SOFT, canvas, to_svg
from opengnome.report.hull_view import HullView, Phase, lower_edge, tie_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISCOVERY = "#d55e00"
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
_MAX_DISTANCE = 0.2
"""Colours end here, eV/atom."""
_COLOURS = "viridis"
_MAX_LABELS = 16


def hull_figure(view: HullView) -> str:
    """The drawing of a system of two or three elements."""
    return _binary(view) if len(view.elements) == 2 else _ternary(view)


def _binary(view: HullView) -> str:
    with canvas(7.2, 4.0) as figure:
        ax = figure.subplots()
        _draw_edge(ax, lower_edge(view, known_only=True), color=SOFT, linestyle="--", label="hull of the known set")
        _draw_edge(ax, lower_edge(view, known_only=False), color=INK, linestyle="-", label="hull now")
        for phases, style, label in _kinds(view.phases):
            ax.scatter(*_energy_points(phases), label=label, zorder=3, **style)
        lowest = min(p.formation_energy_per_atom for p in view.phases)
        ax.set_ylim(*_energy_window(view.phases, lowest))
        for phase in _labelled(view):
            ax.annotate(
                _mathtext(phase.reduced_formula),
                (phase.fractions[1], phase.formation_energy_per_atom),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                color=_DISCOVERY if phase.discovered else INK,
            )
        first, second = view.elements
        ax.set(
            xlabel=f"fraction of {second} in {first}-{second}", ylabel="formation energy, eV/atom", xlim=(-0.04, 1.04)
        )
        ax.legend(loc="upper center", ncols=3, bbox_to_anchor=(0.5, 1.16), fontsize=7.5)
        return to_svg(figure, name="hull", label=f"Convex hull of {view.name}")


def _draw_edge(ax: "Axes", edge: Sequence[Phase], *, color: str, linestyle: str, label: str) -> None:
    ax.plot(*_energy_points(edge), color=color, linestyle=linestyle, linewidth=1, label=label, zorder=2)


def _energy_points(phases: Sequence[Phase]) -> tuple[list[float], list[float]]:
    return [p.fractions[1] for p in phases], [p.formation_energy_per_atom for p in phases]


def _energy_window(phases: Sequence[Phase], lowest: float) -> tuple[float, float]:
    """Room for labels below, and no phase far above zero that would flatten the rest."""
    highest = max(p.formation_energy_per_atom for p in phases)
    span = max(-lowest, 0.1)
    return lowest - 0.16 * span, min(highest, 0.5 * span) + 0.08 * span


def _kinds(phases: Sequence[Phase]) -> list[tuple[list[Phase], dict, str]]:
    """Phases by who found them and whether they are stable, with the style of each kind."""
    open_ = {"facecolors": "white", "linewidths": 0.9}
    kinds = (
        (False, False, {"s": 16, "edgecolors": SOFT} | open_, "known, above the hull"),
        (True, False, {"s": 22, "marker": "D", "edgecolors": _DISCOVERY} | open_, "calculated, above the hull"),
        (False, True, {"s": 26, "color": INK}, "known, stable"),
        (True, True, {"s": 95, "marker": "*", "color": _DISCOVERY}, "discovery"),
    )
    found = []
    for calculated, stable, style, label in kinds:
        own = [p for p in phases if p.calculated == calculated and p.stable == stable]
        if own:
            found.append((own, style, label))
    return found


def _ternary(view: HullView) -> str:
    with canvas(6.2, 5.0) as figure:
        ax = figure.subplots()
        ax.fill(*_CORNERS.T, facecolor="none", edgecolor=LINE, linewidth=0.8)
        corners = np.array([_corner_point(p) for p in view.stable])
        for a, b in tie_lines(view):
            ax.plot(*corners[[a, b]].T, color=SOFT, linewidth=0.8, zorder=1)
        _draw_unstable(ax, [p for p in view.phases if not p.stable])
        for phases, style, label in _kinds(view.stable):
            ax.scatter(*_ternary_points(phases), label=label, zorder=4, **style)
        _label_ternary(ax, view)
        ax.set(xlim=(-0.08, 1.08), ylim=(-0.09, 0.97))
        ax.set_aspect("equal")
        ax.axis("off")
        ax.legend(loc="upper left", fontsize=7.5)
        return to_svg(figure, name="hull", label=f"Convex hull of {view.name}", narrow=True)


def _draw_unstable(ax: "Axes", phases: Sequence[Phase]) -> None:
    """Phases above the hull, coloured by their distance to it."""
    for calculated, marker, edge in ((False, "o", "none"), (True, "D", _DISCOVERY)):
        own = [p for p in phases if p.calculated == calculated]
        if own:
            ax.scatter(
                *_ternary_points(own),
                c=[1e3 * p.distance for p in own],
                cmap=_COLOURS,
                vmin=0,
                vmax=1e3 * _MAX_DISTANCE,
                marker=marker,
                s=24,
                edgecolors=edge,
                linewidths=0.8,
                label=f"{'calculated' if calculated else 'known'}, above the hull",
                zorder=3,
            )
    if phases:
        _colour_bar(ax)


def _colour_bar(ax: "Axes") -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(0, 1e3 * _MAX_DISTANCE), cmap=_COLOURS)
    bar = ax.get_figure(root=True).colorbar(scale, ax=ax, shrink=0.6, extend="max", pad=0.02)  # type: ignore[union-attr]
    bar.set_label("distance to the hull, meV/atom")


def _label_ternary(ax: "Axes", view: HullView) -> None:
    from matplotlib.patheffects import withStroke

    for phase in _labelled(view):
        element = max(phase.fractions) == 1.0
        x, y = _corner_point(phase)
        below = element and y < 0.5
        ax.annotate(
            _mathtext(phase.reduced_formula),
            (x, y),
            xytext=(0, -13 if below else 7),
            textcoords="offset points",
            ha="center",
            fontsize=10 if element else 8,
            fontweight="bold" if element else "normal",
            color=_DISCOVERY if phase.discovered else INK,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=5,
        )


def _ternary_points(phases: Sequence[Phase]) -> tuple[list[float], list[float]]:
    points = np.array([_corner_point(phase) for phase in phases])
    return points[:, 0].tolist(), points[:, 1].tolist()


def _corner_point(phase: Phase) -> np.ndarray:
    return np.array(phase.fractions) @ _CORNERS


def _labelled(view: HullView) -> list[Phase]:
    """Elements and discoveries, then other stable phases while there is room."""
    ordered = sorted(view.stable, key=lambda p: (max(p.fractions) < 1.0, not p.discovered))
    return ordered[:_MAX_LABELS]


def _mathtext(reduced_formula: str) -> str:
    return re.sub(r"(?<=[A-Za-z)])(\d+)", r"$_{\1}$", reduced_formula)
