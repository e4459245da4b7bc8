"""Ensembles: statistics over members, the volume scan, calibration, and crystals without a graph."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from opengnome.crystals import Crystal, CrystalTable, concatenate, with_volume
from opengnome.errors import CheckpointError, SettingsError
from opengnome.graphs import batch_of, orbit_graph
from opengnome.models import VOLUME_SCALES, Ensemble, assemble_ensemble


def explicit_curves(ensemble: Ensemble, crystals: list[Crystal], scales: tuple[float, ...]) -> np.ndarray:
    """(members, scales, crystals): every scaled crystal is made and its neighbours searched anew."""
    curves = np.empty((len(ensemble.members), len(scales), len(crystals)))
    for k, scale in enumerate(scales):
        scaled = [with_volume(crystal, crystal.volume * scale) for crystal in crystals]
        for m, member in enumerate(ensemble.members):
            with torch.inference_mode():
                curves[m, k] = member(batch_of([orbit_graph(c, cutoff=4.0) for c in scaled])).numpy()
    return curves


@pytest.fixture(scope="module")
def some_crystals(rock_salt: Crystal, perovskite: Crystal) -> list[Crystal]:
    lonely = Crystal(np.eye(3) * 20.0, np.zeros((1, 3)), np.array([2]))
    return [rock_salt, perovskite, lonely, with_volume(perovskite, 80.0)]


def test_scan_equals_explicitly_scaled_crystals(toy_ensemble: Ensemble, some_crystals: list[Crystal]):
    assert len(VOLUME_SCALES) == 20
    curves = explicit_curves(toy_ensemble, some_crystals, VOLUME_SCALES)
    lowest = curves.min(axis=1)
    prediction = toy_ensemble.predict(CrystalTable.from_crystals(some_crystals))
    np.testing.assert_allclose(prediction.formation_energy_per_atom, np.median(lowest, axis=0), atol=1e-5)
    expected_spread = np.percentile(lowest, 75, axis=0) - np.percentile(lowest, 25, axis=0)
    np.testing.assert_allclose(prediction.spread, expected_spread, atol=1e-5)
    best = curves.mean(axis=0).argmin(axis=0)
    with_edges = [0, 1, 3]  # an atom without neighbours has the same energy at every volume
    np.testing.assert_allclose(prediction.volume_scale[with_edges], np.array(VOLUME_SCALES)[best][with_edges])


def test_no_scan_is_the_median_at_the_given_volume(toy_ensemble: Ensemble, some_crystals: list[Crystal]):
    prediction = toy_ensemble.predict(CrystalTable.from_crystals(some_crystals), volume_scales=(1.0,))
    expected = np.median(explicit_curves(toy_ensemble, some_crystals, (1.0,))[:, 0], axis=0)
    np.testing.assert_allclose(prediction.formation_energy_per_atom, expected, atol=1e-5)
    assert (prediction.volume_scale == 1.0).all()
    assert len(prediction) == 4


def test_scan_finds_the_volume_it_was_taught(toy_ensemble: Ensemble):
    """The toy energy has its minimum at a = 3.7 A; crystals start 10 % away in volume on either side."""
    cells = [3.7 * factor ** (1 / 3) for factor in (1 / 0.9, 1 / 1.1)]
    frac = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    crystals = [Crystal(a * np.eye(3), frac, np.array([5, 34])) for a in cells]
    prediction = toy_ensemble.predict(CrystalTable.from_crystals(crystals))
    assert prediction.volume_scale[0] < prediction.volume_scale[1]


def test_batches_do_not_change_the_answer(toy_ensemble: Ensemble, toy):
    table = toy.table.slice(0, 17)
    whole = toy_ensemble.predict(table, volume_scales=(0.9, 1.0))
    lines: list[str] = []
    parts = toy_ensemble.predict(table, volume_scales=(0.9, 1.0), batch_atoms=3, progress=lines.append)
    np.testing.assert_allclose(whole.formation_energy_per_atom, parts.formation_energy_per_atom, atol=1e-5)
    assert lines[-1] == "predicted 17 of 17 crystals"
    assert len(lines) == 17  # two atoms each: one crystal per batch of at most three atoms


def test_too_dense_crystal_has_a_reason_and_does_not_stop_the_others(toy_ensemble: Ensemble, toy):
    dense = CrystalTable.from_crystals([Crystal(0.5 * np.eye(3), np.zeros((1, 3)), np.array([1]))], ["dense"])
    table = concatenate([toy.table.slice(0, 2), dense, toy.table.slice(2, 4)])
    prediction = toy_ensemble.predict(table)
    assert [bool(reason) for reason in prediction.reasons] == [False, False, True, False, False]
    assert "too dense" in prediction.reasons[2]
    for values in (
        prediction.formation_energy_per_atom,
        prediction.spread,
        prediction.std,
        prediction.volume_scale,
    ):
        assert np.isnan(values).tolist() == [False, False, True, False, False]
    without = toy_ensemble.predict(toy.table.slice(0, 4))
    np.testing.assert_allclose(
        prediction.formation_energy_per_atom[[0, 1, 3, 4]], without.formation_energy_per_atom, atol=1e-6
    )


def test_an_atom_without_neighbours_at_one_of_the_volumes_is_isolated(toy_ensemble: Ensemble):
    """The cutoff is 4 A: atoms 3.9 A apart lose sight of each other when the volume grows by a fifth."""
    crystals = [Crystal(a * np.eye(3), np.zeros((1, 3)), np.array([5])) for a in (3.7, 3.9, 4.1)]
    table = CrystalTable.from_crystals(crystals)
    assert toy_ensemble.predict(table, volume_scales=(1.0,)).isolated.tolist() == [False, False, True]
    prediction = toy_ensemble.predict(table, volume_scales=(0.9, 1.0, 1.2))
    assert prediction.isolated.tolist() == [False, True, True]
    assert np.isfinite(prediction.formation_energy_per_atom).all()
    assert prediction.part(np.array([False, True, True])).isolated.all()


def test_empty_table(toy_ensemble: Ensemble, toy):
    prediction = toy_ensemble.predict(toy.table.slice(0, 0))
    assert len(prediction) == 0
    assert prediction.reasons == ()


def test_intervals_cover_what_was_held_out(toy_ensemble: Ensemble, toy):
    held_out = toy.table.filter(toy.held_out)
    targets = toy.targets[toy.held_out]
    prediction = toy_ensemble.predict(held_out, volume_scales=(1.0,))
    lower, upper = prediction.interval(0.9)
    share = np.mean((lower <= targets) & (targets <= upper))
    assert 0.8 <= share <= 1.0
    narrow = prediction.interval(0.5)
    assert (narrow[1] - narrow[0] < upper - lower).all()
    np.testing.assert_allclose((lower + upper) / 2, prediction.formation_energy_per_atom)


def test_metrics_are_those_of_the_held_out_crystals(toy_ensemble: Ensemble, toy):
    prediction = toy_ensemble.predict(toy.table.filter(toy.held_out), volume_scales=(1.0,))
    errors = prediction.formation_energy_per_atom - toy.targets[toy.held_out]
    metrics = toy_ensemble.metrics
    assert metrics["judged_on"] == "held-out crystals"
    assert metrics["n"] == 50
    assert metrics["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    assert metrics["by_number_of_elements"]["2"]["n"] == 50
    assert set(metrics["coverage"]) == {"0.50", "0.80", "0.90", "0.95"}
    assert metrics["warnings"] == []


@pytest.mark.parametrize("n_held_out", [0, 10])
def test_too_few_held_out_crystals_are_admitted(toy, toy_members: list[Path], tmp_path: Path, n_held_out: int):
    held_out = np.arange(len(toy.table)) < n_held_out
    ensemble = assemble_ensemble(toy_members, tmp_path, table=toy.table, targets=toy.targets, held_out=held_out)
    assert ensemble.metrics["judged_on"] == "training crystals"
    assert "fewer than 20 held-out" in ensemble.metrics["warnings"][0]
    prediction = ensemble.predict(toy.table.filter(~held_out), volume_scales=(1.0,))
    errors = prediction.formation_energy_per_atom - toy.targets[~held_out]
    assert ensemble.calibration.floor == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-5)


def test_load_gives_the_same_ensemble(toy, toy_members: list[Path], tmp_path: Path):
    assembled = assemble_ensemble(toy_members, tmp_path, table=toy.table, targets=toy.targets, held_out=toy.held_out)
    loaded = Ensemble.load(tmp_path)
    assert loaded.digest == assembled.digest
    assert loaded.metrics == assembled.metrics
    some = toy.table.slice(0, 5)
    np.testing.assert_array_equal(
        loaded.predict(some).formation_energy_per_atom, assembled.predict(some).formation_energy_per_atom
    )
    fewer = assemble_ensemble(
        toy_members[:2], tmp_path / "two", table=toy.table, targets=toy.targets, held_out=toy.held_out
    )
    assert fewer.digest != loaded.digest


def test_damaged_or_foreign_folders_are_refused(toy, toy_members: list[Path], tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot read"):
        Ensemble.load(tmp_path)
    assemble_ensemble(toy_members, tmp_path, table=toy.table, targets=toy.targets, held_out=toy.held_out)
    manifest = tmp_path / "ensemble.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"format_version": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        Ensemble.load(tmp_path)
    del content["calibration"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="calibration"):
        Ensemble.load(tmp_path)
    with pytest.raises(CheckpointError, match="at least one member"):
        assemble_ensemble([], tmp_path, table=toy.table, targets=toy.targets, held_out=toy.held_out)


@pytest.mark.parametrize("scales", [(), (0.0, 1.0), (float("nan"),)])
def test_impossible_volume_scales(toy_ensemble: Ensemble, toy, scales: tuple[float, ...]):
    with pytest.raises(SettingsError, match="positive numbers"):
        toy_ensemble.predict(toy.table.slice(0, 1), volume_scales=scales)


def test_held_out_crystals_without_a_prediction_do_not_count(toy, toy_members: list[Path], tmp_path: Path):
    """Twenty of which one is too dense are nineteen: too few, and no reason to fail after the training."""
    dense = CrystalTable.from_crystals([Crystal(0.5 * np.eye(3), np.zeros((1, 3)), np.array([1]))], ["dense"])
    table = concatenate([dense, CrystalTable(toy.table.arrow.select(dense.arrow.column_names))])
    targets = np.concatenate([[0.0], toy.targets])
    ensemble = assemble_ensemble(
        toy_members, tmp_path, table=table, targets=targets, held_out=np.arange(len(table)) < 20
    )
    assert ensemble.metrics["judged_on"] == "training crystals"
    enough = assemble_ensemble(toy_members, tmp_path, table=table, targets=targets, held_out=np.arange(len(table)) < 21)
    assert (enough.metrics["judged_on"], enough.metrics["n"]) == ("held-out crystals", 20)
