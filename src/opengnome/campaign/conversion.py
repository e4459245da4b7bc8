"""Calculation -> Entry: the one place where an oracle's energy becomes an energy of the known set's level."""

from opengnome.campaign.events import Aligned, Calculated
from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import MissingReferenceError
from opengnome.hull import Entry
from opengnome.oracles import Status

UNALIGNED = "none"


def entry_of(calculated: Calculated, alignment: Aligned, *, level: str) -> Entry:
    """Hull entry of a converged calculation.

    Without alignment the oracle's energy per atom counts as it is. With `per_element` the uncorrected energy
    is the oracle's formation energy (its own energy of each element's reference crystal subtracted), and the
    correction is the fitted shift of each element times its fraction; both in eV/atom.
    """
    if calculated.energy_per_atom is None:
        raise ValueError(f"{calculated.crystal_id} has no energy: it ended as {calculated.status}")
    composition = Composition.from_formula(calculated.reduced_formula)
    return Entry(
        id=calculated.crystal_id,
        composition=composition,
        energy_per_atom=uncorrected_energy_per_atom(calculated.energy_per_atom, composition, alignment),
        correction_per_atom=weighted_sum(composition, alignment.shifts) if alignment.shifts else 0.0,
        correction_scheme=alignment.scheme,
        level=level,
        source=f"round {calculated.round}",
    )


def aligned_energy_per_atom(energy_per_atom: float, composition: Composition, alignment: Aligned) -> float:
    """Oracle energy per atom brought to the level of the known set, eV/atom."""
    shift = weighted_sum(composition, alignment.shifts) if alignment.shifts else 0.0
    return uncorrected_energy_per_atom(energy_per_atom, composition, alignment) + shift


def uncorrected_energy_per_atom(energy_per_atom: float, composition: Composition, alignment: Aligned) -> float:
    """The oracle's energy, or its formation energy where energies are aligned, eV/atom."""
    if alignment.scheme == UNALIGNED:
        return energy_per_atom
    return energy_per_atom - weighted_sum(composition, alignment.references)


def weighted_sum(composition: Composition, per_element: dict[str, float]) -> float:
    """Sum of fraction times value over the elements of a composition; values by symbol, eV/atom.

    Raises `MissingReferenceError` when an element has no value.
    """
    missing = [SYMBOLS[z] for z in composition.atomic_numbers if SYMBOLS[z] not in per_element]
    if missing:
        raise MissingReferenceError(
            f"no oracle reference for {', '.join(missing)}: the alignment was fitted without them; "
            "restrict known.elements and generation to elements with a known elemental crystal"
        )
    return sum(fraction * per_element[SYMBOLS[z]] for z, fraction in composition.fractions.items())


def has_energy(calculated: Calculated) -> bool:
    """Whether a calculation converged, so that its energy may enter the hull."""
    return calculated.status == Status.CONVERGED and calculated.energy_per_atom is not None
