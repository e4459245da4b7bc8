"""The known set: crystals with energies of one level of theory, as a table and as hull entries."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from opengnome.crystals import Composition, CrystalTable
from opengnome.crystals.elements import SYMBOLS, atomic_number
from opengnome.crystals.io import read_table
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.hull import Entry
from opengnome.settings import Settings

EMBEDDED = "embedded"
_DATA = "opengnome.datasets.data"


class KnownSetSettings(Settings):
    """Which crystals are known at the start."""

    source: str = EMBEDDED
    """`embedded` (the AFLOW prototypes and elements that come with the package, energies by CHGNet), or
    the path of a Parquet table in the crystal schema with an energy column."""
    energy_column: str | None = None
    """Column with the energy in eV/atom; by default `energy_per_atom`, else `formation_energy_per_atom`."""
    energy_kind: Literal["total", "formation"] | None = None
    """Whether the column holds total or formation energies (elements at zero); by default its name says."""
    level: str | None = None
    """Level of theory of the energies; by default that of the embedded table, or `table:<file name>`."""
    elements: list[str] = Field(default_factory=list)
    """Keep only crystals made of these elements; empty keeps all."""


@dataclass(frozen=True)
class KnownSet:
    """Known crystals with energies per atom (eV/atom) at one level of theory."""

    table: CrystalTable
    energies_per_atom: np.ndarray
    """Shape (n_crystals,), eV/atom; formation energies where `energy_kind` is `formation`."""
    energy_kind: str
    level: str
    source: str

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Hull entries: one per crystal, and the elements at zero where energies are formation energies."""
        n_atoms, numbers, offsets = self.table.n_atoms, self.table.flat_atomic_numbers, self.table.offsets
        crystals = tuple(
            Entry(
                id=identifier,
                composition=Composition.from_atomic_numbers(numbers[offsets[i] : offsets[i] + n_atoms[i]]),
                energy_per_atom=float(self.energies_per_atom[i]),
                level=self.level,
                source=self.source,
            )
            for i, identifier in enumerate(self.table.ids)
        )
        return crystals + (self._elements_at_zero() if self.energy_kind == "formation" else ())

    @cached_property
    def digest(self) -> str:
        """Content hash of ids, energies and crystals: names the snapshot."""
        content = hashlib.sha256(f"{self.level}\n{self.energy_kind}\n".encode())
        for row in zip(self.table.ids, self.table.reduced_formulas, self.energies_per_atom.tolist(), strict=True):
            content.update(f"{row[0]}\t{row[1]}\t{row[2]:.9f}\n".encode())
        for values in (self.table.lattices, self.table.flat_atomic_numbers, self.table.flat_frac_coords):
            content.update(np.ascontiguousarray(values).tobytes())
        return content.hexdigest()[:32]

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur, sorted."""
        return tuple(np.unique(self.table.flat_atomic_numbers).tolist())

    def _elements_at_zero(self) -> tuple[Entry, ...]:
        return tuple(
            Entry(
                id=f"reference-{SYMBOLS[z]}",
                composition=Composition(((z, 1),)),
                energy_per_atom=0.0,
                level=self.level,
                source="elemental reference, zero by definition",
            )
            for z in self.elements
        )


def load_known_set(settings: KnownSetSettings) -> KnownSet:
    """Read the known set that the settings ask for.

    Raises `SettingsError` or `InvalidCrystalError` when the table, its energy column or its level cannot
    be used; rows without an energy are left out.
    """
    table, level = _read(settings)
    column, kind = _energy_column(settings, table)
    table = _restrict_elements(table, settings.elements)
    energies = np.array([np.nan if e is None else e for e in table.column(column)], dtype=float)
    known = np.isfinite(energies)
    if not known.any():
        raise SettingsError(
            f"known set {settings.source!r}: no row has an energy in {column!r} and the elements asked for"
        )
    return KnownSet(
        table=table.filter(known),
        energies_per_atom=energies[known],
        energy_kind=kind,
        level=level,
        source=settings.source if settings.source == EMBEDDED else Path(settings.source).name,
    )


def load_elemental_crystals() -> CrystalTable:
    """One crystal per element (ids `element-<symbol>`), the lowest of the prototypes tried; see `scripts`."""
    with resources.as_file(resources.files(_DATA) / "known_crystals.parquet") as path:
        table = read_table(path)
    return table.filter([identifier.startswith("element-") for identifier in table.ids])


def load_embedded_frames() -> CrystalTable:
    """Unrelaxed and strained crystals of the embedded set with CHGNet energies (column `energy_per_atom`)."""
    with resources.as_file(resources.files(_DATA) / "known_frames.parquet") as path:
        return read_table(path)


def _read(settings: KnownSetSettings) -> tuple[CrystalTable, str]:
    if settings.source == EMBEDDED:
        with resources.as_file(resources.files(_DATA) / "known_crystals.parquet") as path:
            table = read_table(path)
        return table, settings.level or table.column("level")[0]
    path = Path(settings.source)
    if not path.is_file():
        raise SettingsError(f"known set {settings.source!r} is neither 'embedded' nor a file")
    try:
        return read_table(path), settings.level or f"table:{path.name}"
    except InvalidCrystalError as error:
        raise SettingsError(f"known set {path}: {error}") from error


def _energy_column(settings: KnownSetSettings, table: CrystalTable) -> tuple[str, str]:
    """Name of the energy column and whether it holds total or formation energies."""
    candidates = (
        [settings.energy_column] if settings.energy_column else ["energy_per_atom", "formation_energy_per_atom"]
    )
    for name in candidates:
        if name in table.column_names:
            return name, settings.energy_kind or ("formation" if "formation" in name else "total")
    raise SettingsError(
        f"known set {settings.source!r} has no column {' or '.join(candidates)}; its columns are "
        f"{table.column_names}. Name one with known.energy_column"
    )


def _restrict_elements(table: CrystalTable, symbols: list[str]) -> CrystalTable:
    if not symbols:
        return table
    allowed = np.zeros(len(SYMBOLS), dtype=bool)
    allowed[[atomic_number(symbol) for symbol in symbols]] = True
    inside = np.add.reduceat(~allowed[table.flat_atomic_numbers], table.offsets[:-1]) == 0
    return table.filter(inside)
