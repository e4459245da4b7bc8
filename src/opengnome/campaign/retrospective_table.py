"""The table of a retrospective campaign: what is true of every crystal, and what the model gets to see of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from opengnome.campaign.retrospective_settings import RetrospectiveSettings
from opengnome.campaign.seeds import seed_for
from opengnome.crystals import Composition, CrystalTable
from opengnome.datasets import KnownSet, KnownSetSettings, load_known_set
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.generation.volume_estimate import volume_estimate
from opengnome.graphs import GraphStore, cached_store
from opengnome.hull import CompositionArrays, Entry, Hull

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class RetrospectiveTable:
    """n crystals with known energies."""

    path: Path
    """Where the oracle looks the energies up."""
    known: KnownSet
    full_hull: Hull
    """Hull of all crystals of the table, and of the elements."""
    energy_above_hull: np.ndarray
    """Of every crystal against it, shape (n,), eV/atom."""
    graphs: GraphStore
    """What the model sees, in the order of the table."""
    left_out: Mapping[int, str]
    """Why a crystal is in no pool, by row; it counts for the full hull all the same."""

    @property
    def table(self) -> CrystalTable:
        return self.known.table

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def row_of_id(self) -> dict[str, int]:
        return {identifier: row for row, identifier in enumerate(self.table.ids)}

    @cached_property
    def compositions(self) -> CompositionArrays:
        return CompositionArrays.from_compositions([entry.composition for entry in self.known.entries[: len(self)]])

    @cached_property
    def formation_energies(self) -> np.ndarray:
        """As the table has them, or from its total energies, shape (n,), eV/atom."""
        return self.full_hull.formation_energies(self.compositions, self.known.energies_per_atom)

    @cached_property
    def is_element(self) -> np.ndarray:
        """Crystals of one element, shape (n,), bool: always known."""
        return self.compositions.n_elements == 1

    @cached_property
    def usable(self) -> np.ndarray:
        """Crystals that the model can judge, shape (n,), bool."""
        usable = np.ones(len(self), dtype=bool)
        usable[list(self.left_out)] = False
        return usable

    @property
    def elemental_references(self) -> tuple[Entry, ...]:
        """Entries of the elements that belong to no crystal: at zero where the table holds formation energies."""
        return self.known.entries[len(self) :]

    def start_rows(self, settings: RetrospectiveSettings, repeat: int) -> np.ndarray:
        """Rows known at the start of a repeat, ascending: the elements and `n_start` other usable crystals.

        Raises `SettingsError` when the table has not enough of them to start and to fill the budget.
        """
        compounds = np.flatnonzero(~self.is_element & self.usable)
        if len(compounds) < settings.n_start + settings.budget:
            raise SettingsError(
                f"{len(compounds)} usable compounds in {self.path.name} are too few for n_start = {settings.n_start} "
                f"and budget = {settings.budget}; lower one of them"
            )
        rng = np.random.default_rng(seed_for(settings.seed, "start", repeat))
        drawn = rng.choice(compounds, size=settings.n_start, replace=False)
        return np.sort(np.concatenate([np.flatnonzero(self.is_element), drawn]))

    def hull(self, rows: np.ndarray) -> Hull:
        """Hull of the crystals at `rows` and the elemental references."""
        return Hull([*(self.known.entries[row] for row in rows.tolist()), *self.elemental_references])


def prepare_table(
    path: Path, folder: Path, settings: RetrospectiveSettings, progress: Progress | None = None
) -> RetrospectiveTable:
    """Read the table, build its hull, and the graphs in `folder` where they are not yet.

    Raises `SettingsError` or `InvalidCrystalError` when the table or its energy column cannot be used,
    `MissingReferenceError` when total energies come without the elements.
    """
    known = load_known_set(KnownSetSettings(source=str(path), energy_column=settings.energy_column))
    full_hull = Hull(known.entries)
    energy_above_hull = full_hull.energies_above_hull()[: len(known.table)]
    seen = known.table
    left_out: dict[int, str] = {}
    if settings.geometry == "estimated_volume":
        seen, left_out = at_estimated_volumes(known.table)
    graphs = cached_store(
        seen,
        folder,
        cutoff=settings.model.cutoff,
        max_neighbours_per_atom=settings.model.max_neighbours_per_atom,
        progress=progress,
    )
    return RetrospectiveTable(path, known, full_hull, energy_above_hull, graphs, {**graphs.reasons, **left_out})


def at_estimated_volumes(table: CrystalTable) -> tuple[CrystalTable, dict[int, str]]:
    """Every crystal scaled to the volume that its composition leads to expect (`volume_estimate`).

    A crystal whose composition has no estimate keeps its own volume and is named, by row, with the reason.
    """
    estimates: dict[str, float | str] = {}
    for formula in set(table.reduced_formulas):
        try:
            estimates[formula] = volume_estimate(Composition.from_formula(formula)).volume_per_atom
        except InvalidCrystalError as error:
            estimates[formula] = str(error)
    of_row = [estimates[formula] for formula in table.reduced_formulas]
    left_out = {row: text for row, text in enumerate(of_row) if isinstance(text, str)}
    volumes = np.abs(np.linalg.det(table.lattices)) / table.n_atoms
    wanted = np.array([np.nan if isinstance(value, str) else value for value in of_row])
    factors = np.cbrt(np.where(np.isnan(wanted), volumes, wanted) / volumes)
    scaled = CrystalTable.from_arrays(
        ids=table.ids,
        reduced_formulas=table.reduced_formulas,
        n_atoms=table.n_atoms,
        lattices=table.lattices * factors[:, None, None],
        atomic_numbers=table.flat_atomic_numbers,
        frac_coords=table.flat_frac_coords,
    )
    return scaled, left_out
