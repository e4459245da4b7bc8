"""Screened shards: which candidates have a prediction."""

import re
import shutil
from pathlib import Path

import numpy as np

from opengnome.campaign import work
from opengnome.campaign.hull_file import write_hull
from opengnome.campaign.settings import ScreeningSettings
from opengnome.campaign.shards import is_of_another_ensemble, read_judged
from opengnome.crystals import Composition, Crystal, CrystalTable
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table, write_table
from opengnome.generation import GenerationSettings
from opengnome.hull import Entry, Hull
from opengnome.models import Ensemble, shipped_ensemble
from opengnome.models.manifest import MANIFEST

BODY_CENTRED = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
HULL = Hull([Entry(SYMBOLS[z], Composition(((z, 1),)), 0.0, level="made up") for z in range(1, 95)])
"""Every element at zero, nothing else: the distance to it is the formation energy."""


def body_centred(a: float, *atomic_numbers: int) -> Crystal:
    """A crystal of the CsCl type with edge `a` A."""
    return Crystal(a * np.eye(3), BODY_CENTRED, np.array(atomic_numbers))


def screened(path: Path, parents: dict[str, Crystal], screening: ScreeningSettings, *, most: int) -> CrystalTable:
    """The shard of candidates of some parents, at most so many of each."""
    folder = path.parent
    write_table(folder / "parents.parquet", CrystalTable.from_crystals(list(parents.values()), list(parents)))
    (folder / "formulas.txt").write_text("")
    write_hull(folder / "hull.parquet", HULL)
    work.screen(
        path=path,
        parents_path=folder / "parents.parquet",
        start=0,
        stop=len(parents),
        formulas_path=folder / "formulas.txt",
        formulas_digest="none",
        hull_path=folder / "hull.parquet",
        hull_digest=HULL.digest,
        generation=GenerationSettings(methods=("ionic_substitution",), max_substitutions_per_parent=most),
        screening=screening,
        ensemble_path=shipped_ensemble(),
        ensemble_digest="shipped",
        seed=0,
    )
    return read_table(path)


def test_where_the_scan_has_no_minimum_nothing_is_predicted(tmp_path: Path):
    """Cesium chloride has 4.1 A: with 4.0 A, and a scan to 110 %, many energies still fall at its end."""
    parents = {"CsCl": body_centred(4.0, 55, 17)}
    scan = ScreeningSettings(n_volume_scales=5, lowest_volume_scale=0.9, highest_volume_scale=1.1)
    anywhere = scan.model_copy(update={"minimum_inside": False})
    every = screened(tmp_path / "every.parquet", parents, anywhere, most=20)
    judged = screened(tmp_path / "judged.parquet", parents, scan, most=20)
    scales, energies = (judged.arrow[name].to_numpy() for name in ("volume_scale", "formation_energy_per_atom"))
    assert np.isfinite(every.arrow["formation_energy_per_atom"].to_numpy()).all()
    at_an_end = np.isclose(scales, 0.9) | np.isclose(scales, 1.1)
    assert 0 < at_an_end.sum() < len(at_an_end)
    np.testing.assert_array_equal(np.isnan(energies), at_an_end)
    two = screened(tmp_path / "two.parquet", parents, scan.model_copy(update={"n_volume_scales": 2}), most=20)
    assert np.isfinite(two.arrow["formation_energy_per_atom"].to_numpy()).all(), "two volumes have no inside"


def test_nothing_is_predicted_of_a_metal_too_sparse_for_the_networks(tmp_path: Path):
    """In CsK the nearest atoms are 5 A apart, the networks' cutoff is 4 A: such energies were 1 eV/atom too low."""
    path, parents = tmp_path / "shard.parquet", {"CsK": body_centred(5.8, 55, 19), "CsCl": body_centred(4.1, 55, 17)}
    shard = screened(path, parents, ScreeningSettings(n_volume_scales=3), most=5)
    assert not is_of_another_ensemble(path, "shipped")
    assert is_of_another_ensemble(path, "one that was trained again")
    assert read_judged(path, HULL, ["id", "std"]).column_names == ["id", "std"], "it is measured against this hull"
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
