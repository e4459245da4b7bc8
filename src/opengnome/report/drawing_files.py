"""A drawing as a file of its own: SVG, PNG, or an HTML page that opens offline."""

from pathlib import Path
from typing import TYPE_CHECKING

from opengnome.crystals.replacement import replace_file
from opengnome.errors import SettingsError
from opengnome.report.figures import to_svg
from opengnome.report.html import Cell, tag, text
from opengnome.report.style import CSS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWING_SUFFIXES = (".svg", ".png", ".html")
_DOTS_PER_INCH = 200


def check_drawing_path(path: Path) -> None:
    """Raise `SettingsError` when a drawing cannot be written to a file of this suffix."""
    if path.suffix not in DRAWING_SUFFIXES:
        raise SettingsError(f"{path} is none of {', '.join(DRAWING_SUFFIXES)}: drawings are written as one of these")


def save_drawing(figure: "Figure", path: Path, *, title: str, subtitle: str = "", body: Cell = "") -> None:
    """Write a figure by the suffix of `path`, whole or not at all; `body` is further markup of an HTML page.

    The same figure gives the same SVG and HTML. Raises `SettingsError` for another suffix.
    """
    check_drawing_path(path)
    if path.suffix == ".html":
        page = _page(to_svg(figure, name="drawing", label=title), title, subtitle, body)
        replace_file(path, lambda temporary: temporary.write_text(page, encoding="utf-8"))
        return
    metadata = {"Title": title, "Date": None} if path.suffix == ".svg" else {"Title": title}
    replace_file(path, lambda temporary: figure.savefig(temporary, dpi=_DOTS_PER_INCH, metadata=metadata))


def _page(svg: str, title: str, subtitle: str, body: Cell) -> str:
    head = f'<meta charset="utf-8">{tag("title", text(title))}{tag("style", CSS)}'
    content = tag("h1", text(title)) + tag("p", text(subtitle), class_="lead") + tag("figure", svg) + body
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{tag("main", content)}</body></html>\n'
