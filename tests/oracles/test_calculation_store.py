import os
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from toy_calculators import Toy

from opengnome.crystals import Crystal
from opengnome.errors import OpenGnomeError
from opengnome.oracles import RelaxationSettings, Status, read_calculation, write_calculation
from opengnome.oracles.relaxation import failed, relax_with_calculator


def assert_identical(a, b):
    """Equal in every bit, NaN included."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif is_dataclass(a):
        for field in fields(a):
            assert_identical(getattr(a, field.name), getattr(b, field.name))
    else:
        assert a == b


def relax(crystal, identity, **behaviour):
    settings = RelaxationSettings(max_steps=5)
    return relax_with_calculator(crystal, lambda: Toy(**behaviour), settings=settings, identity=identity)


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ({}, Status.CONVERGED),
        ({"force": 1.0}, Status.UNCONVERGED),
        ({"force": 1.0, "nan_at": 3}, Status.NOT_FINITE),
        ({"raise_at": 0}, Status.FAILED),
    ],
)
def test_round_trip_is_lossless(tmp_path, copper, identity, behaviour, status):
    calculation = relax(copper, identity, **behaviour)
    assert calculation.status == status
    write_calculation(tmp_path / "a.parquet", calculation)
    assert_identical(read_calculation(tmp_path / "a.parquet"), calculation)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@settings(max_examples=20, deadline=None)
@given(
    frac_coords=hnp.arrays(np.float64, (2, 3), elements=st.floats(-2, 2)),
    atomic_numbers=st.lists(st.integers(1, 94), min_size=2, max_size=2),
    reason=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    seconds=st.floats(0, 1e9),
)
def test_round_trip_of_any_crystal_and_reason(tmp_path_factory, identity, frac_coords, atomic_numbers, reason, seconds):
    path = tmp_path_factory.mktemp("store") / "a.parquet"
    crystal = Crystal(5.0 * np.eye(3), frac_coords, np.array(atomic_numbers))
    calculation = failed(crystal, reason, identity=identity, seconds=seconds)
    write_calculation(path, calculation)
    assert_identical(read_calculation(path), calculation)


def test_folder_names_are_not_read_as_columns(tmp_path, copper, identity):
    folder = tmp_path / "status=exploded"
    folder.mkdir()
    calculation = relax(copper, identity)
    write_calculation(folder / "a.parquet", calculation)
    assert read_calculation(folder / "a.parquet").status == Status.CONVERGED


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, copper, identity, monkeypatch):
    path = tmp_path / "a.parquet"
    old = relax(copper, identity)
    write_calculation(path, old)

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_calculation(path, replace(old, reason="new"))
    assert_identical(read_calculation(path), old)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet"]


def test_unreadable_files_are_named(tmp_path, copper, identity):
    path = tmp_path / "a.parquet"
    with pytest.raises(OpenGnomeError, match=r"there is no calculation .*a\.parquet"):
        read_calculation(path)
    write_calculation(path, relax(copper, identity))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OpenGnomeError, match="not a readable Parquet file"):
        read_calculation(path)
    pq.write_table(pa.table({"x": [1]}), path)
    with pytest.raises(OpenGnomeError, match="1 rows of format ''"):
        read_calculation(path)


def test_a_value_that_makes_no_sense_is_damage(tmp_path, copper, identity):
    path = tmp_path / "a.parquet"
    write_calculation(path, relax(copper, identity))
    table = pq.ParquetFile(path).read()
    wrong = table.set_column(0, "status", pa.array(["splendid"])).replace_schema_metadata(table.schema.metadata)
    pq.write_table(wrong, path)
    with pytest.raises(OpenGnomeError, match="is damaged: 'splendid' is not a valid Status"):
        read_calculation(path)
