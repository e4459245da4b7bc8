"""What a campaign knows at the start of a round: entries, hulls, parents, formulas, training rows."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.events import Aligned, Calculated
from opengnome.campaign.seeds import seed_for
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState
from opengnome.crystals import Crystal, CrystalTable, concatenate
from opengnome.crystals.table import STRUCTURE_COLUMNS
from opengnome.datasets import KnownSet
from opengnome.hull import Entry, Hull
from opengnome.oracles import Calculation, read_calculation


class Knowledge:
    """The known set and what the oracle has added to it, as of the start of a round."""

    def __init__(self, root: Path, known: KnownSet, settings: CampaignSettings) -> None:
        self.root = root
        self.known = known
        self.settings = settings
        self.initial_hull = Hull(known.entries)
        self._hull_after = lru_cache(maxsize=4)(self._build_hull)

    def calculated(self, state: CampaignState, *, before_round: int) -> list[Calculated]:
        """Converged calculations of earlier rounds, in the order of round and id."""
        return sorted(
            (
                c
                for number, current in state.rounds.items()
                if number < before_round
                for c in current.calculations.values()
                if has_energy(c)
            ),
            key=lambda c: (c.round, c.crystal_id),
        )

    def entries(self, state: CampaignState, *, before_round: int) -> tuple[Entry, ...]:
        """Hull entries of the calculations of earlier rounds."""
        alignment = alignment_of(state)
        return tuple(
            entry_of(c, alignment, level=self.known.level) for c in self.calculated(state, before_round=before_round)
        )

    def hull(self, state: CampaignState, *, before_round: int) -> Hull:
        """Hull of the known set and all earlier rounds."""
        return self._hull_after(self.entries(state, before_round=before_round))

    def _build_hull(self, entries: tuple[Entry, ...]) -> Hull:
        return self.initial_hull.with_entries(entries) if entries else self.initial_hull

    def parents(self, state: CampaignState, number: int) -> CrystalTable:
        """Known crystals near the current hull (a seeded draw of them) and all calculated crystals as near to it."""
        settings = self.settings.parents
        table = self.known.table
        hull = self.hull(state, before_round=number)
        distance = self.distances(hull)
        near = (table.n_atoms <= settings.max_atoms) & (distance <= settings.max_energy_above_hull)
        positions = np.flatnonzero(near).tolist()
        if settings.max_parents is not None:
            positions.sort(key=lambda i: seed_for(self.settings.seed, "parents", number, table.ids[i]))
            positions = positions[: settings.max_parents]
        known = table.take(np.array(sorted(positions), dtype=int))
        known = CrystalTable(known.arrow.select(list(STRUCTURE_COLUMNS)))
        discovered = [
            (c.crystal_id, crystal)
            for c, entry in zip(
                self.calculated(state, before_round=number),
                self.entries(state, before_round=number),
                strict=True,
            )
            if hull.energy_above_hull(entry) <= settings.max_energy_above_hull
            and (crystal := self.relaxed(c)) is not None
            and crystal.n_atoms <= settings.max_atoms
        ]
        if not discovered:
            return known
        ids, crystals = zip(*discovered, strict=True)
        return concatenate([known, CrystalTable.from_crystals(list(crystals), list(ids))])

    def distances(self, hull: Hull) -> np.ndarray:
        """Distance of every known crystal to `hull`, eV/atom, shape (n_crystals,)."""
        entries = self.known.entries[: len(self.known.table)]
        energies = np.array([e.corrected_energy_per_atom for e in entries])
        return hull.distances_from_hull([e.composition for e in entries], energies)

    def formulas(self, state: CampaignState, number: int) -> list[str]:
        """Compositions that are not new: known ones, the elements, and all that were tried in earlier rounds."""
        tried = {
            choice.reduced_formula
            for earlier, current in state.rounds.items()
            if earlier < number
            for choice in current.choices
        }
        # a table of formation energies need not list the elements
        known = {entry.composition.reduced_formula for entry in self.known.entries}
        return sorted(known | tried)

    def relaxed(self, calculated: Calculated) -> Crystal | None:
        """The relaxed crystal of a calculation, read from its file."""
        return self.calculation(calculated).crystal

    def calculation(self, calculated: Calculated) -> Calculation:
        """The full record of a calculation, read from its file."""
        return read_calculation(self.root / calculated.path)


def alignment_of(state: CampaignState) -> Aligned:
    """How oracle energies are aligned; every round comes after it is known."""
    if state.alignment is None:
        raise ValueError("the campaign is not aligned yet: plan() orders Align before any round")
    return state.alignment
