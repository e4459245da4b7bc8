"""Energy corrections: named, pure functions from what is known of an energy to eV/atom, with the reasons.

A scheme never sees other entries and never changes one: `apply_correction` makes new entries that keep the raw
energy beside the correction, and says of every entry that a scheme cannot correct why not. Energies of different
levels of theory (GGA and GGA+U) share a hull only after a scheme has made them comparable.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from opengnome.crystals import Composition, Crystal
from opengnome.crystals.elements import SYMBOLS, atomic_number
from opengnome.errors import HullError, InvalidCrystalError
from opengnome.hull.entry import Entry


@dataclass(frozen=True)
class EnergyDetails:
    """How an energy was calculated and what its anions are: what a scheme asks beyond the composition.

    Everything is optional; a scheme that needs what is missing says so, or says what it assumed instead.
    """

    run_type: str = ""
    """Kind of calculation in the Materials Project's words: ``GGA``, ``GGA+U``, ``R2SCAN``, ..."""
    hubbards: Mapping[int, float] = field(default_factory=dict)
    """Hubbard U in eV by atomic number; elements without U are left out."""
    potentials: frozenset[str] | None = None
    """Names of the pseudopotentials, e.g. ``{"Fe_pv", "O"}``; None when they are not known."""
    software: str = "vasp"
    """Which code; only VASP's potentials have the names that a scheme can check."""
    crystal: Crystal | None = None
    """The structure; tells peroxides from oxides and sulfates from sulfides."""
    oxide_type: str = ""
    """``oxide``, ``peroxide``, ``superoxide``, ``ozonide`` or ``hydroxide``; counts more than the crystal."""
    sulfide_type: str = ""
    """``sulfide``, ``polysulfide`` or any other kind, which then is no anion; counts more than the crystal."""
    oxidation_states: Mapping[int, float] | None = None
    """Average oxidation state in e by atomic number; guessed from the composition when None."""

    @classmethod
    def from_computed_entry(
        cls, parameters: Mapping[str, Any], data: Mapping[str, Any], *, crystal: Crystal | None = None
    ) -> "EnergyDetails":
        """From the `parameters` and `data` of a pymatgen ComputedEntry or of its JSON document.

        Raises `HullError` when a Hubbard U or an oxidation state is not a number of a known element.
        """
        return cls(
            # The Materials Project's API spells it GGA_U.
            run_type=str(parameters.get("run_type") or "").replace("GGA_U", "GGA+U"),
            hubbards=_without_zeros(_by_element(parameters.get("hubbards") or {}, "parameters['hubbards']")),
            potentials=_potential_names(parameters),
            software=str(parameters.get("software") or "vasp"),
            crystal=crystal,
            oxide_type=str(data.get("oxide_type") or ""),
            sulfide_type=str(data.get("sulfide_type") or ""),
            oxidation_states=(
                None
                if data.get("oxidation_states") is None
                else _by_element(data["oxidation_states"], "data['oxidation_states']")
            ),
        )


@dataclass(frozen=True)
class CorrectionPart:
    """One term of a correction: so much per atom of one element."""

    name: str
    """Why, e.g. ``oxide anion`` or ``GGA/GGA+U mixing``."""
    element: int
    """Atomic number of the atoms that are counted."""
    fraction: float
    """Atoms of the element per atom of the compound."""
    per_atom_of_element: float
    """eV per atom of the element."""
    std_per_atom_of_element: float = math.nan
    """Standard error of that number, eV; NaN when it is not known."""

    @property
    def energy_per_atom(self) -> float:
        """Contribution to the correction, eV per atom of the compound."""
        return self.fraction * self.per_atom_of_element

    @property
    def std_per_atom(self) -> float:
        """Standard error of the contribution, eV per atom of the compound."""
        return self.fraction * self.std_per_atom_of_element

    def __str__(self) -> str:
        return (
            f"{self.name} ({SYMBOLS[self.element]}): {self.per_atom_of_element:+.4g} eV x {self.fraction:.4g} "
            f"= {self.energy_per_atom:+.4f} eV/atom"
        )


@dataclass(frozen=True)
class Correction:
    """What a scheme adds to one energy, term by term, and what it had to assume."""

    scheme: str
    parts: tuple[CorrectionPart, ...] = ()
    assumptions: tuple[str, ...] = ()
    """What was not given and had to be guessed, in words; empty when everything was known."""

    @property
    def energy_per_atom(self) -> float:
        """The correction, eV/atom; add it to the raw energy."""
        return sum(part.energy_per_atom for part in self.parts)

    @property
    def std_per_atom(self) -> float:
        """Standard error in eV/atom of independent parts; NaN when that of a part is not known.

        Zero when nothing is added. Two entries corrected by the same scheme share its errors: the difference of
        their energies is known better than this says.
        """
        return math.hypot(*(part.std_per_atom for part in self.parts if part.per_atom_of_element))

    def __str__(self) -> str:
        lines = [f"{self.scheme}: {self.energy_per_atom:+.4f} eV/atom", *(f"  {part}" for part in self.parts)]
        return "\n".join([*lines, *(f"  assumed: {text}" for text in self.assumptions)])


