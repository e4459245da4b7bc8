"""Figures as inline SVG, by matplotlib's object interface; the same data give the same text.

matplotlib is imported when the first figure is drawn, so that importing this module stays cheap.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from opengnome.campaign.selection import (
    ARMS,
    COMPOSITIONAL,
    MODEL,
    RANDOM_COMPOSITIONS,
    RANDOM_FILTERED,
    RANDOM_UNFILTERED,
)
from opengnome.report.evidence import Comparison, ModelCard
from opengnome.report.numbers import Rate
from opengnome.report.rounds import ARM_NAMES, RoundSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#1c2530", "#5b6875", "#c9d1d9"
ARM_COLOURS = {
    MODEL: "#0072b2",
    RANDOM_FILTERED: "#d98e04",
    RANDOM_UNFILTERED: "#7a8794",
    COMPOSITIONAL: "#009e73",
    RANDOM_COMPOSITIONS: "#cc79a7",
}
_HIT_RATE_SIZE = (8.4, 3.2)
"""Inches."""
_ARM_MARKERS = {MODEL: "o", RANDOM_FILTERED: "s", RANDOM_UNFILTERED: "^", COMPOSITIONAL: "D", RANDOM_COMPOSITIONS: "v"}
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are the same on every machine
    "font.size": 8.5,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "mathtext.default": "regular",
    "svg.fonttype": "path",
    "svg.hashsalt": "opengnome",
}


@contextmanager
def canvas(width: float, height: float) -> "Iterator[Figure]":
    """An empty figure in the page's style, inches."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(cast(Any, _STYLE)):  # its keys are literal types
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: "Figure", *, name: str, label: str, narrow: bool = False) -> str:
    """The figure as an SVG element for a page; `name` makes its ids unique, `label` is read aloud.

    Namespaces and metadata are dropped: inside HTML they are not needed, and their addresses look like
    requests.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r'\s(width|height)="[\d.]+pt"', "", svg, count=2)
    kind = ' class="narrow"' if narrow else ""
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"{kind}', 1)


def hit_rate_figure(summaries: Sequence[RoundSummary]) -> str:
    """Hit rate of every arm by round, against the initial and against the current hull, as an SVG element."""
    with canvas(*_HIT_RATE_SIZE) as figure:
        _draw_hit_rates(figure, summaries)
        return to_svg(figure, name="hit-rates", label="Hit rate by round for every arm")


def save_hit_rates(summaries: Sequence[RoundSummary], path: Path) -> None:
    """The same as an SVG file of its own."""
    with canvas(*_HIT_RATE_SIZE) as figure:
        _draw_hit_rates(figure, summaries)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_hit_rates(figure: "Figure", summaries: Sequence[RoundSummary]) -> None:
    closed = [s for s in summaries if s.closed]
    axes = figure.subplots(1, 2, sharey=True)
    for ax, which, title in zip(
        axes, ("initial", "current"), ("Against the initial hull", "Against the current hull"), strict=True
    ):
        for shift, arm in zip((-0.12, 0.0, 0.12, 0.24, 0.36), ARMS, strict=True):
            _plot_rates(ax, closed, arm, which, shift)
        ax.set_title(title)
        ax.set_xlabel("round")
        ax.set_xticks([s.number for s in closed])
        ax.set_xlim(closed[0].number - 0.6, closed[-1].number + 0.6)
        ax.grid(axis="y", color=LINE, linewidth=0.5)
    axes[0].set_ylabel("hits among all calculated, %")
    axes[0].set_ylim(bottom=0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)


def _plot_rates(ax: "Axes", closed: Sequence[RoundSummary], arm: str, which: str, shift: float) -> None:
    rates: list[tuple[int, Rate]] = [(s.number, getattr(s.arms[arm], which)) for s in closed if arm in s.arms]
    if not rates:
        return
    share = np.array([rate.value for _, rate in rates])
    bounds = np.array([rate.interval for _, rate in rates])
    ax.errorbar(
        [number + shift for number, _ in rates],
        100 * share,
        yerr=100 * np.abs(np.stack([share - bounds[:, 0], bounds[:, 1] - share])),
        color=ARM_COLOURS[arm],
        marker=_ARM_MARKERS[arm],
        markersize=5,
        linewidth=1,
        elinewidth=1,
        capsize=2.5,
        label=ARM_NAMES[arm],
    )


def parity_figure(compared: Sequence[Comparison], *, number: int) -> str:
    """Predicted against calculated formation and decomposition energy of one round."""
    with canvas(8.4, 3.9) as figure:
        left, right = figure.subplots(1, 2)
        for arm in ARMS[::-1]:  # the model's choice on top
            own = [c for c in compared if c.arms and c.arms[0] == arm]
            if own:
                _plot_parity(left, own, arm, reference=0.0, unit=1.0)
                _plot_parity(right, own, arm, reference=1.0, unit=1e3)
        _finish_parity(left, compared, "Formation energy, eV/atom", reference=0.0, unit=1.0)
        _finish_parity(right, compared, "Distance to the hull, meV/atom", reference=1.0, unit=1e3)
        right.axhline(0, color=SOFT, linewidth=0.5, linestyle=":")
        right.axvline(0, color=SOFT, linewidth=0.5, linestyle=":")
        figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        return to_svg(figure, name=f"parity-{number}", label=f"Predicted against calculated, round {number}")


def _plot_parity(ax: "Axes", own: Sequence[Comparison], arm: str, *, reference: float, unit: float) -> None:
    calculated, predicted = _parity_points(own, reference, unit)
    ax.errorbar(
        calculated,
        predicted,
        yerr=[unit * c.std for c in own],
        fmt=_ARM_MARKERS[arm],
        color=ARM_COLOURS[arm],
        markersize=3.5,
        elinewidth=0.6,
        alpha=0.75,
        label=ARM_NAMES[arm],
    )


def _parity_points(own: Sequence[Comparison], reference: float, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Calculated and predicted energies above `reference` times the hull, in units of eV / `unit`."""
    hull = reference * np.array([c.hull_energy for c in own])
    calculated, predicted = np.array([c.calculated for c in own]), np.array([c.predicted for c in own])
    return unit * (calculated - hull), unit * (predicted - hull)


