"""Pieces of HTML. Everything that comes from data passes through `text`."""

import html
import re
from collections.abc import Iterable, Sequence

Cell = str
"""Markup that is already safe."""


def text(value: object) -> Cell:
    """Any value as escaped text."""
    return html.escape(str(value))


def tag(name: str, content: str, **attributes: str) -> Cell:
    """An element; attribute names may end in ``_`` (``class_``), values are escaped here."""
    written = "".join(f' {k.rstrip("_")}="{html.escape(v)}"' for k, v in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def paragraph(*sentences: str) -> Cell:
    """Sentences of plain text as a paragraph."""
    return tag("p", " ".join(text(s) for s in sentences))


def section(title: str, *content: str, anchor: str) -> Cell:
    """A titled part of the page that can be linked to."""
    return tag("section", tag("h2", text(title)) + "".join(content), id=anchor)


def table(
    head: Sequence[str], rows: Iterable[Sequence[Cell]], *, numeric: Iterable[int] = (), words: Iterable[int] = ()
) -> Cell:
    """A table in a box that scrolls sideways when it must.

    `head` is plain text, `rows` are safe markup. Columns in `numeric` are set flush right, those in `words`
    are given room to read.
    """
    kinds = dict.fromkeys(numeric, "number") | dict.fromkeys(words, "words")

    def cells(name: str, row: Sequence[Cell]) -> Cell:
        return "".join(
            tag(name, cell, class_=kinds[column]) if column in kinds else tag(name, cell)
            for column, cell in enumerate(row)
        )

    body = "".join(tag("tr", cells("td", row)) for row in rows)
    header = tag("thead", tag("tr", cells("th", [text(h) for h in head])))
    return tag("div", tag("table", header + tag("tbody", body), class_="plain"), class_="scroll")


def details(summary: str, content: Cell) -> Cell:
    """Content that is folded away until it is asked for."""
    return tag("details", tag("summary", text(summary)) + content)


def long_table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    shown: int,
    numeric: Sequence[int] = (),
    words: Sequence[int] = (),
) -> Cell:
    """The first rows in the open, the rest folded away; the arguments are those of `table`."""
    first = table(head, rows[:shown], numeric=numeric, words=words)
    if len(rows) <= shown:
        return first
    return first + details(f"{len(rows) - shown} more", table(head, rows[shown:], numeric=numeric, words=words))


def figure(svg: str, caption: str) -> Cell:
    """An inline SVG with its caption (plain text)."""
    return tag("figure", tag("div", svg, class_="scroll") + tag("figcaption", text(caption)))


def formula(reduced: str) -> Cell:
    """A chemical formula with subscripts."""
    return re.sub(r"(?<=[A-Za-z)])(\d+)", r"<sub>\1</sub>", text(reduced))


def space_group(symbol: str, number: int) -> Cell:
    """A Hermann-Mauguin symbol with screw subscripts and bars, and its number."""
    written = re.sub(r"_(\d)", r"<sub>\1</sub>", text(symbol))
    written = re.sub(r"-(\d)", r'<span class="bar">\1</span>', written)
    return f'<span class="nowrap">{tag("i", written)} <small>({number})</small></span>'


def replacement(replaced: str) -> Cell:
    """What was replaced, e.g. ``Ba2+->Sr2+``, with superscripts and arrows."""
    arrows = text(replaced.replace("->", "→").replace("-", "\N{MINUS SIGN}"))
    return re.sub("([A-Z][a-z]?)(\\d*[+\N{MINUS SIGN}])", r"\1<sup>\2</sup>", arrows).replace("→", " → ")
