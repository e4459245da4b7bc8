import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from opengnome.datasets import hash_bucket, held_out_mask, is_train


def test_bucket_is_md5_of_the_formula() -> None:
    assert hash_bucket("NaCl") == int(hashlib.md5(b"NaCl").hexdigest(), 16) % 100
    # from `md5sum` once, so that the function cannot drift together with its test
    assert [hash_bucket(f) for f in ("NaCl", "SiO2", "LiFePO4")] == [BUCKETS[f] for f in ("NaCl", "SiO2", "LiFePO4")]


BUCKETS = {"NaCl": 73, "SiO2": 95, "LiFePO4": 6}


@settings(deadline=None)
@given(st.text(alphabet="ABCabc123()", min_size=1, max_size=12))
def test_membership_follows_the_bucket(formula: str) -> None:
    assert is_train(formula) == (hash_bucket(formula) >= 15)
    assert held_out_mask([formula])[0] == (not is_train(formula))


def test_about_15_percent_are_held_out() -> None:
    formulas = [f"A{i}B{j}" for i in range(1, 80) for j in range(1, 80)]
    assert 0.13 < held_out_mask(formulas).mean() < 0.17