class CorrectionScheme(Protocol):
    """A named, versioned, pure function from composition and details to a correction."""

    @property
    def name(self) -> str:
        """Name with version and options; equal names mean equal numbers."""
        ...

    def correction(self, composition: Composition, details: EnergyDetails) -> Correction:
        """Raises `HullError` when the energy cannot be corrected, with the reason."""
        ...


@dataclass(frozen=True)
class NoCorrection:
    """Adds nothing: raw energies count."""

    name: str = "none"

    def correction(self, composition: Composition, details: EnergyDetails) -> Correction:  # noqa: ARG002
        return Correction(self.name)


@dataclass(frozen=True)
class PerElementShift:
    """So much per atom of each element, whatever the compound is."""

    name: str
    shifts: Mapping[int, float]
    """eV per atom of the element, by atomic number."""
    stds: Mapping[int, float] = field(default_factory=dict)
    """Standard errors of the shifts, eV; an element that is missing has an unknown one."""
    complete: bool = False
    """Whether an element without a shift is an error; otherwise its shift is zero."""
    shifts_elements: bool = True
    """Whether pure elements are shifted too; fitted references leave them as they are."""
    part_name: str = "shift per atom"

    def correction(self, composition: Composition, details: EnergyDetails) -> Correction:  # noqa: ARG002
        """Raises `HullError` naming the elements without a shift where all are needed."""
        if composition.n_elements == 1 and not self.shifts_elements:
            return Correction(self.name)
        missing = [z for z in composition.atomic_numbers if z not in self.shifts]
        if missing and self.complete:
            names = ", ".join(SYMBOLS[z] for z in missing)
            raise HullError(
                f"{self.name} has no value for {names} of {composition.reduced_formula}; it corrects compounds of "
                "the elements it was made for: leave the entry out or use another scheme"
            )
        fractions = composition.fractions
        parts = (
            CorrectionPart(self.part_name, z, fractions[z], self.shifts[z], self.stds.get(z, math.nan))
            for z in composition.atomic_numbers
            if z in self.shifts
        )
        return Correction(self.name, tuple(parts))


GNOME_PSEUDOPOTENTIALS = PerElementShift(
    "GNoME-pseudopotentials-2024-11",
    {
        atomic_number(symbol): shift
        for symbol, shift in {
            "Ga": -0.0028805,
            "Ge": 0.10417085,
            "Li": -0.00301278,
            "Mg": 0.0924014,
            "Na": -0.00447437,
        }.items()
    },
    part_name="other pseudopotential",
)
"""Brings Materials Project energies to the pseudopotentials of the GNoME calculations.

eV per atom of the element, pure elements included, as published with the GNoME release of 21 November 2024
(google-deepmind/materials_discovery, DATASET.md; doi:10.1038/s41586-023-06735-9). For entries of the Materials
Project only, on top of MP2020; the energies of the GNoME release itself have the other potentials already.
"""


@dataclass(frozen=True)
class CombinedSchemes:
    """Several schemes, each added to the raw energy; use `combined` to make one."""

    schemes: tuple[CorrectionScheme, ...]

    @property
    def name(self) -> str:
        return "+".join(scheme.name for scheme in self.schemes)

    def correction(self, composition: Composition, details: EnergyDetails) -> Correction:
        """Raises `HullError` when any of the schemes does."""
        corrections = [scheme.correction(composition, details) for scheme in self.schemes]
        parts = tuple(part for correction in corrections for part in correction.parts)
        return Correction(self.name, parts, tuple(text for c in corrections for text in c.assumptions))


def combined(*schemes: CorrectionScheme) -> CorrectionScheme:
    """The sum of several schemes, named ``first+second``. Raises `HullError` for none, or for one name twice."""
    names = [scheme.name for scheme in schemes]
    if not names or len(set(names)) < len(names):
        raise HullError(f"cannot combine the schemes {names}; give one or more, each once")
    return schemes[0] if len(schemes) == 1 else CombinedSchemes(schemes)


@dataclass(frozen=True)
class CorrectedEntries:
    """What became of many entries: every one is either corrected or refused, both in their order."""

    entries: tuple[Entry, ...]
    """New entries with the correction, its scheme, and the raw energies as they were."""
    corrections: tuple[Correction, ...]
    """Of each entry, the terms and assumptions."""
    refused: tuple[tuple[Entry, str], ...]
    """The entries as given that could not be corrected, with the reason."""


