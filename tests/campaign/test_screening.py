"""Screened shards: which candidates have a prediction."""

import re
import shutil
from pathlib import Path

import numpy as np

from opengnome.campaign import work
from opengnome.campaign.hull_file import write_hull
from opengnome.campaign.settings import ScreeningSettings
from opengnome.campaign.shards import read_judged
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table, write_table
from opengnome.generation import GenerationSettings
from opengnome.hull import Entry, Hull
from opengnome.models import Ensemble, shipped_ensemble
from opengnome.models.manifest import MANIFEST


def screened(folder: Path, name: str, screening: ScreeningSettings) -> CrystalTable:
    """Candidates of cesium chloride at a volume that is not theirs."""
    body_centred = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    parents = [Crystal(4.0 * np.eye(3), body_centred, np.array([55, 17]))]
    write_table(folder / "parents.parquet", CrystalTable.from_crystals(parents, ["CsCl"]))
    (folder / "formulas.txt").write_text("")
    hull = Hull([Entry(SYMBOLS[z], Composition(((z, 1),)), 0.0, level="made up") for z in range(1, 95)])
    write_hull(folder / "hull.parquet", hull)
    work.screen(
        path=folder / name,
        parents_path=folder / "parents.parquet",
        start=0,
        stop=1,
        formulas_path=folder / "formulas.txt",
        formulas_digest="none",
        hull_path=folder / "hull.parquet",
        hull_digest=hull.digest,
        generation=GenerationSettings(methods=("ionic_substitution",), max_substitutions_per_parent=20),
        screening=screening,
        ensemble_path=shipped_ensemble(),
        ensemble_digest="shipped",
        seed=0,
    )
    return read_table(folder / name)


def test_where_the_scan_has_no_minimum_nothing_is_predicted(tmp_path: Path):
    """Cesium chloride has 4.1 A: with 4.0 A, and a scan to 110 %, many energies still fall at its end."""
    scan = ScreeningSettings(n_volume_scales=5, lowest_volume_scale=0.9, highest_volume_scale=1.1)
    every = screened(tmp_path, "every.parquet", scan.model_copy(update={"minimum_inside": False}))
    judged = screened(tmp_path, "judged.parquet", scan)
    scales, energies = (judged.arrow[name].to_numpy() for name in ("volume_scale", "formation_energy_per_atom"))
    assert np.isfinite(every.arrow["formation_energy_per_atom"].to_numpy()).all()
    at_an_end = np.isclose(scales, 0.9) | np.isclose(scales, 1.1)
    assert 0 < at_an_end.sum() < len(at_an_end)
    np.testing.assert_array_equal(np.isnan(energies), at_an_end)
    two = screened(tmp_path, "two.parquet", scan.model_copy(update={"n_volume_scales": 2}))
    assert np.isfinite(two.arrow["formation_energy_per_atom"].to_numpy()).all(), "two volumes have no inside"


def test_nothing_is_predicted_of_a_metal_too_sparse_for_the_networks(tmp_path: Path):
    """In CsK the nearest atoms are 5 A apart, the networks' cutoff is 4 A: such energies were 1 eV/atom too low."""
    body_centred = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    parents = CrystalTable.from_crystals(
        [
            Crystal(5.8 * np.eye(3), body_centred, np.array([55, 19])),
            Crystal(4.1 * np.eye(3), body_centred, np.array([55, 17])),
        ],
        ["CsK", "CsCl"],
    )
    write_table(tmp_path / "parents.parquet", parents)
    (tmp_path / "formulas.txt").write_text("")
    elements = [Entry(SYMBOLS[z], Composition(((z, 1),)), 0.0, level="made up") for z in range(1, 95)]
    hull = Hull(elements)
    write_hull(tmp_path / "hull.parquet", hull)
    path = tmp_path / "shard.parquet"
    work.screen(
        path=path,
        parents_path=tmp_path / "parents.parquet",
        start=0,
        stop=2,
        formulas_path=tmp_path / "formulas.txt",
        formulas_digest="none",
        hull_path=tmp_path / "hull.parquet",
        hull_digest=hull.digest,
        generation=GenerationSettings(methods=("ionic_substitution",), max_substitutions_per_parent=5),
        screening=ScreeningSettings(n_volume_scales=3),
        ensemble_path=shipped_ensemble(),
        ensemble_digest="shipped",
        seed=0,
    )
    shard = read_table(path)
    assert read_judged(path, hull, ["id", "std"]).column_names == ["id", "std"], "it is measured against this hull"
    # every element at zero: the distance to the hull is the formation energy
    energies = shard.arrow["formation_energy_per_atom"].to_numpy()
    np.testing.assert_allclose(shard.arrow["predicted_decomposition_energy"].to_numpy(), energies)
    by_parent: dict[str, list[bool]] = {"CsK": [], "CsCl": []}
    for parents_of, energy in zip(shard.column("parent_ids"), shard.column("formation_energy_per_atom"), strict=True):
        by_parent[parents_of[0]].append(bool(np.isfinite(energy)))
    assert by_parent["CsK"]
    assert not any(by_parent["CsK"])
    assert any(by_parent["CsCl"])


def test_a_worker_that_outlives_a_campaign_takes_nothing_of_it(tmp_path: Path) -> None:
    """The next one may have other files under the same names."""
    formulas, folder = tmp_path / "known_formulas.txt", tmp_path / "ensemble"
    found = []
    for text, slope in (("NaCl KCl", "1.0"), ("LiF", "2.0")):
        formulas.write_text(text)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(shipped_ensemble(), folder)
        manifest = folder / MANIFEST
        manifest.write_text(re.sub(r'"slope": [0-9.]+', f'"slope": {slope}', manifest.read_text()))
        digest = Ensemble.load(folder).digest
        found.append(
            (work._known_formulas(formulas, work.file_digest(formulas)), work._ensemble(folder, digest).digest)
        )
    assert found[0][0] == {"NaCl", "KCl"}
    assert found[1] == ({"LiF"}, digest)
    assert found[0][1] != digest
