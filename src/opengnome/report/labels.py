"""Formulas beside the points of a drawing, numbered and listed where they would cover each other."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from opengnome.report.figures import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

_LIST_LENGTH = 18
"""Lines of a column of the list."""


def formula_label(reduced_formula: str) -> str:
    """A formula with its numbers set low, for matplotlib."""
    return re.sub(r"(?<=[A-Za-z)])(\d+)", r"$_{\1}$", reduced_formula)


def label(
    ax: "Axes",
    reduced_formula: str,
    place: tuple[float, float],
    *,
    offset: float = 7.0,
    color: str = INK,
    bold: bool = False,
    size: float = 7.5,
) -> "Annotation":
    """A formula `offset` points above a place (below when negative, on it when zero), with a white rim."""
    from matplotlib.patheffects import withStroke

    return ax.annotate(
        formula_label(reduced_formula),
        place,
        xytext=(0, offset),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=size,
        fontweight="bold" if bold else "normal",
        color=color,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        zorder=6,
    )


def number_overlapping(figure: "Figure", labels: Sequence["Annotation"]) -> None:
    """Replace labels that would cover an earlier one by numbers, and list the numbers at the right.

    Earlier labels keep their place, so give the important ones first. A number that would cover something too
    is put beside its place where there is room.
    """
    figure.draw_without_rendering()  # places the axes, which decides what overlaps
    kept: list[Bbox] = []
    listed: list[str] = []
    for annotation in labels:
        box = annotation.get_window_extent()
        if _is_covered(box, kept):
            listed.append(f"{len(listed) + 1}  {annotation.get_text()}")
            annotation.set_text(str(len(listed)))
            annotation.set_fontsize(6.5)
            box = _find_room(annotation, kept)
        kept.append(box)
    columns = [listed[i : i + _LIST_LENGTH] for i in range(0, len(listed), _LIST_LENGTH)]
    for number, lines in enumerate(columns):
        figure.text(
            0.985 - 0.13 * (len(columns) - 1 - number), 0.02, "\n".join(lines), fontsize=6.5, color=INK, ha="right"
        )


def _is_covered(box: "Bbox", others: Sequence["Bbox"]) -> bool:
    return any(box.overlaps(other) for other in others)


def _find_room(annotation: "Annotation", kept: Sequence["Bbox"]) -> "Bbox":
    """The box of a label at the first place that covers nothing, at its own where there is none."""
    own = annotation.get_position()
    for shift in ((0, 0), (8, 0), (-8, 0), (0, -10), (0, 10), (12, -8), (-12, 8)):
        annotation.set_position((own[0] + shift[0], own[1] + shift[1]))
        box = annotation.get_window_extent()
        if not _is_covered(box, kept):
            return box
    annotation.set_position(own)
    return annotation.get_window_extent()
