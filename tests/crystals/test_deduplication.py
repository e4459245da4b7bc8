"""Clusters of one crystal in a table, and the polymorphs that are left."""

import numpy as np
import pyarrow as pa
import pytest
from descriptions import displaced, random_crystal, redescribed

from opengnome.crystals import Crystal, CrystalTable
from opengnome.crystals.deduplication import deduplicate, rank_polymorphs
from opengnome.crystals.matching import MatchTolerances
from opengnome.errors import InvalidCrystalError, SettingsError

REPEATS = [(1, 1, 1), (2, 1, 1), (1, 1, 3)]


@pytest.fixture(scope="module")
def planted() -> tuple[CrystalTable, np.ndarray]:
    """Twelve crystals of three compositions, each with some copies, in random order; and which is which."""
    crystals, truth = [], []
    compositions = [(38, 22, 8, 8, 8), (14, 8, 8), (26, 26, 16)]
    for number in range(12):
        original = random_crystal(number, compositions[number % 3])
        for copy in range(1 + number % 4):
            noise = 0.01 if copy == 2 else 0.0
            crystals.append(redescribed(original, 31 * number + copy, noise=noise, repeats=REPEATS[copy % 3]))
            truth.append(number)
    order = np.random.default_rng(0).permutation(len(crystals))
    return CrystalTable.from_crystals([crystals[i] for i in order]), np.array(truth)[order]


def partition(labels) -> set[frozenset[int]]:
    labels = np.asarray(labels)
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


def test_planted_copies_are_found_and_nothing_else(planted):
    table, truth = planted
    found = deduplicate(table)
    assert partition(found.cluster) == partition(truth)
    assert set(found.status) == {"ok"}
    for members in partition(truth):
        rows = sorted(members)
        assert set(found.representative[rows].tolist()) == {rows[0]}
        assert found.step[rows[0]] == ("unique" if len(rows) == 1 else "representative")
        assert all(found.step[row] in ("exact", "match") for row in rows[1:])
        assert (found.cluster_size[rows] == len(rows)).all()
    assert found.kept.tolist() == sorted(min(members) for members in partition(truth))
    assert found.cluster[found.kept].tolist() == list(range(12))


def test_result_does_not_depend_on_the_order_or_the_processes(planted):
    table, truth = planted
    expected = deduplicate(table)
    order = np.random.default_rng(1).permutation(len(table))
    shuffled = deduplicate(table.take(order))
    assert partition(shuffled.cluster) == partition(truth[order])
    parallel = deduplicate(table, workers=2)
    assert parallel.representative.tolist() == expected.representative.tolist()
    assert parallel.step == expected.step


def test_step_tells_copies_from_matches():
    original = random_crystal(3)
    copy, noisy = redescribed(original, 1), redescribed(original, 2, noise=0.02)
    assert deduplicate(CrystalTable.from_crystals([original, copy])).step == ("representative", "exact")
    assert deduplicate(CrystalTable.from_crystals([original, noisy])).step == ("representative", "match")
    three = deduplicate(CrystalTable.from_crystals([original, noisy, copy]))
    assert three.step == ("representative", "match", "exact")
    # Seen from the noisy one, both others are matches.
    lowest = deduplicate(CrystalTable.from_crystals([original, noisy, copy]), energies=[0.0, -1.0, 0.0])
    assert lowest.step == ("match", "representative", "match")
    assert lowest.representative.tolist() == [1, 1, 1]


def test_clusters_are_connected_components():
    """A matches B and B matches C, but A does not match C: one cluster, whatever the order."""
    base = random_crystal(11, numbers=(38, 22, 8, 16, 9))
    spacing = base.volume_per_atom ** (1 / 3)

    def moved(share: float) -> Crystal:
        step = np.zeros((5, 3))
        step[3, 2] = share * spacing * 5 / 4
        return displaced(base, step)

    chain = [base, moved(0.2), moved(0.4)]
    assert len(deduplicate(CrystalTable.from_crystals([chain[0], chain[2]])).kept) == 2
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0]):
        assert len(deduplicate(CrystalTable.from_crystals([chain[i] for i in order])).kept) == 1


