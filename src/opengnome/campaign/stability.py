"""Entries of a file judged against the hull of their own level of theory, or against that of other files."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from opengnome.campaign.entry_corrections import corrected, scheme_of
from opengnome.campaign.layout import Layout
from opengnome.campaign.results import CampaignResults
from opengnome.campaign.tables import LEADING_COLUMNS, Row, failure
from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.datasets import (
    IN_THE_ENERGY,
    NO_CORRECTION,
    ZERO_BY_DEFINITION,
    EnergyKind,
    ReadEntries,
    RejectedRow,
    elements_at_zero,
    elements_of_system,
    read_entries,
    read_references,
)
from opengnome.datasets.file_names import stem
from opengnome.errors import MissingReferenceError, SettingsError
from opengnome.hull import Entry, Hull, hull_table

WRONG_LEVEL, ID_OF_ANOTHER = "wrong_level", "id_of_another"
_ANSWERS = ("formation_energy_per_atom", "energy_above_hull", "decomposition_energy", "decomposition_products")


@dataclass(frozen=True)
class Judged:
    """Rows of answers, and the hulls that gave them."""

    rows: list[Row]
    """One per row of the file, in its order, with status and reason where there is no answer."""
    hulls: Mapping[str, Hull]
    """By level of theory."""
    entries: tuple[Entry, ...]
    """What was judged."""
    unused: tuple[tuple[str, RejectedRow], ...] = ()
    """Rows of the files that are judged against that are no entries, with the name of their file: the hulls lack
    them."""

    def only_hull(self) -> Hull:
        """The hull, where there is one. Raises `SettingsError` naming the levels when there are several or none."""
        if len(self.hulls) != 1:
            raise SettingsError(
                f"one hull is needed and there are {len(self.hulls)}, of the levels {list(self.hulls)}; give the "
                "entries of one level"
            )
        return next(iter(self.hulls.values()))


def judge(
    path: Path,
    *,
    system: str | None = None,
    against: Sequence[Path] = (),
    references: Path | None = None,
    format: str | None = None,
    energy: str | None = None,
    level: str | None = None,
    correction: str | None = None,
    trust_settings: bool = False,
) -> Judged:
    """Formation energy, distances from the hull and products of every entry of a file or a campaign.

    Each level of theory has its own hull: that of the file's entries, or that of the files (or campaigns) in
    `against`, where an entry of the same id is taken for the same phase and does not compete with itself.
    `system` keeps a chemical system and its subsystems. `references` has the elements that total energies need
    and the file lacks, on the scale of the corrected energies; they are not corrected. `format`, `energy` and
    `level` as for `read_entries`, for all files; `correction` replaces the corrections of all files by a named
    scheme (see `scheme_of`), with `trust_settings` as for `corrected`.
    Raises `SettingsError` when a file cannot be used or levels, kinds of energy or corrections do not fit,
    `MissingReferenceError` naming every element without a reference.
    """
    wanted = None if system is None else {ATOMIC_NUMBERS[symbol] for symbol in elements_of_system(system)}
    scheme = None if correction is None else scheme_of(correction, trust_settings=trust_settings)

    made_up: dict[str, Path] = {}

    def read(file: Path) -> ReadEntries:
        whole = _read(file, format=format, energy=energy, level=level)
        _check_made_up_names(file, whole, made_up)
        found = _inside(whole, wanted)
        return found if scheme is None else corrected(found, scheme, trust_settings=trust_settings)

    table = read(path)
    if not table.rows:
        raise SettingsError(f"{path} has no entry" + (f" in the chemical system {system}" if system else ""))
    basis = [read(file) for file in against] or [table]
    _check_kinds(table, basis)
    if not any(_is_campaign(file) for file in (path, *against)):
        _check_schemes((table, *basis))
    hulls = _hulls(basis, table.levels, references, n_rejected=len(table.rejected))
    _check_references(table.entries, hulls, table.energy_kind, references)
    competing = {} if not against else {(e.level, e.id): e for other in basis for e in other.entries}
    rows = [_refused(row, hulls, competing) for row in table.rows]
    return Judged(
        _answered(rows, hulls),
        hulls,
        tuple(row for row in rows if isinstance(row, Entry)),
        tuple((other.source, row) for other in basis if against for row in other.rejected),
    )


def load_hull(path: Path, *, tell: Callable[[str], None] = lambda _: None) -> Hull:
    """The hull of a campaign, or of any file of entries of one level of theory (see `read_entries`).

    `tell` is told of each row of the file that is no entry.
    """
    if _is_campaign(path):
        return CampaignResults(path).hull
    table = read_entries(path)
    if len(table.levels) != 1:
        raise SettingsError(
            f"{path} has entries of the levels {list(table.levels)}, a hull has one; {len(table.rejected)} rows are "
            f"rejected{_first_reason(table.rejected)}"
        )
    _check_schemes((table,))
    for row in table.rejected:
        tell(f"{path}: not part of the hull: {row.id}: {row.status}: {row.reason}")
    return Hull(table.hull_entries(table.levels[0]))


def _is_campaign(path: Path) -> bool:
    return Layout(path).journal.is_file()


def _read(path: Path, *, format: str | None, energy: str | None, level: str | None) -> ReadEntries:
    if not _is_campaign(path):
        return read_entries(path, format=format, energy=energy, level=level)
    results = CampaignResults(path)
    kind: EnergyKind = "formation" if results.knowledge.known.energy_kind == "formation" else "total"
    rows = tuple(entry for entry in results.hull.entries if entry.source != ZERO_BY_DEFINITION)
    return ReadEntries(rows, kind, str(path))


def _check_made_up_names(file: Path, table: ReadEntries, known: dict[str, Path]) -> None:
    """Raise `SettingsError` when ids or levels made from the names of two files are the same."""
    name = stem(file.name)
    for i, row in enumerate(table.rows):
        if isinstance(row, Entry) and (row.id == f"{name}-{i}" or row.level == f"table:{file.name}"):
            other = known.setdefault(name, file)
            if other.resolve() != file.resolve():
                raise SettingsError(
                    f"{other} and {file} do not state all ids or levels, which are then made from their one name "
                    f"{name!r}: rename one of the files, or give both the columns id and level"
                )
            return


def _inside(table: ReadEntries, elements: set[int] | None) -> ReadEntries:
    """The rows of a chemical system; a row whose formula cannot be read may be of it and stays."""
    if elements is None:
        return table
    return table.take([i for i, row in enumerate(table.rows) if elements.issuperset(_elements(row))])


def _elements(row: Entry | RejectedRow) -> tuple[int, ...]:
    if isinstance(row, Entry):
        return row.composition.atomic_numbers
    return Composition.from_formula(row.reduced_formula).atomic_numbers if row.reduced_formula else ()


def _check_kinds(table: ReadEntries, basis: Sequence[ReadEntries]) -> None:
    for other in basis:
        if other.energy_kind != table.energy_kind:
            raise SettingsError(
                f"{table.source} holds {table.energy_kind} energies and {other.source} {other.energy_kind} energies, "
                "which have different zeros; choose one kind for both with --energy total or --energy formation"
            )


def _hulls(
    basis: Sequence[ReadEntries], levels: Sequence[str], references: Path | None, *, n_rejected: int
) -> dict[str, Hull]:
    """The hulls of those levels that the files have. Raises `SettingsError` when there is none."""
    kind = basis[0].energy_kind
    if references is not None and kind == "formation":
        raise SettingsError(
            f"the energies are formation energies, which have the elements at zero; leave out {references}"
        )
    hulls = {}
    for level in levels:
        entries = _without_repetition(entry for table in basis for entry in table.entries if entry.level == level)
        if not entries:
            continue
        if kind == "formation":
            entries += elements_at_zero(entries, level=level)
        if references is not None:
            entries = _without_repetition((*entries, *read_references(references, level=level)))
        hulls[level] = Hull(entries)
    if not hulls and levels:
        raise SettingsError(
            f"entries of the levels {list(levels)} cannot be judged against entries of the levels "
            f"{sorted({level for table in basis for level in table.levels})}: energies of different levels cannot be "
            "compared. If the files state no level and are of the same one, name it with --level"
        )
    if not hulls and not n_rejected:
        raise SettingsError("there are no entries to judge")
    return hulls


def _without_repetition(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Entries of several files, one that says the same as an earlier one of its id left out."""
    known: dict[str, Entry] = {}
    kept = []
    for entry in entries:
        same = known.setdefault(entry.id, entry)
        if same is entry or not _same(same, entry):
            kept.append(entry)
    return tuple(kept)


