"""The ensembles that come with the package: they load, they know simple compounds, they say when they do not."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from opengnome.cli import app
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.io import write_crystals
from opengnome.errors import CheckpointError
from opengnome.models import CompositionalEnsemble, Ensemble, shipped_ensemble

# Materials Project, PBE with corrections, eV/atom
NACL, SRTIO3 = -2.1, -3.5


@pytest.fixture(scope="module")
def structural() -> Ensemble:
    return Ensemble.load(shipped_ensemble())


def test_they_fit_in_the_package():
    files = [path for kind in ("structural", "compositional") for path in shipped_ensemble(kind).iterdir()]
    assert sum(path.stat().st_size for path in files) < 20e6
    for kind in ("structural", "compositional"):
        card = (shipped_ensemble(kind) / "CARD.md").read_text()
        for part in ("CC BY 4.0", "held out", "Limits", "Retrain", "oxides"):
            assert part in card
    with pytest.raises(CheckpointError, match="no shipped"):
        shipped_ensemble("psychic")


def test_known_compounds(structural: Ensemble, rock_salt: Crystal, perovskite: Crystal):
    prediction = structural.predict(CrystalTable.from_crystals([rock_salt, perovskite]), volume_scales=(1.0,))
    np.testing.assert_allclose(prediction.formation_energy_per_atom, [NACL, SRTIO3], atol=0.2)
    assert (prediction.std < 0.2).all()
    assert structural.domain is not None
    assert structural.domain.warnings(rock_salt, float(prediction.spread[0])) == []


def test_coverage_on_the_hash_test_is_nominal(structural: Ensemble):
    for level, share in structural.metrics["coverage"].items():
        assert abs(float(level) - share) < 0.05
    assert structural.metrics["n"] > 10_000


def test_compositions():
    ensemble = CompositionalEnsemble.load(shipped_ensemble("compositional"))
    formulas = ["NaCl", "SrTiO3", "Na2Cl2"]
    prediction = ensemble.predict([Composition.from_formula(formula) for formula in formulas])
    np.testing.assert_allclose(prediction.formation_energy_per_atom, [NACL, SRTIO3, NACL], atol=0.25)


def test_predict_needs_no_model(rock_salt: Crystal, tmp_path: Path):
    path = tmp_path / "crystal.cif"
    write_crystals(path, CrystalTable.from_crystals([rock_salt], ["NaCl"]))
    result = CliRunner().invoke(app, ["predict", str(path), "--json"])
    assert result.exit_code == 0
    assert '"warning": ""' in result.stdout
    dense = Crystal(rock_salt.lattice * 0.5, rock_salt.frac_coords, rock_salt.atomic_numbers)
    write_crystals(path, CrystalTable.from_crystals([dense], ["dense"]))
    assert "A^3 per atom" in CliRunner().invoke(app, ["predict", str(path), "--json"]).stdout
    formula = CliRunner().invoke(app, ["predict", "--formula", "NaCl", "--formula", "Xx2", "--json"])
    assert formula.exit_code == 1
    assert "Xx" in formula.stdout
    assert CliRunner().invoke(app, ["predict"]).exit_code == 2
