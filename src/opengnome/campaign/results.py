"""What a campaign has found: its discoveries against the hull as it is now."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from opengnome.campaign.conversion import entry_of, has_energy
from opengnome.campaign.discover import read_settings, read_state
from opengnome.campaign.events import Calculated, Choice
from opengnome.campaign.knowledge import Knowledge
from opengnome.campaign.settings import CampaignSettings
from opengnome.campaign.state import CampaignState
from opengnome.crystals import Crystal
from opengnome.crystals.symmetry import symmetry_dataset
from opengnome.datasets import load_known_set
from opengnome.errors import CampaignError
from opengnome.generation import Novelty, NoveltyLadder
from opengnome.hull import STABILITY_TOLERANCE, Entry, Hull


@dataclass(frozen=True)
class Discovery:
    """A calculated candidate on the hull of everything the campaign knows."""

    id: str
    reduced_formula: str
    space_group: str
    space_group_number: int
    formation_energy_per_atom: float
    """eV/atom, at the level of the known set."""
    decomposition_energy: float
    """Distance to the hull without this entry, eV/atom; negative is the depth of stability."""
    decomposition_energy_std: float
    """Error of an aligned formation energy on known compounds (root mean square, cross-validated), eV/atom; zero
    where the oracle made the known set. Errors of the competing phases come on top."""
    decomposition_products: str
    distance_to_initial_hull: float
    """eV/atom; below zero: more stable than any mixture of the known set."""
    round: int
    method: str
    parent_ids: tuple[str, ...]
    replaced: str
    predicted_decomposition_energy: float
    predicted_std: float
    novelty: Novelty
    """Place on the novelty ladder against the known set."""
    crystal: Crystal


class CampaignResults:
    """A campaign read back: settings, state, hulls, entries, discoveries. Never writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.settings: CampaignSettings = read_settings(root)
        self.state: CampaignState = read_state(root)
        if self.state.started is None:
            raise CampaignError(f"the campaign in {root} has not begun yet; run opengnome discover {root}")

    @cached_property
    def knowledge(self) -> Knowledge:
        return Knowledge(self.root, load_known_set(self.settings.known), self.settings)

    @cached_property
    def choices(self) -> Mapping[str, Choice]:
        """All chosen candidates by id."""
        return {
            choice.candidate_id: choice
            for _, current in sorted(self.state.rounds.items())
            for choice in current.choices
        }

    def choice_of(self, calculated: Calculated) -> Choice:
        """What was chosen when this was calculated.

        Raises `CampaignError` when that was withdrawn from the journal and not made again yet.
        """
        try:
            return self.choices[calculated.crystal_id]
        except KeyError:
            raise CampaignError(
                f"what round {calculated.round} chose is not in the journal of {self.root}, so nothing is known of "
                f"{calculated.crystal_id}; opengnome discover chooses again, and keeps what was calculated"
            ) from None

    @cached_property
    def calculations(self) -> tuple[Calculated, ...]:
        """All calculations of candidates, in the order of round and id."""
        events = (c for current in self.state.rounds.values() for c in current.calculations.values())
        return tuple(sorted(events, key=lambda c: (c.round, c.crystal_id)))

    @cached_property
    def chosen_calculations(self) -> tuple[Calculated, ...]:
        """Those of candidates that were chosen, or whose round has yet to choose again.

        Where a round was chosen again after a repair, what the first choice had calculated is an entry of the hull, and
        nobody's choice.
        """
        return tuple(c for c in self.calculations if c.crystal_id in self.choices or not self._has_chosen(c.round))

    def _has_chosen(self, number: int) -> bool:
        current = self.state.round(number)
        searches = self.settings.compositions.n_searched > 0
        return current.selection is not None and (current.compositions is not None or not searches)

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Hull entries of the converged calculations, by candidate id."""
        alignment = self.state.alignment
        if alignment is None:
            return {}
        level = self.knowledge.known.level
        return {c.crystal_id: entry_of(c, alignment, level=level) for c in self.calculations if has_energy(c)}

    @cached_property
    def hull(self) -> Hull:
        """Hull of the known set and every converged calculation."""
        return self.knowledge.initial_hull.with_entries(tuple(self.entries.values()))

    @cached_property
    def _ladder(self) -> NoveltyLadder:
        return NoveltyLadder(self.knowledge.known.table)

    @cached_property
    def discoveries(self) -> tuple[Discovery, ...]:
        """Calculated candidates that lie on the current hull, the deepest first.

        Of a composition the lowest one: two crystals of one energy are one crystal that was found twice.
        """
        lowest: dict[str, Calculated] = {}
        for calculated in self.chosen_calculations:
            entry, formula = self.entries.get(calculated.crystal_id), calculated.reduced_formula
            if entry is None or self.hull.energy_above_hull(entry) > STABILITY_TOLERANCE:
                continue
            if formula not in lowest or self._rank(calculated) < self._rank(lowest[formula]):
                lowest[formula] = calculated
        found = [self._discovery(calculated, self.entries[calculated.crystal_id]) for calculated in lowest.values()]
        return tuple(sorted(found, key=lambda d: (d.decomposition_energy, d.id)))

    def _rank(self, calculated: Calculated) -> tuple[float, str]:
        return self.entries[calculated.crystal_id].corrected_energy_per_atom, calculated.crystal_id

    def _discovery(self, calculated: Calculated, entry: Entry) -> Discovery:
        crystal = self.knowledge.relaxed(calculated)
        if crystal is None:
            raise CampaignError(f"{calculated.path} converged but holds no relaxed crystal; the file is damaged")
        choice = self.choice_of(calculated)
        symmetry = symmetry_dataset(crystal, symprec=0.1)
        formation = self.hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom)
        products = self.hull.decompose(entry.composition, without=frozenset({entry.id})).products
        alignment = self.state.alignment
        return Discovery(
            id=entry.id,
            reduced_formula=calculated.reduced_formula,
            space_group=symmetry.symbol,
            space_group_number=symmetry.number,
            formation_energy_per_atom=formation,
            decomposition_energy=self.hull.decomposition_energy(entry),
            decomposition_energy_std=0.0
            if alignment is None
            else alignment.metrics.get("rms_after", alignment.metrics.get("std_after", 0.0)),
            decomposition_products=" + ".join(f"{fraction:.2f} {formula}" for _, formula, fraction in products),
            distance_to_initial_hull=formation - choice.initial_hull_energy_per_atom,
            round=calculated.round,
            method=choice.method,
            parent_ids=choice.parent_ids,
            replaced=choice.replaced,
            predicted_decomposition_energy=choice.predicted_decomposition_energy,
            predicted_std=choice.predicted_std,
            novelty=self._ladder.place(crystal),
            crystal=crystal,
        )
