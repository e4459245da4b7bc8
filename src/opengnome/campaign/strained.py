"""Known crystals at other volumes: what teaches the models that volume matters.

Tables of relaxed crystals hold no compressed or expanded one, so a network trained on them alone finds its lowest
energy at the edge of a volume scan. Single points of the oracle at a few volumes supply the difference; the
energy at the known volume stays the known set's own, so the oracle's error in the formation energy does not enter.
"""

from collections.abc import Mapping

import numpy as np

from opengnome.campaign.events import Calculated
from opengnome.campaign.seeds import seed_for
from opengnome.crystals import Crystal, CrystalTable, with_volume
from opengnome.datasets import KnownSet

_SEPARATOR = "@volume="
"""No table of crystals has it in its ids."""
_UNSTRAINED = 1.0


def strained_id(identifier: str, volume: float) -> str:
    """Id of a known crystal at a multiple of its volume, e.g. ``mp-22862@volume=0.85``."""
    return f"{identifier}{_SEPARATOR}{volume:g}"


def is_strained(identifier: str) -> bool:
    """Whether an id names a strained single point."""
    return _SEPARATOR in identifier


def strained_crystals(
    known: KnownSet, *, n_crystals: int, volumes: tuple[float, ...], max_atoms: int, seed: int
) -> CrystalTable | None:
    """A seeded sample of known crystals at their own volume and at the multiples `volumes` of it."""
    small = np.flatnonzero(known.table.n_atoms <= max_atoms).tolist()
    drawn = sorted(small, key=lambda i: seed_for(seed, "strained", known.table.ids[i]))[:n_crystals]
    if not drawn:
        return None
    crystals: list[Crystal] = []
    ids: list[str] = []
    for i in sorted(drawn):
        crystal = known.table[i]
        for volume in (_UNSTRAINED, *volumes):
            crystals.append(with_volume(crystal, crystal.volume * volume))
            ids.append(strained_id(known.table.ids[i], volume))
    return CrystalTable.from_crystals(crystals, ids)


def strained_rows(
    formation_energies: Mapping[str, float],
    crystals: CrystalTable,
    calculations: Mapping[str, Calculated],
) -> list[tuple[str, Crystal, float]]:
    """Training rows (id, crystal, formation energy in eV/atom) of the strained crystals the oracle answered for.

    `formation_energies` are the known set's, by id.
    """
    rows = []
    for i, identifier in enumerate(crystals.ids):
        if not is_strained(identifier) or identifier not in calculations:
            continue
        parent, _, volume = identifier.rpartition(_SEPARATOR)
        base = calculations.get(strained_id(parent, _UNSTRAINED))
        energy = calculations[identifier].energy_per_atom
        if float(volume) == _UNSTRAINED or base is None or base.energy_per_atom is None or energy is None:
            continue
        rows.append((identifier, crystals[i], formation_energies[parent] + energy - base.energy_per_atom))
    return rows