def apply_correction(
    entries: Sequence[Entry],
    scheme: CorrectionScheme,
    details: Iterable[EnergyDetails] | None = None,
    *,
    level: str | None = None,
) -> CorrectedEntries:
    """Correct many entries; `details` has one record per entry, in their order, or is left out when nothing is known.

    The raw energy is what is corrected: an earlier correction of an entry is replaced, not added to. `level` is the
    level of the corrected entries, their own by default: name it where the scheme makes levels comparable, as
    MP2020 does for GGA and GGA+U. An entry that the scheme cannot correct, whose crystal is of another
    composition, or whose energy is not finite is refused, with the reason. Raises `HullError` when the numbers of
    entries and details differ.
    """
    records = [EnergyDetails()] * len(entries) if details is None else list(details)
    if len(records) != len(entries):
        raise HullError(f"{len(entries)} entries with {len(records)} records of details; give one for each, in order")
    corrected: list[Entry] = []
    corrections: list[Correction] = []
    refused: list[tuple[Entry, str]] = []
    for entry, record in zip(entries, records, strict=True):
        try:
            _check_entry(entry, record)
            correction = scheme.correction(entry.composition, record)
        except (HullError, InvalidCrystalError) as error:
            refused.append((entry, str(error)))
            continue
        corrections.append(correction)
        corrected.append(
            replace(
                entry,
                correction_per_atom=correction.energy_per_atom,
                correction_scheme=scheme.name,
                level=entry.level if level is None else level,
            )
        )
    return CorrectedEntries(tuple(corrected), tuple(corrections), tuple(refused))


def read_shifts(path: Path | str) -> PerElementShift:
    """A scheme of per-element shifts from a JSON file, for other pseudopotentials or another code.

    ``{"name": "my-potentials", "version": "1", "shifts": {"Ga": -0.003, ...}}``, shifts in eV per atom of the
    element, `stds` (optional) likewise; elements that are not listed are not shifted. The scheme is called
    ``name-version``. Raises `HullError` when a key is missing or unknown, or a value is not a finite number.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HullError(f"cannot read the shifts in {path}: {error}; the file must be JSON") from error
    required, known = {"name", "version", "shifts"}, {"name", "version", "shifts", "stds", "source"}
    keys = set(document) if isinstance(document, dict) else set()
    if not required <= keys <= known:
        raise HullError(f"{path} has the keys {sorted(keys)}; needed: {sorted(required)}, allowed: {sorted(known)}")
    return PerElementShift(
        f"{document['name']}-{document['version']}",
        _by_element(document["shifts"], f"shifts of {path}"),
        _by_element(document.get("stds", {}), f"stds of {path}"),
    )


def _check_entry(entry: Entry, details: EnergyDetails) -> None:
    """Raise `HullError` for a raw energy that is not finite, or a crystal that is not the entry's."""
    if not math.isfinite(entry.energy_per_atom):
        raise HullError(
            f"entry {entry.id!r} ({entry.reduced_formula}) has the energy {entry.energy_per_atom} eV/atom; it must "
            "be finite: leave the entry out"
        )
    if details.crystal is not None and details.crystal.composition.reduced != entry.composition.reduced:
        raise HullError(
            f"entry {entry.id!r} is {entry.reduced_formula}, its crystal {details.crystal.reduced_formula}; both "
            "must be one compound: give the crystal that the energy belongs to"
        )


def _by_element(values: Any, what: str) -> dict[int, float]:
    """Symbol -> number as atomic number -> float. Raises `HullError` naming `what`."""
    if not isinstance(values, Mapping):
        raise HullError(f"{what} is {values!r}; it must map element symbols to numbers")
    numbers: dict[int, float] = {}
    for symbol, value in values.items():
        try:
            z, number = atomic_number(str(symbol)), float(value)
        except (InvalidCrystalError, TypeError, ValueError) as error:
            raise HullError(f"{what} has {symbol!r}: {value!r}; it must map element symbols to numbers") from error
        if not math.isfinite(number):
            raise HullError(f"{what} has {symbol!r}: {value!r}; numbers must be finite")
        numbers[z] = number
    return numbers


def _without_zeros(hubbards: dict[int, float]) -> dict[int, float]:
    return {z: u for z, u in hubbards.items() if u}


def _potential_names(parameters: Mapping[str, Any]) -> frozenset[str] | None:
    """``PAW_PBE Fe_pv 06Sep2000`` is ``Fe_pv``, from the specifications or the titles, whichever are there."""
    specifications = parameters.get("potcar_spec") or []
    titles = [s["titel"] for s in specifications if s and s.get("titel")] or parameters.get("potcar_symbols") or []
    return frozenset(title.split()[1] for title in titles if title and len(title.split()) > 1) or None
