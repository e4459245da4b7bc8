"""The symmetry that a CIF declares, and the cell it makes of the listed sites."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import gemmi
import numpy as np

from opengnome.errors import InvalidCrystalError

_OPERATION_TAGS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
_HALL_TAGS = ("_space_group_name_Hall", "_symmetry_space_group_name_Hall")
_NAME_TAGS = ("_space_group_name_H-M_alt", "_symmetry_space_group_name_H-M", "_space_group_name_H-M_ref")
_NUMBER_TAGS = ("_space_group_IT_number", "_symmetry_Int_Tables_number")
# Other ways of declaring symmetry (magnetic, superspace); a file with only these must not pass for P1.
_UNREAD_PREFIXES = ("_space_group", "_symmetry")

_ORIGINS = ("1", "2")
"""Choices of the origin, behind a colon in a name."""
_SAME_SITE = 0.1
"""Images of one site closer than this (A) are that site on a special position: room for coordinates that
were rounded to two or three decimals. Images between this and the smallest distance of two atoms are an error
and are left for the check of distances to find."""
_METRIC_TOLERANCE = 0.02
"""Largest relative difference between the cell and its image under an operation of its own space group."""


@dataclass(frozen=True)
class Operations:
    """Symmetry operations x -> W x + w on fractional columns, centring translations included."""

    rotations: np.ndarray
    """Rotation parts W, shape (n_operations, 3, 3)."""
    translations: np.ndarray
    """Translation parts w, shape (n_operations, 3)."""


def symmetry_operations(block: gemmi.cif.Block, lattice: np.ndarray) -> Operations:
    """The operations of a data block: the listed ones, or those of its Hall symbol, name or number.

    A block that says nothing of symmetry lists all its atoms (P1). A number alone means the standard
    setting of the International Tables (hexagonal axes).
    Raises `InvalidCrystalError` when the symmetry cannot be read, does not say which of two origins it means, or
    contradicts the cell.
    """
    operations = _as_arrays(_listed_operations(block) or _named_operations(block, lattice))
    metric = lattice @ lattice.T
    changed = np.einsum("oji,jk,okl->oil", operations.rotations, metric, operations.rotations)
    lengths = np.sqrt(metric.diagonal())
    strains = np.abs(changed - metric) / np.outer(lengths, lengths)  # each entry by itself: a long axis hides nothing
    wrong = np.flatnonzero(strains.max(axis=(1, 2)) > _METRIC_TOLERANCE)
    if len(wrong):
        raise InvalidCrystalError(
            f"the cell contradicts the symmetry: operation {wrong[0] + 1} of {len(operations.rotations)} "
            f"changes its lengths or angles by more than {_METRIC_TOLERANCE:.0%}; mend the cell or "
            "the space group"
        )
    return operations


def expand(frac_coords: np.ndarray, operations: Operations, lattice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell from the listed sites, shape (n_sites, 3).

    Only images of one and the same site are merged, never two listed sites. A site on a special position is
    moved to the mean of the images that fall on it, so that 0.333 becomes 1/3 where the symmetry demands it.
    Returns the fractional coordinates in [0, 1), shape (n_atoms, 3), and the listed site that each came
    from, shape (n_atoms,).
    """
    images = [_images(site, operations, lattice) for site in frac_coords]
    owners = np.repeat(np.arange(len(images)), [len(image) for image in images])
    return np.concatenate(images) % 1.0 % 1.0, owners  # twice: -1e-17 % 1.0 is 1.0


def _images(site: np.ndarray, operations: Operations, lattice: np.ndarray) -> np.ndarray:
    """Distinct images of one site, shape (multiplicity, 3)."""
    if len(operations.rotations) == 1:
        return site[None, :]
    steps = _nearest(operations.rotations @ site + operations.translations - site)
    fixed = np.linalg.norm(steps @ lattice, axis=1) < _SAME_SITE
    centred = site + steps[fixed].mean(axis=0)
    remaining = operations.rotations @ centred + operations.translations
    distinct = []
    while len(remaining):
        distinct.append(remaining[0])
        distances = np.linalg.norm(_nearest(remaining - remaining[0]) @ lattice, axis=1)
        remaining = remaining[distances >= _SAME_SITE]
    return np.array(distinct)


