"""Numbers as text and as rates: the same form on the page, in Markdown and in the terminal."""

import math
from dataclasses import dataclass

from scipy.special import ndtri

MISSING = "\N{EN DASH}"
"""Stands where there is no number (yet)."""
_MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Rate:
    """How many of how many."""

    hits: int
    total: int

    @property
    def value(self) -> float:
        """Share between 0 and 1; NaN of nothing."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the share (doi:10.1080/01621459.1927.10502953)."""
        return wilson_interval(self.hits, self.total)

    def __str__(self) -> str:
        if not self.total:
            return MISSING
        low, high = self.interval
        return f"{100 * self.value:.0f} % ({self.hits} of {self.total}; {100 * low:.0f}\N{EN DASH}{100 * high:.0f} %)"


def wilson_interval(hits: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a binomial share by Wilson's score; (0, 1) when nothing was tried."""
    if total == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + 0.5 * level))
    share, weight = hits / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low = 0.0 if hits == 0 else centre - half  # exact at the ends, where rounding leaves 1e-17
    high = 1.0 if hits == total else centre + half
    return low, high


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def fixed(value: float | None, decimals: int) -> str:
    """A number with a typographic minus; never ``-0``."""
    if value is None or not math.isfinite(value):
        return MISSING
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", _MINUS)


def mev(value: float | None, *, decimals: int = 0) -> str:
    """An energy in eV written in meV, without the unit."""
    return MISSING if value is None else fixed(1e3 * value, decimals)


def plus_minus(value: float, std: float) -> str:
    """An energy in eV with its uncertainty, in meV; the value alone where there is no uncertainty."""
    return f"{mev(value)} ± {mev(std)}" if math.isfinite(std) and std > 0 else mev(value)


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return MISSING if value is None or not math.isfinite(value) else f"{100 * value:.0f} %"


def listed(counts: dict[str, int]) -> str:
    """E.g. ``2 unconverged, 1 too dense``; the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in ordered)