def _same(one: Entry, other: Entry) -> bool:
    return one.composition.reduced == other.composition.reduced and math.isclose(
        one.corrected_energy_per_atom, other.corrected_energy_per_atom, rel_tol=0.0, abs_tol=1e-9
    )


def _check_schemes(tables: Iterable[ReadEntries]) -> None:
    """Raise `SettingsError` when entries of one level are corrected by different schemes.

    Formation energies without a scheme pass: most tables of them do not say how they were corrected. Campaigns are
    not checked: corrections of their oracle's energies are what brings them to the level of the known set.
    """
    schemes: dict[str, dict[str, Entry]] = {}
    for table in tables:
        for entry in table.entries:
            if table.energy_kind == "total" or entry.correction_scheme != NO_CORRECTION:
                of_level = schemes.setdefault(entry.level, {})
                of_level.setdefault(entry.correction_scheme.removesuffix(IN_THE_ENERGY), entry)
    for level, of_level in schemes.items():
        if len(of_level) > 1:
            examples = ", ".join(f"{scheme!r} (e.g. {entry.id})" for scheme, entry in of_level.items())
            raise SettingsError(
                f"entries of level {level!r} are corrected by different schemes, {examples}; energies so corrected "
                "cannot be compared: correct all by one scheme with --correction, or state the scheme in a column "
                "correction_scheme"
            )