def test_many_copies_and_many_polymorphs_of_one_composition():
    originals = [random_crystal(seed, (14, 8, 8)) for seed in range(25)]
    crystals = [redescribed(c, 100 + i, noise=0.005 * (i % 2)) for i, c in enumerate(originals * 3)]
    table = CrystalTable.from_crystals([*originals, *crystals])
    # Three atoms in a wide cell are soon alike within the default tolerances.
    found = deduplicate(table, tolerances=MatchTolerances(length=0.05, angle=2.0, site=0.05))
    truth = np.tile(np.arange(25), 4)
    assert partition(found.cluster) == partition(truth)


def test_one_bad_row_stays_by_itself_with_a_reason(perovskite):
    needle = Crystal(np.diag([2.0, 2.0, 1e6]), [[0, 0, 0.1 * i] for i in range(5)], [38, 22, 8, 8, 8])
    table = CrystalTable.from_crystals([perovskite, needle, redescribed(perovskite, 1), perovskite])
    numbers = [*table.column("atomic_numbers")[:3], [38, 0, 8, 8, 8]]
    place = table.column_names.index("atomic_numbers")
    broken = table.arrow.set_column(place, "atomic_numbers", pa.array(numbers, pa.list_(pa.int16())))
    found = deduplicate(CrystalTable.from_arrow(broken))
    assert found.representative.tolist() == [0, 1, 0, 3]
    assert found.step == ("representative", "unique", "exact", "unique")
    assert found.status == ("ok", "invalid_crystal", "ok", "invalid_crystal")
    assert "needle" in found.reason[1]
    assert "outside 1.." in found.reason[3]
    assert found.reason[0] == ""


def test_the_formula_column_is_not_trusted(perovskite):
    table = CrystalTable.from_crystals([perovskite, redescribed(perovskite, 1)]).with_column(
        "reduced_formula", ["SrTiO3", "something else"]
    )
    assert len(deduplicate(table).kept) == 1


def test_lowest_energy_represents_and_unknown_energies_come_last(perovskite):
    table = CrystalTable.from_crystals([redescribed(perovskite, seed) for seed in range(4)])
    found = deduplicate(table, energies=[np.nan, -1.0, -2.0, -2.0])
    assert found.representative.tolist() == [2, 2, 2, 2]
    assert deduplicate(table, energies=[np.nan] * 4).representative.tolist() == [0, 0, 0, 0]
    with pytest.raises(SettingsError, match="for 4 rows"):
        deduplicate(table, energies=[0.0])
    with pytest.raises(SettingsError, match="workers=-1"):
        deduplicate(table, workers=-1)


def test_an_empty_table():
    empty = CrystalTable.from_crystals([])
    assert len(deduplicate(empty).kept) == 0


def test_polymorphs_are_ranked_by_the_lowest_of_each_cluster():
    low, middle, high = (random_crystal(seed, (14, 8, 8)) for seed in (1, 2, 3))
    other = random_crystal(4)
    crystals = [middle, low, redescribed(low, 5), high, other, redescribed(middle, 6, noise=0.01), low, low]
    energies = [-2.0, -2.9, -3.0, -1.0, -7.0, -2.5, None, -0.5]
    table = CrystalTable.from_crystals(crystals, columns={"energy": pa.array(energies)})
    ranking = rank_polymorphs(table, "energy", top_k=5)
    assert ranking.rank.tolist() == [0, 0, 1, 3, 1, 2, 0, 0]
    assert ranking.representative.tolist() == [5, 2, 2, 3, 4, 5, 6, 7]
    assert ranking.kept.tolist() == [2, 3, 4, 5]
    assert ranking.status == ("ok",) * 6 + ("no_energy", "ok")
    assert ranking.reason[0] == "the same crystal as row 5, which is lower"
    assert ranking.reason[7] == "not among the 5 lowest of its composition"
    assert rank_polymorphs(table, "energy", top_k=1).kept.tolist() == [2, 4]


def test_ranking_asks_for_its_column_and_a_positive_number(perovskite):
    table = CrystalTable.from_crystals([perovskite])
    with pytest.raises(InvalidCrystalError, match="no column 'energy'"):
        rank_polymorphs(table, "energy")
    with pytest.raises(SettingsError, match="top_k=0"):
        rank_polymorphs(table.with_column("energy", [1.0]), "energy", top_k=0)
