"""The files that `scripts/make_known_crystals.py` wrote."""

import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from opengnome.crystals import CrystalTable
from opengnome.crystals.elements import SYMBOLS
from opengnome.crystals.io import read_table
from opengnome.oracles.chgnet import KNOWN_ELEMENTS, evaluate

DATA = Path(str(resources.files("opengnome.datasets.data")))


@pytest.fixture(scope="module")
def known() -> CrystalTable:
    return read_table(DATA / "known_crystals.parquet")


@pytest.fixture(scope="module")
def frames() -> CrystalTable:
    return read_table(DATA / "known_frames.parquet")


def test_every_element_of_the_oracle_has_a_reference(known):
    ids = set(known.ids)
    assert {f"element-{SYMBOLS[z]}" for z in KNOWN_ELEMENTS} == {i for i in ids if i.startswith("element-")}
    assert set(known.flat_atomic_numbers.tolist()) == set(KNOWN_ELEMENTS)
    assert len(ids) == len(known) > 300


def test_the_element_row_is_the_lowest_of_its_element(known):
    energies = np.array(known.column("energy_per_atom"))
    lowest = dict(zip(known.ids, energies.tolist(), strict=True))
    for crystal, energy in zip(known, energies, strict=True):
        if crystal.composition.n_elements == 1:
            assert energy >= lowest[f"element-{crystal.symbols[0]}"]


def test_energies_and_rest_positions_are_those_of_the_oracle(known):
    small = np.flatnonzero(known.n_atoms <= 12)
    for index in np.random.default_rng(3).choice(small, 15, replace=False).tolist():
        crystal = known[index]
        energy, forces, _ = evaluate(crystal)
        assert energy / crystal.n_atoms == pytest.approx(known.column("energy_per_atom")[index], abs=1e-5)
        assert np.linalg.norm(forces, axis=1).max() < 0.051, known.ids[index]


def test_frames_have_the_energies_of_their_geometries(known, frames):
    assert set(frames.column("parent")) <= set(known.ids)
    assert set(frames.column("kind")) == {"step", "strained", "polymorph"}
    small = np.flatnonzero(frames.n_atoms <= 8)
    for index in np.random.default_rng(4).choice(small, 15, replace=False).tolist():
        energy_per_atom = evaluate(frames[index])[0] / frames[index].n_atoms
        assert energy_per_atom == pytest.approx(frames.column("energy_per_atom")[index], abs=2e-4)


def test_what_was_left_out_has_a_reason(known):
    summary = json.loads((DATA / "known_crystals.json").read_text())
    assert summary["n_known"] == len(known)
    assert summary["oracle"]["level"] == known.column("level")[0] == "chgnet-0.3.0"
    n_prototypes = summary["n_compounds_and_prototypes"]
    assert n_prototypes + len(summary["same_as_element"]) + len(summary["left_out"]) == 288
    assert all(len(reason) > 10 for reason in summary["left_out"].values())
    assert not set(summary["left_out"]) & set(known.ids)


def test_the_files_stay_small():
    assert (DATA / "known_crystals.parquet").stat().st_size < 400_000
    assert (DATA / "known_frames.parquet").stat().st_size < 1_000_000
