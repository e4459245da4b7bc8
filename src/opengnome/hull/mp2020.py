"""The Materials Project 2020 energy corrections, rule for rule as pymatgen applies them.

Wang et al., doi:10.1038/s41598-021-94550-5, with the strict-anion modes that pymatgen added in May 2024 (its pull
request 3803), because a correction per anion makes a hypothetical compound stable merely for being full of nitrogen
or hydrogen that is no anion there. Numbers are in `mp2020_constants`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from opengnome.crystals import Composition
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.errors import HullError, SettingsError
from opengnome.hull.anion_bonds import oxide_type, sulfide_type
from opengnome.hull.corrections import Correction, CorrectionPart, EnergyDetails
from opengnome.hull.mp2020_constants import (
    ANION_CORRECTIONS,
    ANION_STATE_RANGES,
    FORMULAS_BY_OXIDE_TYPE,
    HUBBARD_ANIONS,
    HUBBARD_U,
    MIXING_CORRECTIONS,
    POTENTIALS,
)
from opengnome.hull.oxidation_states import formula_order, guess_oxidation_states

StrictAnions = Literal["require_bound", "require_exact", "no_check"]

_RUN_TYPES = ("GGA", "GGA+U")
_OXYGEN, _SULFUR = ATOMIC_NUMBERS["O"], ATOMIC_NUMBERS["S"]
_U_TOLERANCE = 1e-9  # eV; a U is a setting, not a measurement


@dataclass(frozen=True)
class MP2020:
    """The scheme; equal to pymatgen's `MaterialsProject2020Compatibility` of the same options.

    Only for VASP energies with the settings of the Materials Project (PBE, its U and potentials): those settings are
    checked. Energies from other codes or potentials have other errors, and correcting them so is wrong.
    """

    strict_anions: StrictAnions = "require_bound"
    """Who is an anion among H, N, F, Si, Cl, Se, Br, Sb, Te, I. `no_check`: who has a negative oxidation state, as in
    the paper. `require_bound`: who has -1 or less. In both, where the state is not negative or not known, only the
    most electronegative element. `require_exact`: who has a state that the fit contained."""
    check_potentials: bool = True
    """Whether an energy must come with the names of its potentials; False trusts that they are the right ones."""
    distinguishes_oxides: bool = True
    """Whether peroxides, superoxides and ozonides have their own corrections (pymatgen's `correct_peroxide`)."""
    mixes_hubbard_u: bool = True
    """Whether oxides and fluorides of eight metals must have U and are brought to GGA (pymatgen's "Advanced");
    False takes energies without U only (its "GGA")."""

    def __post_init__(self) -> None:
        if self.strict_anions not in get_args(StrictAnions):
            raise SettingsError(f"{self.strict_anions=}; choose from {', '.join(get_args(StrictAnions))}")

    @property
    def name(self) -> str:
        """E.g. ``MP2020:require_bound``; options that change numbers are in it."""
        options: list[str] = [self.strict_anions]
        options += [] if self.distinguishes_oxides else ["one_oxide"]
        options += [] if self.mixes_hubbard_u else ["no_mixing"]
        return f"MP2020:{','.join(options)}"

    def correction(self, composition: Composition, details: EnergyDetails) -> Correction:
        """The terms for every anion and every metal with U; none for a pure element.

        Raises `HullError` for a run type other than GGA and GGA+U, for other potentials or unknown ones, for a
        Hubbard U that is not the one the scheme was fitted with, and for an oxide type that it does not know.
        """
        _check_run_type(composition, details)
        if self.check_potentials and details.software == "vasp":
            _check_potentials(composition, details)
        if composition.n_elements == 1:
            return Correction(self.name)
        assumptions: list[str] = []
        anions = [
            *self._sulfur(composition, details, assumptions),
            *self._oxygen(composition, details, assumptions),
            *self._other_anions(composition, details, assumptions),
        ]
        fractions = composition.fractions
        parts = [CorrectionPart(f"{kind} anion", z, fractions[z], *ANION_CORRECTIONS[kind]) for z, kind in anions]
        return Correction(self.name, (*parts, *self._mixing(composition, details)), tuple(assumptions))

    def _sulfur(
        self, composition: Composition, details: EnergyDetails, assumptions: list[str]
    ) -> Iterator[tuple[int, str]]:
        """Sulfur as anion, unless it is known to be a cation."""
        if _SULFUR not in composition.atomic_numbers:
            return
        kind = details.sulfide_type
        if not kind and details.crystal is not None:
            kind = sulfide_type(details.crystal)
        elif not kind:
            kind = "sulfide"
            assumptions.append("sulfur is an anion: neither a crystal nor a sulfide type was given")
        if kind in ("sulfide", "polysulfide"):
            yield _SULFUR, "S"

    def _oxygen(
        self, composition: Composition, details: EnergyDetails, assumptions: list[str]
    ) -> Iterator[tuple[int, str]]:
        """Oxygen, always as anion, of one kind per compound."""
        if _OXYGEN not in composition.atomic_numbers:
            return
        kind = details.oxide_type
        if not self.distinguishes_oxides:
            kind = "oxide"
        elif not kind and details.crystal is not None:
            kind = oxide_type(details.crystal)
        elif not kind:
            formula = composition.reduced_formula
            kind = next((k for k, formulas in FORMULAS_BY_OXIDE_TYPE.items() if formula in formulas), "oxide")
            assumptions.append(f"{kind}, from the formula: neither a crystal nor an oxide type was given")
        kind = "oxide" if kind == "hydroxide" else kind
        known = ("oxide", *FORMULAS_BY_OXIDE_TYPE)
        if kind not in known:
            raise HullError(
                f"{composition.reduced_formula} has the oxide type {kind!r}; choose from hydroxide, {', '.join(known)}"
            )
        yield _OXYGEN, kind

    def _other_anions(
        self, composition: Composition, details: EnergyDetails, assumptions: list[str]
    ) -> Iterator[tuple[int, str]]:
        candidates = [symbol for symbol in ANION_STATE_RANGES if ATOMIC_NUMBERS[symbol] in composition.atomic_numbers]
        if not candidates:
            return
        states = details.oxidation_states
        if states is None:
            states = guess_oxidation_states(composition)
            guessed = ", ".join(f"{SYMBOLS[z]} {state:+.3g}" for z, state in states.items())
            assumptions.append(f"oxidation states guessed from the composition: {guessed or 'none found'}")
        most_electronegative = SYMBOLS[max(composition.atomic_numbers, key=formula_order)]
        for symbol in candidates:
            state = states.get(ATOMIC_NUMBERS[symbol], 0.0)
            if self._is_anion(symbol, state, is_most_electronegative=symbol == most_electronegative):
                yield ATOMIC_NUMBERS[symbol], symbol

    def _is_anion(self, symbol: str, state: float, *, is_most_electronegative: bool) -> bool:
        if self.strict_anions == "require_exact":
            lowest, highest = ANION_STATE_RANGES[symbol]
            return lowest <= state <= highest
        if state < 0:
            return self.strict_anions == "no_check" or state <= -1
        return is_most_electronegative

    def _mixing(self, composition: Composition, details: EnergyDetails) -> list[CorrectionPart]:
        """Terms of the metals with U. Raises `HullError` for any U that is not the expected one."""
        most_electronegative = SYMBOLS[max(composition.atomic_numbers, key=formula_order)]
        mixes = self.mixes_hubbard_u and most_electronegative in HUBBARD_ANIONS
        parts = []
        for z, fraction in composition.fractions.items():
            expected = HUBBARD_U.get(SYMBOLS[z], 0.0) if mixes else 0.0
            actual = details.hubbards.get(z, 0.0)
            if abs(actual - expected) > _U_TOLERANCE:
                raise HullError(
                    f"{composition.reduced_formula} was calculated with U = {actual:g} eV on {SYMBOLS[z]}, the scheme "
                    f"{self.name} needs {expected:g}; recalculate it with that U or leave it out"
                )
            if expected:
                parts.append(CorrectionPart("GGA/GGA+U mixing", z, fraction, *MIXING_CORRECTIONS[SYMBOLS[z]]))
        return parts


def materials_project_hubbards(composition: Composition, run_type: str) -> dict[int, float]:
    """U in eV by atomic number that the Materials Project uses for a composition; none for a GGA run.

    For tables that keep the run type of an energy and not its U. Whoever uses it asserts that the energies are the
    Materials Project's own.
    """
    most_electronegative = SYMBOLS[max(composition.atomic_numbers, key=formula_order)]
    if run_type != "GGA+U" or most_electronegative not in HUBBARD_ANIONS:
        return {}
    return {z: HUBBARD_U[SYMBOLS[z]] for z in composition.atomic_numbers if SYMBOLS[z] in HUBBARD_U}


def _check_run_type(composition: Composition, details: EnergyDetails) -> None:
    if details.run_type not in _RUN_TYPES:
        raise HullError(
            f"{composition.reduced_formula} has the run type {details.run_type!r}; MP2020 corrects {_RUN_TYPES[0]} and "
            f"{_RUN_TYPES[1]} energies: give the run type of the energy, or use another scheme"
        )


def _check_potentials(composition: Composition, details: EnergyDetails) -> None:
    expected = {POTENTIALS.get(z, "") for z in composition.atomic_numbers}
    if "" in expected:
        unknown = ", ".join(SYMBOLS[z] for z in composition.atomic_numbers if z not in POTENTIALS)
        raise HullError(
            f"the Materials Project has no potential for {unknown} of {composition.reduced_formula}; MP2020 cannot "
            "correct it: leave it out"
        )
    if details.potentials is None:
        raise HullError(
            f"the potentials of {composition.reduced_formula} are not known; give them, or "
            "MP2020(check_potentials=False) to trust that they are those of the Materials Project"
        )
    if details.potentials != expected:
        raise HullError(
            f"{composition.reduced_formula} was calculated with the potentials {sorted(details.potentials)}, MP2020 "
            f"needs {sorted(expected)}; recalculate it or leave it out"
        )
