"""The elements that formation energies of a batch of relaxations count from: of its level, by its code."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.datasets import KnownSetSettings, entries_from_columns, load_known_set
from opengnome.datasets.entry_tables import read_columns
from opengnome.errors import SettingsError
from opengnome.hull import Entry
from opengnome.hull.references import formation_energy_per_atom
from opengnome.oracles import OracleIdentity, Status

_REQUIRED = ("status", "level", "energy_per_atom")
_CONVERGED = ("ok", Status.CONVERGED.value)
"""What `opengnome relax` says of a crystal that converged in its table of rows, and in that of relaxed crystals."""


class ElementalReferences:
    """The lowest entry of each element at one level of theory."""

    def __init__(self, entries: Iterable[Entry], *, level: str) -> None:
        """Compounds among `entries`, and entries of other levels, are left out."""
        self.level = level
        self.lowest: dict[int, Entry] = {}
        for entry in entries:
            if entry.level == level and entry.composition.n_elements == 1:
                (z,) = entry.composition.atomic_numbers
                lowest = self.lowest.setdefault(z, entry)
                if entry.corrected_energy_per_atom < lowest.corrected_energy_per_atom:
                    self.lowest[z] = entry

    def with_entries(self, entries: Iterable[Entry]) -> "ElementalReferences":
        """These and further ones."""
        return ElementalReferences([*self.lowest.values(), *entries], level=self.level)

    def formation_energy_per_atom(self, composition: Composition, energy_per_atom: float) -> float:
        """eV/atom. Raises `MissingReferenceError` naming the elements without a reference."""
        energies: Mapping[int, float] = {z: e.corrected_energy_per_atom for z, e in self.lowest.items()}
        return formation_energy_per_atom(composition, energy_per_atom, energies, level=self.level)

    def named(self, composition: Composition) -> str:
        """What a composition counts from, e.g. ``Na: na-bcc (this batch); Cl: element-Cl (embedded)``."""
        found = ((z, self.lowest[z]) for z in composition.atomic_numbers)
        return "; ".join(f"{SYMBOLS[z]}: {entry.id} ({entry.source})" for z, entry in found)


def known_references(identity: OracleIdentity, path: Path | None = None) -> ElementalReferences:
    """References known before anything is computed: the embedded ones if they are of the oracle's level, and a file's.

    Raises `SettingsError` when the file has none of the oracle's level and code.
    """
    embedded = load_known_set(KnownSetSettings()).entries
    from_file = () if path is None else read_relaxed_elements(path, identity)
    return ElementalReferences([*embedded, *from_file], level=identity.level)


def read_relaxed_elements(path: Path, identity: OracleIdentity) -> tuple[Entry, ...]:
    """Converged pure elements of a table that `opengnome relax` wrote (CSV or Parquet), at the oracle's level.

    Raises `SettingsError` when the file is no such table, has no element of that level, or has them by another code.
    A recorded oracle repeats what others computed, so its code is not compared.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise SettingsError(f"{path} is neither .csv nor .parquet; references are a table that `opengnome relax` wrote")
    columns = read_columns(path, {"id", "reduced_formula", "code", *_REQUIRED})
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise SettingsError(
            f"{path} lacks the columns {missing}; references are a table that `opengnome relax` wrote, which says of "
            "each energy its level of theory and whether it converged"
        )
    converged = [i for i, status in enumerate(columns["status"]) if status in _CONVERGED]
    own = [i for i in converged if columns["level"][i] == identity.level]
    if not own:
        raise SettingsError(
            f"{path} has converged crystals of the levels {sorted({str(columns['level'][i]) for i in converged})}, the "
            f"oracle is of level {identity.level!r}: formation energies need references of the same level. Relax the "
            "elements with the oracle and settings of this command"
        )
    _check_code(path, {columns["code"][i] for i in own} if "code" in columns else set(), identity)
    table = {name: [values[i] for i in own] for name, values in columns.items()}
    read = entries_from_columns(table, name=path.name)
    elements = tuple(entry for entry in read.entries if entry.composition.n_elements == 1)
    if not elements:
        unused = f", e.g. {read.rejected[0].id}: {read.rejected[0].reason}" if read.rejected else ""
        raise SettingsError(f"{path} has no pure element among its {len(own)} converged crystals{unused}; relax some")
    return elements


def _check_code(path: Path, codes: set[str | None], identity: OracleIdentity) -> None:
    others = sorted(code for code in codes if code and code != identity.code)
    if others and identity.name != "recorded":
        raise SettingsError(
            f"{path} has energies of level {identity.level!r} by {', '.join(others)}, this oracle computes with "
            f"{identity.code}: the zeros of two codes differ. Relax the elements with the code of this command"
        )
