"""Known crystals at other volumes and the training rows made of them."""

import numpy as np
import pytest
from made_up import FORMATION, calculated, known_set, mixture

from opengnome.campaign.events import Calculated
from opengnome.campaign.strained import is_strained, strained_crystals, strained_id, strained_rows
from opengnome.crystals import CrystalTable
from opengnome.oracles import Status

VOLUMES = (0.85, 1.15)
UNSTRAINED, COMPRESSED, EXPANDED = (strained_id("known-NaCl", volume) for volume in (1.0, *VOLUMES))
FORMATION_BY_ID = {f"known-{formula}": energy for formula, energy in FORMATION.items()}


def drawn(n_crystals: int, *, max_atoms: int = 20, seed: int = 1) -> CrystalTable | None:
    return strained_crystals(known_set(), n_crystals=n_crystals, volumes=VOLUMES, max_atoms=max_atoms, seed=seed)


def parents_of(table: CrystalTable | None) -> set[str]:
    assert table is not None
    return {identifier.partition("@")[0] for identifier in table.ids}  # ids here have no @ of their own


def answer(identifier: str, energy: float | None, status: Status = Status.UNCONVERGED) -> Calculated:
    """A single point: no step was taken, so it is unconverged unless its forces happen to vanish."""
    return calculated(identifier, "NaCl", energy, round=0, status=status)


def test_every_drawn_crystal_comes_at_its_own_volume_and_at_the_others() -> None:
    known = known_set()
    table = drawn(4)
    assert table is not None
    assert len(parents_of(table)) == 4
    assert len(set(table.ids)) == len(table) == 4 * 3
    crystals = dict(zip(table.ids, table, strict=True))
    for parent in parents_of(table):
        original = known.table[known.table.ids.index(parent)]
        assert crystals[strained_id(parent, 1.0)].volume == pytest.approx(original.volume)
        for volume in VOLUMES:
            strained = crystals[strained_id(parent, volume)]
            assert strained.volume == pytest.approx(volume * original.volume)
            assert np.array_equal(strained.frac_coords, original.frac_coords)
            assert np.array_equal(strained.atomic_numbers, original.atomic_numbers)


def test_the_draw_is_seeded_and_nested() -> None:
    assert parents_of(drawn(4)) == parents_of(drawn(4))
    assert parents_of(drawn(3)) < parents_of(drawn(4))
    assert len({frozenset(parents_of(drawn(4, seed=seed))) for seed in range(5)}) > 1


def test_large_crystals_are_not_drawn() -> None:
    known = known_set()
    small = {i for i, n in zip(known.table.ids, known.table.n_atoms, strict=True) if n <= 2}
    assert parents_of(drawn(100, max_atoms=2)) == small


def test_none_asked_for_or_none_small_enough() -> None:
    assert drawn(0) is None
    assert drawn(5, max_atoms=0) is None


def test_ids_tell_what_is_strained() -> None:
    for identifier in ("mp-22862", "12@icsd"):
        assert not is_strained(identifier)
        assert is_strained(strained_id(identifier, 1.0))
        assert len({strained_id(identifier, volume) for volume in (1.0, 0.85, 1.15)}) == 3


def test_rows_are_the_known_energy_and_the_oracles_difference() -> None:
    table = drawn(100)
    assert table is not None
    oracle_error = 7.0  # any error that is the same at all volumes drops out
    known_energy = mixture("NaCl") + FORMATION["NaCl"] + oracle_error
    answers = {
        UNSTRAINED: answer(UNSTRAINED, known_energy),
        COMPRESSED: answer(COMPRESSED, known_energy + 0.2),
        EXPANDED: answer(EXPANDED, known_energy + 0.1, Status.CONVERGED),
    }
    rows = {
        identifier: (crystal, energy) for identifier, crystal, energy in strained_rows(FORMATION_BY_ID, table, answers)
    }
    assert {i: energy for i, (_, energy) in rows.items()} == pytest.approx(
        {COMPRESSED: FORMATION["NaCl"] + 0.2, EXPANDED: FORMATION["NaCl"] + 0.1}
    )
    for identifier, (crystal, _) in rows.items():
        assert crystal == table[table.ids.index(identifier)]


@pytest.mark.parametrize("lost", [UNSTRAINED, COMPRESSED])
def test_no_row_where_the_crystal_or_its_unstrained_twin_has_no_energy(lost: str) -> None:
    table = drawn(100)
    assert table is not None
    answers = {i: answer(i, -3.0) for i in (UNSTRAINED, COMPRESSED, EXPANDED)}
    answers[lost] = answer(lost, None, Status.TOO_DENSE)
    left = {UNSTRAINED: [], COMPRESSED: [EXPANDED]}[lost]
    assert [identifier for identifier, _, _ in strained_rows(FORMATION_BY_ID, table, answers)] == left
    del answers[lost]
    assert [identifier for identifier, _, _ in strained_rows(FORMATION_BY_ID, table, answers)] == left


def test_other_reference_crystals_give_no_row() -> None:
    known = known_set()
    answers = {identifier: answer(identifier, -3.0) for identifier in known.table.ids}
    assert strained_rows(FORMATION_BY_ID, known.table, answers) == []
