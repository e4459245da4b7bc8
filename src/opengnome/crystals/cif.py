"""CIF files: every block a crystal, or the reason why it is none.

gemmi splits the file into tags and values; what they mean is decided here, because a crystal that is
silently completed or repaired would get a confident and wrong energy. See `cif_symmetry` for the symmetry.
Deuterium is read as hydrogen: the two share one potential energy surface.
"""

import re
from dataclasses import dataclass

import gemmi
import numpy as np

from opengnome.crystals.cif_symmetry import expand, symmetry_operations
from opengnome.crystals.composition import Composition
from opengnome.crystals.crystal import Crystal
from opengnome.crystals.elements import ATOMIC_NUMBERS, SYMBOLS
from opengnome.crystals.geometry import check_distances
from opengnome.errors import InvalidCrystalError

_CELL_TAGS = tuple(f"_cell_{name}" for name in ("length_a", "length_b", "length_c")) + tuple(
    f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")
)
_FRACT_TAGS = ("_atom_site_fract_x", "_atom_site_fract_y", "_atom_site_fract_z")
_OPTIONAL_SITE_TAGS = ("?_atom_site_type_symbol", "?_atom_site_label", "?_atom_site_occupancy")
_FULL_OCCUPANCY_TOLERANCE = 1e-3
_ELEMENTS = ATOMIC_NUMBERS | {"D": 1, "T": 1}
# 'Na', 'Na+', 'Na1+', 'O2-', 'Fe+3', 'Cl0.5-', and 'Fe3' where the charge lost its sign
_TYPE_SYMBOL = re.compile(r"([A-Za-z]{1,2})(?:[+-]?[\d.]*[+-]?)$")
_LABEL = re.compile(r"([A-Za-z]{1,2})")


@dataclass(frozen=True)
class _Site:
    name: str
    """Label and element as the messages name the site, e.g. ``Na1``."""
    atomic_number: int
    frac_coords: tuple[float, float, float]


def parse_cif(text: str) -> list[Crystal | InvalidCrystalError]:
    """The crystals of a CIF, one item per data block, with the error in place of a block that is no crystal.

    Blocks with neither a cell nor atoms (such as ``data_global``) are left out when another block has them.
    Raises `InvalidCrystalError` when the text is not a CIF at all.
    """
    try:
        blocks = list(gemmi.cif.read_string(text))
    except (ValueError, RuntimeError) as error:
        raise InvalidCrystalError(_explain_syntax(str(error))) from error
    if not blocks:
        raise InvalidCrystalError("not a CIF: the file is empty, or holds only comments; a CIF has a data_ block")
    candidates = [block for block in blocks if _mentions_crystal(block)] or blocks[:1]
    return [_read_block_or_error(block) for block in candidates]


def read_cif_block(block: gemmi.cif.Block) -> Crystal:
    """All atoms of the cell that one data block describes; atoms on special positions once.

    The lattice has a along x and b in the xy plane.
    Raises `InvalidCrystalError` when something is missing or not allowed: the message says what and where.
    """
    lattice = _read_lattice(block)
    sites = _read_sites(block)
    operations = symmetry_operations(block, lattice)
    frac_coords, owners = expand(np.array([site.frac_coords for site in sites]), operations, lattice)
    crystal = Crystal(lattice, frac_coords, np.array([sites[owner].atomic_number for owner in owners]))
    check_distances(crystal, labels=[sites[owner].name for owner in owners])
    _check_formula(block, crystal.composition)
    return crystal


