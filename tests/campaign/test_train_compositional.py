"""`train --kind compositional`: the lowest energy of each composition, members kept over a restart."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from opengnome.campaign.commands import load_compositional_ensemble, predict_formula_rows
from opengnome.campaign.events import CompositionsProposed
from opengnome.campaign.journal import Journal
from opengnome.campaign.layout import Layout
from opengnome.campaign.train_compositional import lowest_energies
from opengnome.cli import app
from opengnome.errors import CampaignError, SettingsError
from opengnome.models import CompositionalEnsemble, shipped_ensemble
from opengnome.models.manifest import MANIFEST
from report.synthetic_campaign import begin, make_settings, write_known_table

METALS, ANIONS = (
    ("Li", "Na", "K", "Rb", "Cs", "Mg", "Ca", "Sr", "Ba", "Zn"),
    ("O", "S", "Se", "Te", "F", "Cl", "Br", "I"),
)
OPTIONS = ["--kind", "compositional", "--members", "2", "--workers", "1", "--quiet", "--column", "energy"]
SETTINGS = ["model.width=8", "model.edge_width=8", "model.layers=1", "model.heads=2", "training.epochs=2"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    formulas = [f"{metal}{n}{anion}" for metal in METALS for anion in ANIONS for n in (1, 2, 3, 5)]
    energies = [-0.1 * (len(formula) + i % 7) for i, formula in enumerate(formulas)]
    path = tmp_path / "table.parquet"
    rows = {"formula": [*formulas, "LiO", None, "Nonsense!"], "energy": [*energies, -9.0, -1.0, -1.0]}
    pq.write_table(pa.table(rows), path)
    return path


def test_lowest_energy_of_each_composition(table: Path):
    formulas, energies = lowest_energies(table, column="energy")
    assert len(formulas) == len(METALS) * len(ANIONS) * 4
    assert energies[formulas.index("Li2O2")] == -9.0  # of LiO, as pymatgen reduces it
    assert np.isfinite(energies).all()
    with pytest.raises(SettingsError, match="'missing'"):
        lowest_energies(table, column="missing")


def test_train_and_predict(table: Path, tmp_path: Path):
    output = tmp_path / "model"
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    arguments = ["train", str(table), "-o", str(output), *OPTIONS, *overrides]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "mae" in first.stdout
    members = sorted((output / "members").glob("*.safetensors"))
    before = [path.stat().st_mtime_ns for path in members]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert [path.stat().st_mtime_ns for path in members] == before
    assert len(CompositionalEnsemble.load(output).members) == 2
    predicted = CliRunner().invoke(app, ["predict", "--formula", "RbI", "-m", str(output), "--json"])
    assert predicted.exit_code == 0
    assert '"reduced_formula": "RbI"' in predicted.stdout


def test_unknown_kind(table: Path, tmp_path: Path):
    result = CliRunner().invoke(app, ["train", str(table), "-o", str(tmp_path / "m"), "--kind", "psychic"])
    assert result.exit_code != 0
    assert isinstance(result.exception, SettingsError)


def test_several_processes_for_one_network_are_refused(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun sets it
    refused = CliRunner().invoke(app, ["train", str(table), "-o", str(tmp_path / "model"), *OPTIONS])
    assert isinstance(refused.exception, SettingsError)
    assert "2 processes were started" in str(refused.exception)
    assert not (tmp_path / "model").exists()


def test_the_latest_networks_of_a_campaign_predict(tmp_path: Path):
    root = tmp_path / "campaign"
    write_known_table(tmp_path / "known.parquet")
    begin(root, make_settings(tmp_path / "known.parquet"))
    with pytest.raises(CampaignError, match="no compositional ensemble of its own"):
        load_compositional_ensemble(root)
    with Journal(Layout(root).journal) as journal:
        for number in (1, 2, 3):
            counts, path = {}, f"rounds/{number:02d}/compositions.parquet"
            journal.append(CompositionsProposed(round=number, metrics={}, counts=counts, choices=(), path=path))
    for number in (1, 2):  # round 3 had too few rows for networks of its own
        shutil.copytree(shipped_ensemble("compositional"), Layout(root).compositional_ensemble(number))
    manifest = Layout(root).compositional_ensemble(1) / MANIFEST
    manifest.write_text(re.sub(r'"slope": [0-9.]+', '"slope": 9.0', manifest.read_text()))
    first = CompositionalEnsemble.load(Layout(root).compositional_ensemble(1))
    assert load_compositional_ensemble(root).digest == load_compositional_ensemble().digest != first.digest
    assert predict_formula_rows(["NaCl"], model=root) == predict_formula_rows(["NaCl"])