def _finish_parity(ax: "Axes", compared: Sequence[Comparison], title: str, *, reference: float, unit: float) -> None:
    """Equal axes over what passed the filters: random candidates may lie anywhere and would squeeze the rest."""
    filtered = [c for c in compared if c.arms != (RANDOM_UNFILTERED,)] or compared
    spanned = np.concatenate(_parity_points(filtered, reference, unit))
    margin = 0.08 * np.ptp(spanned) + 0.05 * unit
    low, high = spanned.min() - margin, spanned.max() + margin
    everything = np.stack(_parity_points(compared, reference, unit))
    outside = int(((everything < low) | (everything > high)).any(axis=0).sum())
    ax.plot([low, high], [low, high], color=INK, linewidth=0.7, zorder=0)
    ax.set(xlim=(low, high), ylim=(low, high), xlabel="calculated", ylabel="predicted", title=title)
    ax.set_aspect("equal", adjustable="box")
    ax.locator_params(nbins=6)
    if outside:
        ax.text(0.98, 0.03, f"{outside} outside", transform=ax.transAxes, ha="right", color=SOFT)


def calibration_figure(cards: Sequence[ModelCard], calculated: Mapping[str, Mapping[float, Rate]]) -> str:
    """Observed against nominal coverage: held-out crystals by round, calculated candidates by arm."""
    with canvas(7.2, 3.7) as figure:
        ax = figure.subplots()
        ax.plot([40, 100], [40, 100], color=INK, linewidth=0.7, zorder=0)
        judged = [card for card in cards if card.coverage]
        for shade, card in zip(np.linspace(0.35, 1.0, len(judged)), judged, strict=True):
            levels = sorted(card.coverage)
            ax.plot(
                [100 * level for level in levels],
                [100 * card.coverage[level] for level in levels],
                color="#009e73",
                alpha=float(shade),
                marker="D",
                markersize=4,
                linewidth=1,
                label=f"held-out crystals, round {card.round}",
            )
        shifts = 0.5 * (np.arange(len(calculated)) - (len(calculated) - 1) / 2)
        for shift, (arm, rates) in zip(shifts.tolist(), calculated.items(), strict=True):
            _plot_coverage(ax, rates, arm, shift)
        ax.set(xlabel="nominal coverage, %", ylabel="observed coverage, %", xlim=(42, 100), ylim=(0, 103))
        ax.set_xticks([50, 80, 90, 95])
        figure.legend(loc="outside right upper", fontsize=7.5)
        return to_svg(figure, name="calibration", label="Coverage of the prediction intervals")


def _plot_coverage(ax: "Axes", rates: Mapping[float, Rate], arm: str, shift: float) -> None:
    share = np.array([rate.value for rate in rates.values()])
    bounds = np.array([rate.interval for rate in rates.values()])
    ax.errorbar(
        [100 * level + shift for level in rates],
        100 * share,
        yerr=100 * np.abs(np.stack([share - bounds[:, 0], bounds[:, 1] - share])),
        color=ARM_COLOURS[arm],
        marker=_ARM_MARKERS[arm],
        markersize=4,
        linewidth=1,
        elinewidth=0.8,
        capsize=2,
        label=f"calculated: {ARM_NAMES[arm][0].lower()}{ARM_NAMES[arm][1:]}",
    )


def shifts_figure(shifts: Mapping[str, float]) -> str:
    """Fitted shift of each element, by symbol, eV/atom."""
    symbols = sorted(shifts, key=lambda symbol: shifts[symbol])
    values = [1e3 * shifts[symbol] for symbol in symbols]
    many = len(symbols) > 40
    with canvas(8.4, 2.6) as figure:
        ax = figure.subplots()
        ax.bar(range(len(symbols)), values, color=["#0072b2" if v < 0 else "#d55e00" for v in values], width=0.7)
        ax.axhline(0, color=INK, linewidth=0.7)
        ax.set_xticks(range(len(symbols)), symbols, rotation=90 if many else 0, fontsize=6 if many else 8)
        ax.set_ylabel("shift, meV/atom")
        ax.set_xlim(-0.7, len(symbols) - 0.3)
        ax.grid(axis="y", color=LINE, linewidth=0.5)
        ax.set_axisbelow(True)
        return to_svg(figure, name="shifts", label="Shift per element")
