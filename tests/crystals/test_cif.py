import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.crystals import Crystal
from opengnome.crystals.cif import cif_text, parse_cif
from opengnome.crystals.geometry import minimum_distance
from opengnome.crystals.io import to_pymatgen
from opengnome.errors import InvalidCrystalError

SALT = """data_NaCl
_cell_length_a 5.64(1)
_cell_length_b 5.64(1)
_cell_length_c 5.64(1)
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""
SITES = "Na1 Na+ 0 0 0 1\nCl1 Cl1- 0.5 0.5 0.5 1.0"
LIST = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'x,y+1/2,z+1/2'\n'x+1/2,y,z+1/2'\n'x+1/2,y+1/2,z'"


def read_one(text: str) -> Crystal:
    (result,) = parse_cif(text)
    if isinstance(result, InvalidCrystalError):
        raise result
    return result


def salt(symmetry: str = "_space_group_name_H-M_alt 'F m -3 m'", sites: str = SITES) -> str:
    return SALT.format(symmetry=symmetry, sites=sites)


@pytest.mark.parametrize(
    "symmetry",
    [
        "_space_group_name_H-M_alt 'F m -3 m'",
        "_symmetry_space_group_name_H-M Fm-3m",
        "_space_group_IT_number 225",
        "_symmetry_Int_Tables_number 225",
        "_space_group_name_Hall '-F 4 2 3'",
        "_space_group_name_Hall '?'\n_space_group_name_H-M_alt ?\n_space_group_IT_number 225",
        LIST,
        LIST.replace("_symmetry_equiv_pos_as_xyz", "_space_group_symop_operation_xyz"),
    ],
)
def test_rock_salt_by_every_way_to_declare_symmetry(symmetry):
    crystal = read_one(salt(symmetry))
    assert crystal.n_atoms == 8
    assert crystal.reduced_formula == "NaCl"
    assert crystal.volume == pytest.approx(5.64**3)
    assert minimum_distance(crystal) == pytest.approx(5.64 / 2)


def test_the_list_of_operations_wins_over_the_name():
    crystal = read_one(salt("loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n_symmetry_space_group_name_H-M 'F m -3 m'"))
    assert crystal.n_atoms == 2


def test_without_symmetry_all_atoms_are_listed():
    assert read_one(salt("")).n_atoms == 2


@pytest.mark.parametrize(
    ("symmetry", "part"),
    [
        ("_space_group_name_H-M_alt 'Q m m'", "cannot read the symmetry in _space_group_name_H-M_alt"),
        ("_space_group_magn.number_BNS 3.1", "cannot read the symmetry"),
        ("loop_\n_symmetry_equiv_pos_as_xyz\n'x,y'", "cannot read the symmetry operation 'x,y'"),
        ("_space_group_IT_number 194", "contradicts the symmetry"),
    ],
)
def test_symmetry_that_cannot_be_used(symmetry, part):
    with pytest.raises(InvalidCrystalError) as caught:
        read_one(salt(symmetry))
    assert part in str(caught.value)


def test_rounded_coordinates_on_special_positions_are_one_atom_in_its_place():
    # Mg in P6_3/mmc at 2c (1/3, 2/3, 1/4), written with three decimals
    text = """data_Mg