def cif_text(crystal: Crystal, *, name: str) -> str:
    """A CIF of all atoms in space group P1, lengths and fractions with 10 decimals.

    A CIF holds lengths and angles only: orientation is lost, and a left-handed lattice comes back as its
    mirror image, which has the same energy.
    """
    lengths, angles = _cell_parameters(crystal.lattice)
    lines = [
        f"data_{re.sub(r'[^!-~]+', '_', name) or 'crystal'}",
        f"_chemical_formula_structural   {crystal.reduced_formula}",
        f"_chemical_formula_sum   '{_formula_sum(crystal.composition)}'",
        *(f"{tag}   {value:.10f}" for tag, value in zip(_CELL_TAGS, [*lengths, *angles], strict=True)),
        f"_cell_volume   {crystal.volume:.8f}",
        "_space_group_name_H-M_alt   'P 1'",
        "_space_group_IT_number   1",
        "loop_",
        " _space_group_symop_operation_xyz",
        "  'x, y, z'",
        "loop_",
        " _atom_site_type_symbol",
        " _atom_site_label",
        *(f" {tag}" for tag in _FRACT_TAGS),
        " _atom_site_occupancy",
    ]
    for site, (symbol, (x, y, z)) in enumerate(zip(crystal.symbols, crystal.frac_coords, strict=True)):
        lines.append(f"  {symbol}  {symbol}{site}  {x:.10f}  {y:.10f}  {z:.10f}  1")
    return "\n".join(lines) + "\n"


def _read_block_or_error(block: gemmi.cif.Block) -> Crystal | InvalidCrystalError:
    try:
        return read_cif_block(block)
    except InvalidCrystalError as error:
        return error


def _mentions_crystal(block: gemmi.cif.Block) -> bool:
    return any(block.find_values(tag) for tag in (_CELL_TAGS[0], _FRACT_TAGS[0]))


def _explain_syntax(message: str) -> str:
    message = message.removeprefix("string:").strip()
    if "expected block header" in message:
        return "not a CIF: the file does not begin with a data_ block"
    if "in loop" in message or "unterminated" in message or "expected" in message:
        return f"not a complete CIF, perhaps truncated ({message})"
    return f"not a valid CIF ({message})"


def _read_lattice(block: gemmi.cif.Block) -> np.ndarray:
    parameters = [_number(block.find_value(tag)) for tag in _CELL_TAGS]
    missing = [tag for tag, value in zip(_CELL_TAGS, parameters, strict=True) if np.isnan(value)]
    if missing:
        raise InvalidCrystalError(f"no number for {', '.join(missing)}: the CIF has no complete cell")
    lengths, (alpha, beta, gamma) = parameters[:3], np.radians(parameters[3:])
    cos_alpha, cos_beta, cos_gamma = np.cos([alpha, beta, gamma])
    gram = 1 - cos_alpha**2 - cos_beta**2 - cos_gamma**2 + 2 * cos_alpha * cos_beta * cos_gamma
    if min(lengths) <= 0 or min(parameters[3:]) <= 0 or max(parameters[3:]) >= 180 or gram <= 0:
        raise InvalidCrystalError(
            f"no cell has the lengths {lengths} A and angles {parameters[3:]} degrees; lengths are "
            "positive, and each angle is less than the sum of the other two"
        )
    a, b, c = lengths
    sin_gamma = np.sin(gamma)
    return np.array(
        [
            [a, 0.0, 0.0],
            [b * cos_gamma, b * sin_gamma, 0.0],
            [c * cos_beta, c * (cos_alpha - cos_beta * cos_gamma) / sin_gamma, c * np.sqrt(gram) / sin_gamma],
        ]
    )


def _read_sites(block: gemmi.cif.Block) -> list[_Site]:
    table = block.find([*_FRACT_TAGS, *_OPTIONAL_SITE_TAGS])
    if len(table) == 0:
        raise InvalidCrystalError(
            "no atom sites: the CIF of a crystal has a loop with _atom_site_fract_x, _y and _z (truncated?)"
        )
    return [_read_site(row, number) for number, row in enumerate(table, start=1)]