def _nearest(steps: np.ndarray) -> np.ndarray:
    """Fractional differences less the whole lattice translations in them; exact for short ones."""
    return steps - np.round(steps)


def _listed_operations(block: gemmi.cif.Block) -> list[gemmi.Op]:
    for tag in _OPERATION_TAGS:
        column = [gemmi.cif.as_string(text) for text in block.find_values(tag)]
        if column:
            return [_parse_operation(text) for text in column]
    return []


def _parse_operation(text: str) -> gemmi.Op:
    try:
        return gemmi.Op(text)
    except (ValueError, RuntimeError) as error:
        raise InvalidCrystalError(
            f"cannot read the symmetry operation {text!r} ({error}); operations are written as in '-x, y+1/2, -z'"
        ) from error


def _named_operations(block: gemmi.cif.Block, lattice: np.ndarray) -> Iterable[gemmi.Op]:
    """Operations by Hall symbol, Hermann-Mauguin name or number, whichever is known first."""
    hall, name, number = (_first_value(block, tags) for tags in (_HALL_TAGS, _NAME_TAGS, _NUMBER_TAGS))
    if hall:
        with contextlib.suppress(ValueError, RuntimeError):  # the name or the number may still tell
            return gemmi.symops_from_hall(hall)
    # The angles tell hexagonal from rhombohedral axes of a name such as 'R -3 m'.
    spelled = _spelled(name)
    group = gemmi.find_spacegroup_by_name(spelled, _angle(lattice, 1, 2), _angle(lattice, 0, 1)) if name else None
    if group is None and number.isdigit() and 1 <= int(number) <= 230:
        group = gemmi.find_spacegroup_by_number(int(number))
        if name and _n_settings(int(number)) > 1:
            raise InvalidCrystalError(
                f"cannot read the space group {name!r}, and number {number} has several settings; give "
                "_space_group_symop_operation_xyz, or a name of the International Tables"
            )
    if group is not None:
        if group.ext in _ORIGINS and not spelled.endswith(_ORIGINS):
            raise InvalidCrystalError(
                f"the space group {name or number} has two origins and none is named; give "
                f"_space_group_symop_operation_xyz, or write '{group.hm}:1' or '{group.hm}:2'"
            )
        return group.operations()
    declared = [tag for tag in _tags(block) if tag.lower().startswith(_UNREAD_PREFIXES)]
    if declared:
        raise InvalidCrystalError(
            f"cannot read the symmetry in {', '.join(declared)}; give _space_group_symop_operation_xyz, or "
            "a name or number of the International Tables"
        )
    return [gemmi.Op("x,y,z")]


def _spelled(name: str) -> str:
    """A Hermann-Mauguin name as gemmi knows it: without underscores, and the ICSD's S and Z as the origin choice."""
    spelled = name.replace("_", "")
    for letter, origin in (("S", ":1"), ("Z", ":2")):
        if spelled.endswith(letter):
            return spelled[:-1].rstrip(" :") + origin
    return spelled


def _n_settings(number: int) -> int:
    return sum(group.number == number for group in gemmi.spacegroup_table())


def _tags(block: gemmi.cif.Block) -> list[str]:
    pairs = [cast("tuple[str, str] | None", item.pair) for item in block]  # gemmi's stub says object
    loops = [item.loop for item in block]
    return [pair[0] for pair in pairs if pair] + [tag for loop in loops if loop for tag in loop.tags]


def _first_value(block: gemmi.cif.Block, tags: Iterable[str]) -> str:
    values = (gemmi.cif.as_string(block.find_value(tag) or "?").strip() for tag in tags)
    return next((value for value in values if value), "")


def _as_arrays(operations: Iterable[gemmi.Op]) -> Operations:
    listed = list(operations)
    return Operations(
        np.array([op.rot for op in listed], dtype=float) / gemmi.Op.DEN,
        np.array([op.tran for op in listed], dtype=float) / gemmi.Op.DEN,
    )


def _angle(lattice: np.ndarray, i: int, j: int) -> float:
    cosine = lattice[i] @ lattice[j] / np.linalg.norm(lattice[i]) / np.linalg.norm(lattice[j])
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