_cell_length_a 3.21
_cell_length_b 3.21
_cell_length_c 5.21
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_space_group_name_H-M_alt 'P 63/m m c'
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mg1 0.333 0.667 0.25
"""
    crystal = read_one(text)
    assert crystal.frac_coords == pytest.approx(np.array([[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]))
    assert crystal.atomic_numbers.tolist() == [12, 12]


@pytest.mark.parametrize(
    ("type_symbol", "z"),
    [("Na+", 11), ("Na1+", 11), ("O2-", 8), ("Fe+3", 26), ("CL", 17), ("D", 1), ("Fe3", 26), ("c", 6), ("Cu0+", 29)],
)
def test_type_symbols(type_symbol, z):
    crystal = read_one(salt("", f"A1 {type_symbol} 0 0 0 1"))
    assert crystal.atomic_numbers.tolist() == [z]


@pytest.mark.parametrize(("label", "z"), [("Na1", 11), ("O", 8), ("Fe2A", 26), ("Ow1", 8), ("C13", 6), ("OXT", 8)])
def test_labels_where_the_type_symbol_is_unknown(label, z):
    assert read_one(salt("", f"{label} ? 0 0 0 1")).atomic_numbers.tolist() == [z]


@pytest.mark.parametrize(
    ("sites", "part"),
    [
        ("X1 Xq 0 0 0 1", "site X1: 'Xq' is not an element"),
        ("NA1 ? 0 0 0 1", "the label 'NA1' does not tell the element"),
        ("Q1 . 0 0 0 1", "the label 'Q1' does not tell the element"),
        ("Na1 Na 0 ? 0 1", "site Na1 has the coordinates 0 ? 0"),
        ("Na1 Na 0 1/3 0 1", "must be three numbers"),
        ("Li1 Li 0 0 0 0.5", "site Li1 (Li) has occupancy 0.5, every site must be fully occupied"),
        ("Li1 Li 0 0 0 0.25(1)", "occupancy 0.25(1)"),
        ("Li1 Li 0 0 0 0", "occupancy 0"),
        ("Li1 Li 0 0 0 2", "occupancy 2"),
        ("Na1 Na 0 0 0 1\nK1 K 0 0 0.02 1", "Na1 and K1 are 0.113 A apart"),
        ("Na1 Na 0 0 0 1\nNa2 Na 1 0 0 1", "Na1 and Na2 are 0.000 A apart"),
        ("Na1 Na 0 0 0 1\nNa1 Na 0 0 0 1", "Na1 and Na1 are 0.000 A apart"),
    ],
)
def test_sites_that_are_refused(sites, part):
    with pytest.raises(InvalidCrystalError) as caught:
        read_one(salt("", sites))
    assert part in str(caught.value)


def test_two_elements_on_one_special_position_are_not_merged():
    with pytest.raises(InvalidCrystalError, match=r"two atoms at one place: Na1 and K1 are 0\.000 A apart"):
        read_one(salt(sites="Na1 Na 0 0 0 1\nK1 K 0 0 0 1"))


def test_images_of_one_site_that_nearly_meet_are_not_merged():
    # 0.3 A from the mirror plane: two images 0.3 A apart, neither one atom nor two
    with pytest.raises(InvalidCrystalError, match=r"Na1 and Na1 are 0\.\d+ A apart"):
        read_one(salt(sites="Na1 Na 0.03 0 0 1\nCl1 Cl 0.5 0.5 0.5 1"))


def test_unknown_occupancies_are_full():
    assert read_one(salt("", "Na1 Na 0 0 0 ?")).n_atoms == 1
    assert read_one(salt("", "Na1 Na 0 0 0 .")).n_atoms == 1
    assert read_one(salt("", "Na1 Na 0 0 0 1.0000")).n_atoms == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("these are notes, not a crystal\n", "not a CIF"),
        (bytes(range(256)).decode("latin1"), "not a CIF"),
        (salt()[:-12], "truncated"),
        ("data_a\n_cell_length_a 'abc\n", "truncated"),
        (salt() + salt(), "not a valid CIF (duplicate block name: NaCl)"),
    ],
)
def test_what_is_no_cif(text, part):
    with pytest.raises(InvalidCrystalError) as caught:
        parse_cif(text)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (salt().replace("_cell_angle_beta 90\n", ""), "no number for _cell_angle_beta"),
        (salt().replace("_cell_length_a 5.64(1)", "_cell_length_a ?"), "no number for _cell_length_a"),
        (salt().replace("_cell_length_a 5.64(1)", "_cell_length_a -5.64"), "lengths are positive"),
        (salt().replace("_cell_angle_beta 90", "_cell_angle_beta 190"), "each angle"),
        (salt().split("loop_")[0], "no atom sites"),
        ("data_empty\n_chemical_name_common salt\n", "no number for _cell_length_a"),
        (salt("_chemical_formula_sum 'Na1 Cl2'"), "the atom sites make 'Na1 Cl1'"),
        (salt("_chemical_formula_sum 'Na1 Cl1 H2'"), "hydrogen not located"),
    ],
)
def test_blocks_that_are_no_crystal(text, part):
    with pytest.raises(InvalidCrystalError) as caught:
        read_one(text)
    assert part in str(caught.value)


@pytest.mark.parametrize("formula", ["'Na4 Cl4'", "'Cl Na'", "'Na0.501 Cl0.499'", "?", "'Na Cl * n(H2 O)'", "''"])
def test_formulas_that_agree_or_prove_nothing(formula):
    assert read_one(salt(f"_chemical_formula_sum {formula}")).n_atoms == 2


def test_a_loop_cut_off_between_two_rows_is_found_by_the_formula(perovskite):
    text = cif_text(perovskite, name="SrTiO3")
    rows = text.splitlines(keepends=True)
    with pytest.raises(InvalidCrystalError, match="truncated file"):
        read_one("".join(rows[:-1]))
    assert read_one(text).n_atoms == 5


def test_several_blocks_are_read_each_by_itself():
    blocks = [salt(), salt("", "X1 Xx 0 0 0 1"), salt("")]
    named = [block.replace("data_NaCl", f"data_{number}") for number, block in enumerate(blocks)]
    first, second, third = parse_cif("data_global\n_journal_year 2020\n" + "".join(named))
    assert isinstance(first, Crystal)
    assert first.n_atoms == 8
    assert isinstance(second, InvalidCrystalError)
    assert isinstance(third, Crystal)
    assert third.n_atoms == 2


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000), st.integers(1, 12))
def test_written_crystals_read_back(seed, n_atoms):
    rng = np.random.default_rng(seed)
    lattice = np.diag(rng.uniform(5, 12, 3)) + rng.normal(size=(3, 3))
    if np.linalg.det(lattice) < 0:
        lattice[0] *= -1
    grid = np.stack(np.meshgrid(*[np.arange(3) / 3] * 3), -1).reshape(-1, 3)
    frac_coords = rng.permutation(grid)[:n_atoms] + rng.uniform(0, 0.1, (n_atoms, 3))
    crystal = Crystal(lattice, frac_coords, rng.integers(1, 100, n_atoms))
    back = read_one(cif_text(crystal, name=f"a b {seed}"))
    assert back.atomic_numbers.tolist() == crystal.atomic_numbers.tolist()
    assert back.lattice @ back.lattice.T == pytest.approx(crystal.lattice @ crystal.lattice.T, abs=1e-6)
    steps = back.frac_coords - crystal.frac_coords
    assert steps - np.round(steps) == pytest.approx(np.zeros((n_atoms, 3)), abs=1e-9)


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib, from inside pymatgen
def test_pymatgen_reads_what_is_written(perovskite):
    core = pytest.importorskip("pymatgen.core")
    structure = core.Structure.from_str(cif_text(perovskite, name="SrTiO3"), fmt="cif")
    assert structure.composition.reduced_formula == "SrTiO3"
    assert structure.get_space_group_info()[1] == 221
    assert structure.lattice.abc == pytest.approx((3.905,) * 3)


def prototypes(step: int) -> list:
    data = pytest.importorskip("pymatgen.analysis.prototypes._data")
    return [entry["snl"].structure for entry in data.AFLOW_PROTOTYPE_LIBRARY[::step]]


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING:DeprecationWarning")  # spglib, from inside pymatgen
@pytest.mark.filterwarnings("ignore:Issues encountered while parsing CIF")  # pymatgen rounds 0.3333
def test_symmetric_files_equal_those_read_by_pymatgen():
    from pymatgen.io.cif import CifParser, CifWriter

    for structure in prototypes(step=12):
        text = str(CifWriter(structure, symprec=0.01))
        theirs = CifParser.from_str(text).parse_structures(primitive=False)[0]
        ours = to_pymatgen(read_one(text))
        assert len(ours) == len(theirs)
        assert ours.composition == theirs.composition
        assert ours.lattice.parameters == pytest.approx(theirs.lattice.parameters)
        # every atom of theirs is one of ours
        steps = theirs.frac_coords[:, None] - ours.frac_coords[None]
        steps -= np.round(steps)
        distances = np.linalg.norm(steps @ theirs.lattice.matrix, axis=-1)
        same = np.array([[a.specie == b.specie for b in ours] for a in theirs])
        assert np.where(same, distances, np.inf).min(axis=1).max() < 2e-3  # pymatgen does not centre them
