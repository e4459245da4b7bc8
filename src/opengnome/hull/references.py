"""Elemental references and formation energies."""

from collections.abc import Collection, Iterable, Mapping

from opengnome.crystals import Composition
from opengnome.crystals.elements import SYMBOLS
from opengnome.errors import MissingReferenceError


def check_references(elements: Iterable[int], references: Collection[int], *, level: str) -> None:
    """Raise `MissingReferenceError` naming the elements (atomic numbers) that have no reference."""
    missing = sorted(set(elements) - set(references))
    if missing:
        names = ", ".join(SYMBOLS[z] for z in missing)
        raise MissingReferenceError(
            f"no elemental reference for {names} at level {level!r}; a formation energy needs an "
            f"entry of every pure element: add one for {names} "
            "(with energy 0 where the entries hold formation energies)"
        )


def formation_energy_per_atom(
    composition: Composition, energy_per_atom: float, references: Mapping[int, float], *, level: str
) -> float:
    """Energy in eV/atom above the composition-weighted mean of the elemental references.

    Raises `MissingReferenceError` naming the elements without a reference.
    """
    check_references(composition.atomic_numbers, references, level=level)
    return energy_per_atom - sum(x * references[z] for z, x in composition.fractions.items())
