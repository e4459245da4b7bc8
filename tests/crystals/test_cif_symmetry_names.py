"""Space groups by name alone: one setting and one origin, or a refusal."""

import pytest

from opengnome.crystals.cif import parse_cif
from opengnome.errors import InvalidCrystalError

MONOCLINIC, CUBIC = (5.0, 6.0, 7.0, 90.0, 100.0, 90.0), (5.43, 5.43, 5.43, 90.0, 90.0, 90.0)


def cif(name: str, number: int | None, cell: tuple[float, ...], site: tuple[float, float, float]) -> str:
    keys = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    lines = ["data_x", *(f"_cell_{key} {value}" for key, value in zip(keys, cell, strict=True))]
    lines += [f"_symmetry_space_group_name_H-M '{name}'"] if name else []
    lines += [] if number is None else [f"_symmetry_Int_Tables_number {number}"]
    tags = ("_atom_site_type_symbol", *(f"_atom_site_fract_{axis}" for axis in "xyz"))
    return "\n".join([*lines, "loop_", *tags, "Si " + " ".join(map(str, site))]) + "\n"


@pytest.mark.parametrize("name", ["P2_1/n", "P21/n", "P 2_1/n", "P 1 21/n 1"])
def test_underscores_change_no_setting(name: str) -> None:
    (crystal,) = parse_cif(cif(name, 14, MONOCLINIC, (0.1, 0.2, 0.3)))
    assert sorted(crystal.frac_coords[:, 0].round(6).tolist()) == [0.1, 0.4, 0.6, 0.9]  # P21/c has 0.1, 0.1, 0.9, 0.9


def test_a_name_that_nobody_knows_is_not_replaced_by_a_number_of_several_settings() -> None:
    (refused,) = parse_cif(cif("P 21/?", 14, MONOCLINIC, (0.1, 0.2, 0.3)))
    assert isinstance(refused, InvalidCrystalError)
    assert "'P 21/?', and number 14 has several settings" in str(refused)
    (crystal,) = parse_cif(cif("", 14, MONOCLINIC, (0.1, 0.2, 0.3)))
    assert crystal.n_atoms == 4
    (only,) = parse_cif(cif("F m3?m", 225, CUBIC, (0.0, 0.0, 0.0)))
    assert only.n_atoms == 4


@pytest.mark.parametrize(
    ("name", "site"),
    [("F d -3 m Z", 0.125), ("F d -3 m:2", 0.125), ("F d -3 m S", 0.0), ("F d -3 m :1", 0.0), ("Fd-3mZ", 0.125)],
)
def test_the_origin_is_the_one_that_is_named(name: str, site: float) -> None:
    (diamond,) = parse_cif(cif(name, 227, CUBIC, (site,) * 3))
    assert diamond.n_atoms == 8


@pytest.mark.parametrize(("name", "number"), [("F d -3 m", None), ("F d -3 m", 227), ("", 227)])
def test_an_origin_that_is_not_named_is_refused(name: str, number: int | None) -> None:
    (refused,) = parse_cif(cif(name, number, CUBIC, (0.125,) * 3))
    assert isinstance(refused, InvalidCrystalError)
    assert "write 'F d -3 m:1' or 'F d -3 m:2'" in str(refused)


def test_a_long_axis_hides_no_wrong_angle() -> None:
    for c in (10.0, 30.0):
        (refused,) = parse_cif(cif("P 63/m m c", 194, (3.16, 3.16, c, 90.0, 90.0, 90.0), (1 / 3, 2 / 3, 0.25)))
        assert isinstance(refused, InvalidCrystalError)
        assert "the cell contradicts the symmetry" in str(refused)