def _check_references(
    entries: Iterable[Entry], hulls: Mapping[str, Hull], kind: EnergyKind, references: Path | None
) -> None:
    """Raise `MissingReferenceError` naming all elements that the hulls of the entries lack."""
    missing: dict[str, set[int]] = {}
    known = {level: hull.elemental_references.keys() for level, hull in hulls.items()}
    for entry in entries:
        if entry.level in known:
            lacking = set(entry.composition.atomic_numbers) - known[entry.level]
            if lacking:
                missing.setdefault(entry.level, set()).update(lacking)
    if not missing:
        return
    named = "; ".join(
        f"{', '.join(SYMBOLS[z] for z in sorted(elements))} at level {level!r}" for level, elements in missing.items()
    )
    where = f" in {references} or the table" if references is not None else ""
    remedy = (
        'give a file with them by --references FILE (any format that is read, or JSON {"Li": -1.9, ...} in eV/atom), '
        "or use formation energies, if there are any, by --energy formation"
        if kind == "total"
        else "the files that are judged against have no compound of them, so it is not known whether they cover them: "
        "add the elements there with energy 0"
    )
    raise MissingReferenceError(
        f"no elemental reference{where} for {named}: {remedy}; or leave these elements out with --system"
    )


def _refused(
    row: Entry | RejectedRow, hulls: Mapping[str, Hull], competing: Mapping[tuple[str, str], Entry]
) -> Entry | RejectedRow:
    """An entry that its hull can judge, or why there is none."""
    if isinstance(row, RejectedRow):
        return row
    if row.level not in hulls:
        reason = f"the entry is of level {row.level!r} and there are hulls of {list(hulls)} only"
        return RejectedRow(row.id, WRONG_LEVEL, reason, row.reduced_formula)
    other = competing.get((row.level, row.id))
    if other is not None and other.composition.reduced != row.composition.reduced:
        reason = (
            f"the id {row.id!r} is that of another phase, {other.reduced_formula}, among those it is judged against; "
            "an id names one phase: rename one of them"
        )
        return RejectedRow(row.id, ID_OF_ANOTHER, reason, row.reduced_formula)
    return row


def _answered(rows: Sequence[Entry | RejectedRow], hulls: Mapping[str, Hull]) -> list[Row]:
    """The row of answers of each entry and of each rejection, in order."""
    answers: dict[int, Row] = {}
    for level, hull in hulls.items():
        own = {i: row for i, row in enumerate(rows) if isinstance(row, Entry) and row.level == level}
        answers |= zip(own, hull_table(hull, own.values()), strict=True)
    show_correction = any(isinstance(row, Entry) and row.correction_per_atom for row in rows)
    return [_complete(row, answers.get(i), show_correction=show_correction) for i, row in enumerate(rows)]


def _complete(row: Entry | RejectedRow, answer: Row | None, *, show_correction: bool) -> Row:
    """The row with its level and correction, every column in one order also where there is no answer."""
    if isinstance(row, RejectedRow):
        found = failure(row.id, row.status, row.reason) | {"reduced_formula": row.reduced_formula}
        level, correction, scheme = None, None, None
    else:
        found = answer or {}
        level, correction, scheme = row.level, row.correction_per_atom, row.correction_scheme
    complete = {name: found.get(name) for name in (*LEADING_COLUMNS, *_ANSWERS)} | {"level": level}
    return complete | ({"correction_per_atom": correction, "correction_scheme": scheme} if show_correction else {})


def _first_reason(rejected: Sequence[RejectedRow]) -> str:
    return f", e.g. {rejected[0].id}: {rejected[0].reason}" if rejected else ""
