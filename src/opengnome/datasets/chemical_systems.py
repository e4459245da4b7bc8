"""Names of chemical systems, such as ``Li-Fe-O``."""

from itertools import combinations

from opengnome.crystals.elements import atomic_number


def elements_of_system(chemical_system: str) -> tuple[str, ...]:
    """Symbols of a chemical system, in the order they are named, each once.

    Raises `InvalidCrystalError` for a symbol that is no element.
    """
    symbols = tuple(dict.fromkeys(symbol.strip() for symbol in chemical_system.split("-")))
    for symbol in symbols:
        atomic_number(symbol)
    return symbols


def subsystems(chemical_system: str) -> list[str]:
    """A chemical system and all systems inside it, fewest elements first: Fe, O and Fe-O for ``O-Fe``.

    Raises `InvalidCrystalError` for a symbol that is no element.
    """
    symbols = sorted(elements_of_system(chemical_system))
    return ["-".join(part) for size in range(1, len(symbols) + 1) for part in combinations(symbols, size)]
