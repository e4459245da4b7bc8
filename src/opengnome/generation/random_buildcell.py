"""Seeds for AIRSS' own generator, for those who have it (https://airss-docs.github.io)."""

import numpy as np

from opengnome.crystals.composition import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.generation.random_settings import RandomStructureSettings
from opengnome.generation.random_structures import CompositionRules, composition_rules

_SLACK, _OVERLAP = 0.25, 0.1
"""How far MINSEP may be relaxed and what overlap energy is left, as in the examples of AIRSS."""


def buildcell_seed(composition: Composition, settings: RandomStructureSettings) -> str:
    """Text of a ``.cell`` file from which ``buildcell`` makes random structures by the same rules.

    The atoms of one formula unit are listed, as AIRSS' ``gencell`` does, so that TARGVOL is the volume of a formula
    unit (A^3). The minimum distances are ranges, from the smallest volume to the estimate. What buildcell has no
    words for is left out: the share of P1 (when neither 0 nor 1), the bound on the cell's shape, and growth.
    Raises as `random_crystals`.
    """
    rules = composition_rules(composition, settings)
    reduced = composition.reduced
    volume = rules.volume_per_atom * reduced.n_atoms
    edge = volume ** (1 / 3)
    atoms = [
        f"{SYMBOLS[z]} 0.0 0.0 0.0 # {SYMBOLS[z]}{i} % NUM=1"
        for z, count in reduced.counts
        for i in range(1, count + 1)
    ]
    low, high = settings.volume_scales
    lines = [
        "%BLOCK LATTICE_CART",
        *(" ".join(f"{x:.5f}" for x in row) for row in edge * np.eye(3)),
        "%ENDBLOCK LATTICE_CART",
        "",
        f"#TARGVOL={low * volume:.2f}-{high * volume:.2f}",
        "",
        "%BLOCK POSITIONS_FRAC",
        *atoms,
        "%ENDBLOCK POSITIONS_FRAC",
        "",
        _symmetry(settings),
        f"#NFORM={_range(rules.unit_numbers[0], rules.unit_numbers[-1])}",
        f"#SLACK={_SLACK}",
        f"#OVERLAP={_OVERLAP}",
        "#COMPACT",
        f"#MINSEP={_separations(rules, low)}",
    ]
    return "\n".join(lines) + "\n"


def _symmetry(settings: RandomStructureSettings) -> str:
    if settings.p1_share == 1:
        return "#SYMMOPS=1"
    if settings.space_groups is not None:
        return "#SYMMNO=" + ",".join(map(str, sorted(set(settings.space_groups))))
    return f"#SYMMOPS={1 if settings.p1_share > 0 else 2}-48"


def _separations(rules: CompositionRules, lowest_scale: float) -> str:
    symbols = [SYMBOLS[z] for z in rules.atomic_numbers]
    lows, highs = rules.min_distances_at(lowest_scale), rules.min_distances_at(1.0)
    parts = [f"{lows.min():.2f}"]
    for i, first in enumerate(symbols):
        for j in range(i, len(symbols)):
            low, high = f"{lows[i, j]:.2f}", f"{highs[i, j]:.2f}"
            parts.append(f"{first}-{symbols[j]}={high if low == high else f'{low}-{high}'}")
    return " ".join(parts)


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
