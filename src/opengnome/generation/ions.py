"""The ions of the data-mined substitution model: names, charges, lambda weights, radii, frequencies.

The weights are those of Hautier et al. (2011), doi:10.1021/ic102031h, as pymatgen ships them: a log-linear
joint probability p(X, X') proportional to exp(lambda) of two ions standing on equivalent sites of
compounds with the same structure.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

import numpy as np

from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.errors import InvalidCrystalError
from opengnome.generation.radii import ionic_radius

UNSEEN_LAMBDA = -5.0
"""Weight of a pair that the data do not contain; pymatgen's default (its `alpha`)."""

_COMMON_STATE_COUNT = 10.0  # stands for a common oxidation state that the ICSD sample misses (Pt, Au, ...)
_RARE_STATE_COUNT = 0.5  # any other state of the model that the sample misses

_NAME = re.compile(r"([A-Z][a-z]?)(\d*)([+-])")


@dataclass(frozen=True, eq=False)
class SpeciesTable:
    """All ions the model knows; every array is indexed by the ion's position in `names`."""

    names: tuple[str, ...]
    """E.g. ``Na1+``, sorted alphabetically; n_species of them."""
    atomic_numbers: np.ndarray
    """Shape (n_species,)."""
    charges: np.ndarray
    """Oxidation states in e, integers, never zero, shape (n_species,)."""
    lambdas: np.ndarray
    """Symmetric weights of the log-linear model, shape (n_species, n_species)."""
    radii: np.ndarray
    """Ionic radii in A, shape (n_species,)."""
    frequencies: np.ndarray
    """Share of this oxidation state among the occurrences of its element in the ICSD, shape (n_species,)."""

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position by name."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def states(self) -> dict[int, tuple[int, ...]]:
        """Positions of the ions of each element, by atomic number."""
        return {int(z): tuple(np.flatnonzero(self.atomic_numbers == z)) for z in np.unique(self.atomic_numbers)}

    def indices(self, names: tuple[str, ...] | list[str]) -> np.ndarray:
        """Positions of several ions; ``Na+`` is read as ``Na1+``.

        Raises `InvalidCrystalError` when the model does not know one.
        """
        return np.array([self._position(name) for name in names], dtype=np.int64)

    def _position(self, name: str) -> int:
        position = self.index.get(_normalised(name))
        if position is None:
            raise InvalidCrystalError(
                f"the substitution model has no ion {name!r}; write it like 'Fe3+' "
                f"(it knows {len(self)} ions, e.g. {', '.join(self.names[:3])})"
            )
        return position


@lru_cache(maxsize=1)
def species_table() -> SpeciesTable:
    """The table of the model's 230 ions (deuterium left out, as in pymatgen), read once per process."""
    rows = [row for row in json.loads(_pymatgen_file("structure_prediction/data/lambda.json")) if "D1+" not in row]
    names = tuple(sorted({name for row in rows for name in row[:2]}))
    index = {name: i for i, name in enumerate(names)}
    lambdas = np.full((len(names), len(names)), UNSEEN_LAMBDA)
    for first, second, value in rows:
        lambdas[index[first], index[second]] = lambdas[index[second], index[first]] = float(value)
    elements, charges = zip(*(_parse(name) for name in names), strict=True)
    arrays = {
        "atomic_numbers": np.array(elements, dtype=np.int64),
        "charges": np.array(charges, dtype=np.int64),
        "lambdas": lambdas,
        "radii": np.array([ionic_radius(z, q) for z, q in zip(elements, charges, strict=True)]),
        "frequencies": _state_frequencies(names),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return SpeciesTable(names=names, **arrays)


def _pymatgen_file(path: str) -> str:
    return (files("pymatgen.core") / path).read_text()


def _parse(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidCrystalError(f"{name!r} is not an ion; write it like 'Fe3+'")
    symbol, size, sign = match.groups()
    return ATOMIC_NUMBERS[symbol], int(size or 1) * (1 if sign == "+" else -1)


def _normalised(name: str) -> str:
    match = _NAME.fullmatch(name)
    return name if match is None else f"{match[1]}{match[2] or 1}{match[3]}"


def _state_frequencies(names: tuple[str, ...]) -> np.ndarray:
    from pymatgen.core import Element

    occurrences = _icsd_occurrences()
    elements, counts = [], []
    for name in names:
        z, charge = _parse(name)
        is_common = charge in Element(SYMBOLS[z]).common_oxidation_states
        elements.append(z)
        counts.append(occurrences.get(name, 0.0) + (_COMMON_STATE_COUNT if is_common else _RARE_STATE_COUNT))
    totals = np.bincount(elements, weights=counts)
    return np.array(counts) / totals[np.array(elements)]


def _icsd_occurrences() -> dict[str, float]:
    """How often each ion occurs in pymatgen's sample of the ICSD.

    The file is YAML, but the block wanted is ``name: count`` lines; reading them directly takes a
    millisecond and a YAML parser 0.7 s in every worker process.
    """
    block = _pymatgen_file("icsd_bv.yaml").partition("\noccurrence:\n")[2]
    lines = (line.strip().split(": ") for line in block.splitlines() if line.startswith("  "))
    return {_normalised(name): float(count) for name, count in lines}
