"""What the models of a round learn from: known crystals, what the oracle found, and unrelaxed geometries."""

from collections.abc import Sequence

from opengnome.campaign.conversion import aligned_energy_per_atom, has_energy
from opengnome.campaign.events import Aligned, Calculated
from opengnome.campaign.knowledge import Knowledge, alignment_of
from opengnome.campaign.layout import Layout
from opengnome.campaign.settings import TrainingSetSettings
from opengnome.campaign.state import CampaignState
from opengnome.campaign.strained import is_strained, strained_rows
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.io import read_table
from opengnome.datasets import EMBEDDED, KnownSet, held_out_mask, load_embedded_frames
from opengnome.errors import InvalidCrystalError
from opengnome.graphs import neighbour_list
from opengnome.hull import Hull
from opengnome.models import AnyModelSettings

TrainingRow = tuple[str, Crystal, float]
"""Id, crystal, formation energy in eV/atom."""


def training_table(knowledge: Knowledge, state: CampaignState, number: int) -> CrystalTable:
    """Training crystals of a round with columns `target` (formation energy, eV/atom) and `held_out`."""
    settings = knowledge.settings.training_set
    hull = knowledge.hull(state, before_round=number)
    rows = known_rows(knowledge.known, hull, settings)
    rows += _strained(knowledge, state, rows)
    if knowledge.known.source == EMBEDDED and settings.embedded_frames:
        rows += embedded_frame_rows(knowledge.known, hull, settings)
    # elements are left out: the shifts are fitted on compounds, and an element's formation energy is zero anyway
    relaxations = [
        c
        for i, c in sorted(state.references.items())
        if has_energy(c) and not is_strained(i) and Composition.from_formula(c.reduced_formula).n_elements > 1
    ]
    for calculated in [*relaxations, *knowledge.calculated(state, before_round=number)]:
        rows += calculation_rows(knowledge, calculated, alignment_of(state), hull)
    rows = [
        row
        for row in rows
        if row[2] <= settings.max_formation_energy_per_atom and has_graph(row[1], knowledge.settings.model)
    ]
    table = CrystalTable.from_crystals([crystal for _, crystal, _ in rows], [i for i, _, _ in rows])
    table = table.with_column("target", [target for _, _, target in rows])
    return table.with_column("held_out", held_out_mask(table.reduced_formulas))


def known_rows(known: KnownSet, hull: Hull, settings: TrainingSetSettings) -> list[TrainingRow]:
    """The known crystals that are small enough."""
    return [
        (
            identifier,
            known.table[i],
            hull.formation_energy_per_atom(entry.composition, entry.corrected_energy_per_atom),
        )
        for i, (identifier, entry) in enumerate(zip(known.table.ids, known.entries, strict=False))
        if known.table.n_atoms[i] <= settings.max_atoms
    ]


def embedded_frame_rows(known: KnownSet, hull: Hull, settings: TrainingSetSettings) -> list[TrainingRow]:
    """Strained and unrelaxed crystals that come with the embedded known set."""
    frames = load_embedded_frames()
    elements = set(known.elements)
    return [
        (identifier, crystal, hull.formation_energy_per_atom(crystal.composition, energy))
        for identifier, crystal, energy in zip(frames.ids, frames, frames.column("energy_per_atom"), strict=True)
        if set(crystal.composition.atomic_numbers) <= elements and crystal.n_atoms <= settings.max_atoms
    ]


def calculation_rows(knowledge: Knowledge, calculated: Calculated, alignment: Aligned, hull: Hull) -> list[TrainingRow]:
    """Some frames of a relaxation, and for a candidate the relaxed crystal; a known crystal is a row already."""
    calculation = knowledge.calculation(calculated)
    composition = Composition.from_formula(calculated.reduced_formula)

    def target(energy: float, crystal: Crystal) -> float:
        aligned = aligned_energy_per_atom(energy / crystal.n_atoms, composition, alignment)
        return hull.formation_energy_per_atom(composition, aligned)

    rows: list[TrainingRow] = []
    if calculated.round > 0 and calculation.crystal is not None and calculation.energy is not None:
        rows.append((calculated.crystal_id, calculation.crystal, target(calculation.energy, calculation.crystal)))
    frames = calculation.frames
    if frames is None:
        return rows
    for index in spread(len(frames), knowledge.settings.training_set.frames_per_calculation):
        crystal = frames.crystal(index, calculation.initial.atomic_numbers)
        rows.append((f"{calculated.crystal_id}#{index}", crystal, target(float(frames.energies[index]), crystal)))
    return rows


def has_graph(crystal: Crystal, model: AnyModelSettings) -> bool:
    """Whether the network can be trained on a crystal: one that is too dense would stop the whole training."""
    try:
        neighbour_list(crystal, model.cutoff, max_neighbours_per_atom=model.max_neighbours_per_atom)
    except InvalidCrystalError:
        return False
    return True


def spread(n_frames: int, n_wanted: int) -> Sequence[int]:
    """Up to `n_wanted` frames of a relaxation: the first, and others evenly behind it, the last one never."""
    last = n_frames - 2
    if last < 0 or n_wanted == 0:
        return ()
    return sorted({round(i * last / n_wanted) for i in range(n_wanted)})


def _strained(knowledge: Knowledge, state: CampaignState, known: list[TrainingRow]) -> list[TrainingRow]:
    if not any(is_strained(identifier) for identifier in state.references):
        return []
    crystals = read_table(Layout(knowledge.root).references)
    formation_energies = {identifier: energy for identifier, _, energy in known}
    return strained_rows(formation_energies, crystals, state.references)