def _read_site(row: gemmi.cif.Table.Row, number: int) -> _Site:
    type_symbol, label, occupancy = (_text(row, column) for column in (3, 4, 5))
    name = label or (f"{type_symbol} (site {number})" if type_symbol else f"site {number}")
    atomic_number = _read_element(type_symbol, label, name)
    x, y, z = (_number(row[column]) for column in range(3))
    if not np.isfinite([x, y, z]).all():
        raise InvalidCrystalError(f"site {name} has the coordinates {row[0]} {row[1]} {row[2]}, must be three numbers")
    occupied = _number(occupancy) if occupancy else 1.0  # a CIF without occupancies has full ones
    if not abs(occupied - 1.0) <= _FULL_OCCUPANCY_TOLERANCE:
        raise InvalidCrystalError(
            f"site {name} ({SYMBOLS[atomic_number]}) has occupancy {occupancy}, every site must be fully "
            "occupied; give an ordered approximant of the disordered crystal"
        )
    return _Site(name, atomic_number, (x, y, z))


def _read_element(type_symbol: str, label: str, name: str) -> int:
    """Atomic number from the type symbol, or from the letters of the label where there is none."""
    if type_symbol:
        match = _TYPE_SYMBOL.match(type_symbol)
        symbol = match.group(1).capitalize() if match else ""
        if symbol in _ELEMENTS:
            return _ELEMENTS[symbol]
        raise InvalidCrystalError(
            f"site {name}: {type_symbol!r} is not an element; type symbols are written as in Na, Na+ or O2-"
        )
    match = _LABEL.match(label)
    letters = match.group(1) if match else ""
    both = letters.capitalize()
    others = ("T", "W") if letters[1:].islower() else ("T",)  # T1: a tetrahedral site. Wat: water
    readings = [s for s in {both, letters[:1].upper()} if s in _ELEMENTS and s not in others]
    if both in readings and (letters[1:].islower() or len(letters) == 1):
        return _ELEMENTS[both]
    if len(readings) != 1:  # 'NA1' may be sodium, or a nitrogen atom named A1
        raise InvalidCrystalError(
            f"site {name}: the label {label!r} does not tell the element; add _atom_site_type_symbol"
        )
    return _ELEMENTS[readings[0]]


def _check_formula(block: gemmi.cif.Block, composition: Composition) -> None:
    """Compare with the formula in the file: a loop cut off between two rows is found in no other way."""
    declared_text = gemmi.cif.as_string(block.find_value("_chemical_formula_sum") or "?")
    declared: dict[int, float] = {}
    for token in declared_text.split():
        match = re.fullmatch(r"([A-Z][a-z]?)(\d*\.?\d*)", token)
        if match is None or match.group(1) not in _ELEMENTS:
            return  # a formula that is not written by the rules proves nothing
        z = _ELEMENTS[match.group(1)]
        declared[z] = declared.get(z, 0.0) + float(match.group(2) or 1)
    total = sum(declared.values())
    if total == 0:
        return
    whole = all(amount == round(amount) for amount in declared.values())
    tolerance = 1e-6 if whole else 5e-3  # amounts such as 0.33 are rounded
    elements = declared.keys() | composition.fractions.keys()
    if any(abs(declared.get(z, 0) / total - composition.fractions.get(z, 0)) > tolerance for z in elements):
        raise InvalidCrystalError(
            f"the atom sites make {_formula_sum(composition)!r}, but _chemical_formula_sum is "
            f"{' '.join(declared_text.split())!r}; atoms are missing (truncated file, hydrogen not located?) "
            "or the symmetry is not that of the file"
        )


def _formula_sum(composition: Composition) -> str:
    return " ".join(f"{SYMBOLS[z]}{count}" for z, count in composition.counts)


def _cell_parameters(lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (3,) in A and angles alpha, beta, gamma (3,) in degrees."""
    lengths = np.linalg.norm(lattice, axis=1)
    unit = lattice / lengths[:, None]
    cosines = [unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]]
    return lengths, np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0)))


def _number(text: str | None) -> float:
    """Value of a CIF number, its standard uncertainty in parentheses dropped; NaN when it is none."""
    return gemmi.cif.as_number(text) if text else float("nan")


def _text(row: gemmi.cif.Table.Row, column: int) -> str:
    """Unquoted text of an optional column, empty where the column or the value is missing."""
    return gemmi.cif.as_string(row[column]).strip() if row.has(column) else ""
