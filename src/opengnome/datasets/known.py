"""The known set: crystals with energies of one level of theory, as a table and as hull entries."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from opengnome.crystals import Composition, CrystalTable
from opengnome.crystals.elements import SYMBOLS, atomic_number, check_symbols
from opengnome.crystals.io import read_table
from opengnome.crystals.table import unreadable_rows
from opengnome.datasets.statuses import is_unfinished
from opengnome.errors import InvalidCrystalError, SettingsError
from opengnome.hull import Entry
from opengnome.settings import Settings

EMBEDDED = "embedded"
_DATA = "opengnome.datasets.data"


class KnownSetSettings(Settings):
    """Which crystals are known at the start."""

    source: str = EMBEDDED
    """`embedded` (the AFLOW prototypes and elements that come with the package, energies by CHGNet), or
    the path of a Parquet table in the crystal schema with an energy column, such as `opengnome relax --relaxed`
    writes. Rows that did not converge by a column `status` are left out."""
    energy_column: str | None = None
    """Column with the energy in eV/atom; by default `energy_per_atom`, else `formation_energy_per_atom`."""
    energy_kind: Literal["total", "formation"] | None = None
    """Whether the column holds total or formation energies (elements at zero); by default its name says."""
    level: str | None = None
    """Level of theory of the energies; by default what the table's column `level` says, or `table:<file name>`
    where it has none. Of a table of several levels the rows of this one are used."""
    elements: list[str] = Field(default_factory=list)
    """Keep only crystals made of these elements; empty keeps all."""

    @field_validator("elements")
    @classmethod
    def _known_symbols(cls, symbols: list[str]) -> list[str]:
        check_symbols(symbols)
        return symbols


@dataclass(frozen=True)
class KnownSet:
    """Known crystals with energies per atom (eV/atom) at one level of theory."""

    table: CrystalTable
    energies_per_atom: np.ndarray
    """Shape (n_crystals,), eV/atom; formation energies where `energy_kind` is `formation`."""
    energy_kind: str
    level: str
    source: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Rows with the elements asked for that are not used, by reason."""

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

    Rows without an energy, that have not converged, or of another level than the one asked for are left out and
    counted. Raises `SettingsError` or `InvalidCrystalError` when the table, its energy column or its level cannot
    be used, or no row is left.
    """
    table = _read(settings)
    column, kind = _energy_column(settings, table)
    table = _restrict_elements(table, settings.elements)
    energies = np.array([np.nan if e is None else e for e in table.column(column)], dtype=float)
    reasons = _why_not(table, energies)
    level, reasons = _level(settings, table, reasons)
    used = np.array([reason == "" for reason in reasons], dtype=bool)
    left_out = Counter(reason for reason in reasons if reason)
    if not used.any():
        found = "; ".join(f"{n} of them: {reason}" for reason, n in left_out.items())
        raise SettingsError(
            f"known set {settings.source!r}: no row has an energy in {column!r} and the elements asked for; "
            f"{len(table)} rows have these elements{': ' + found if found else ''}"
        )
    return KnownSet(
        table=table.filter(used).with_own_formulas(),
        energies_per_atom=energies[used],
        energy_kind=kind,
        level=level,
        source=settings.source if settings.source == EMBEDDED else Path(settings.source).name,
        left_out=dict(left_out),
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


def _read(settings: KnownSetSettings) -> CrystalTable:
    if settings.source == EMBEDDED:
        with resources.as_file(resources.files(_DATA) / "known_crystals.parquet") as path:
            return read_table(path)
    path = Path(settings.source)
    if not path.is_file():
        raise SettingsError(f"known set {settings.source!r} is neither 'embedded' nor a file")
    try:
        return read_table(path)
    except InvalidCrystalError as error:
        raise SettingsError(f"known set {path}: {error}") from error


def _why_not(table: CrystalTable, energies: np.ndarray) -> list[str]:
    """Why each row cannot be used; empty where it can."""
    statuses = table.column("status") if "status" in table.column_names else [None] * len(table)
    no_crystals = unreadable_rows(table)
    return [
        f"its status is {status!r}: no energy of a relaxed crystal"
        if is_unfinished(status)
        else no_crystals.get(row, "" if np.isfinite(energy) else "it has no energy")
        for row, (status, energy) in enumerate(zip(statuses, energies.tolist(), strict=True))
    ]


def _level(settings: KnownSetSettings, table: CrystalTable, reasons: list[str]) -> tuple[str, list[str]]:
    """The level of theory of the rows that can be used, and the reasons of the others, among them other levels.

    Raises `SettingsError` for rows of several levels when none of these is asked for, or of others than asked for.
    """
    stated = table.column("level") if "level" in table.column_names else [None] * len(table)
    usable = [level or "" for level, reason in zip(stated, reasons, strict=True) if not reason]
    levels = list(dict.fromkeys(usable))
    if levels in ([], [""]):
        return settings.level or f"table:{Path(settings.source).name}", reasons
    if len(levels) == 1 and settings.level in (None, levels[0]):
        return levels[0], reasons
    if settings.level is None or settings.level not in levels:
        asked = "" if settings.level is None else f" and none is of the level {settings.level!r} asked for"
        raise SettingsError(
            f"known set {settings.source!r}: its rows are of the levels of theory {levels}{asked}; energies of "
            "different levels cannot be compared. Choose one of them with known.level, or split the table"
        )
    other = f"it is not of level {settings.level!r}"
    return settings.level, [
        reason or ("" if level == settings.level else other) for level, reason in zip(stated, reasons, strict=True)
    ]


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
