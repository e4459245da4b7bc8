"""The GNoME release's summary tables, on a small file of their documented shape made by hand."""

from pathlib import Path

import pytest

from opengnome.datasets import IN_THE_ENERGY, read_entries, read_gnome_summary
from opengnome.errors import SettingsError

STABLE = """\
,Composition,MaterialId,Reduced Formula,Elements,NSites,Volume,Density,Point Group,Space Group,Space Group Number,\
Crystal System,UnCorrected Energy,Corrected Energy,Formation Energy Per Atom,Decomposition Energy Per Atom,\
Dimensionality Cheon,Bandgap,Is Train,Decomposition Energy Per Atom All,Decomposition Energy Per Atom Relative,\
Decomposition Energy Per Atom MP,Decomposition Energy Per Atom MP OQMD
0,Li4O2,719c008190,Li2O,"['Li', 'O']",6,49.9,1.99,m-3m,Fm-3m,225,cubic,-27.0,-28.374,-2.05,-0.1,3D,5.1,True,0.0,-0.1,\
-0.1,-0.1
1,Ac10Al4Os6,975d473348,Ac5Al2Os3,"['Al', 'Os', 'Ac']",20,549.9,10.6,23,I2_13,199,cubic,-127.1471,-127.1471,-0.1794,\
-0.02,3D,,False,0.0,-0.02,-0.02,-0.02
2,Na2Cl2,5b98cce302,NaCl,"['Na', 'Cl']",5,90.0,2.1,m-3m,Fm-3m,225,cubic,-13.0,-14.2,-2.1,0.0,3D,inf,True,0.0,0.0,0.0,0.0
3,K1F1,bcad131283,KF,"['K', 'F']",2,38.0,2.5,m-3m,Fm-3m,225,cubic,-9.0,,-2.9,0.0,NaN,NaN,True,0.0,0.0,0.0,0.0
"""
"""Rows: an oxide with correction, an intermetallic, one whose NSites is not that of its composition, one without
energy."""

EXTERNAL = """\
,Composition,MaterialId,Reduced Formula,Elements,NSites,Corrected Energy,Decomposition Energy Per Atom All,\
Decomposition Energy Per Atom MP,Directory
8731,Li2,mp-135,Li,['Li'],2.0,-3.81,0.0,0.0,
25948,O8,mp-12957,O2,['O'],8.0,-39.6,0.0,0.0,
"""


def test_stable_materials(tmp_path: Path) -> None:
    path = tmp_path / "stable_materials_summary.csv"
    path.write_text(STABLE)
    read = read_entries(path)
    oxide, intermetallic = read.entries
    assert read.energy_kind == "total"
    assert (oxide.id, oxide.reduced_formula, oxide.level) == ("719c008190", "Li2O", "GNoME PBE")
    assert oxide.energy_per_atom == pytest.approx(-4.5)
    assert oxide.corrected_energy_per_atom == pytest.approx(-28.374 / 6)
    assert oxide.correction_scheme == "MP2020"
    assert intermetallic.composition.n_atoms == 20
    assert [(r.id, r.status) for r in read.rejected] == [
        ("5b98cce302", "invalid_formula"),
        ("bcad131283", "no_energy"),
    ]
    assert "NSites is 5 and Na2Cl2 has 4 atoms" in read.rejected[0].reason


def test_formation_energies_of_the_release(tmp_path: Path) -> None:
    path = tmp_path / "stable_materials_summary.csv"
    path.write_text(STABLE)
    read = read_entries(path, energy="formation")
    assert read.energy_kind == "formation"
    assert [e.energy_per_atom for e in read.entries] == [-2.05, -0.1794, -2.9]
    assert read.entries[0].correction_scheme == "MP2020" + IN_THE_ENERGY


def test_external_tables_have_the_corrected_energy_only(tmp_path: Path) -> None:
    path = tmp_path / "external_materials_summary.csv"
    path.write_text(EXTERNAL)
    read = read_entries(path)
    assert [(e.id, e.corrected_energy_per_atom) for e in read.entries] == [("mp-135", -1.905), ("mp-12957", -4.95)]
    assert {e.correction_scheme for e in read.entries} == {"MP2020" + IN_THE_ENERGY}
    assert read.levels == ("GNoME PBE",)
    with pytest.raises(SettingsError, match=r"lacks the columns \['Formation Energy Per Atom'\]"):
        read_gnome_summary(path, kind="formation")


def test_a_table_that_is_not_of_the_release(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("formula,energy_per_atom\nLi,-1.9\n")
    with pytest.raises(SettingsError, match=r"lacks the columns \['Composition', 'MaterialId', 'Corrected Energy'\]"):
        read_entries(path, format="gnome")
    with pytest.raises(SettingsError, match="'total' and 'formation' energies only"):
        read_entries(path, format="gnome", energy="energy_per_atom")
