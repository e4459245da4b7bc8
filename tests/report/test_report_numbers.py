import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from opengnome.report import html
from opengnome.report.numbers import MISSING, Rate, fixed, listed, mev, plus_minus, wilson_interval


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_equals_scipy(pair):
    hits, total = pair
    expected = binomtest(hits, total).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(hits, total) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_rate_of_nothing_is_no_number():
    assert math.isnan(Rate(0, 0).value)
    assert str(Rate(0, 0)) == MISSING
    assert Rate(0, 0).interval == (0.0, 1.0)


def test_a_rate_shows_share_counts_and_interval():
    assert str(Rate(3, 4)) == "75 % (3 of 4; 30\N{EN DASH}95 %)"


@given(st.one_of(st.none(), st.floats(), st.integers(-1000, 1000)))
def test_numbers_never_read_nan_or_minus_zero(value):
    for text in (fixed(value, 1), mev(value)):
        assert text == MISSING or float(text.replace("\N{MINUS SIGN}", "-")) is not None
        assert not text.startswith("-")
        assert text not in ("\N{MINUS SIGN}0", "\N{MINUS SIGN}0.0")


def test_an_uncertainty_is_shown_where_there_is_one():
    assert plus_minus(-0.0321, 0.0254) == "\N{MINUS SIGN}32 ± 25"
    assert plus_minus(-0.0321, 0.0) == "\N{MINUS SIGN}32"


def test_counts_are_listed_from_the_most_frequent():
    assert listed({"too_dense": 1, "exploded": 3, "failed": 1}) == "3 exploded, 1 failed, 1 too dense"


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("Ca3(PO4)2", "Ca<sub>3</sub>(PO<sub>4</sub>)<sub>2</sub>"),
        ("0.67 MgCl2 + 0.33 Cl2", "0.67 MgCl<sub>2</sub> + 0.33 Cl<sub>2</sub>"),
        ("<b>", "&lt;b&gt;"),
    ],
)
def test_formulas_get_subscripts(formula, expected):
    assert html.formula(formula) == expected


def test_space_group_symbols_are_set_as_in_the_tables():
    assert "<i>P2<sub>1</sub>/c</i> <small>(14)</small>" in html.space_group("P2_1/c", 14)
    assert '<i>Fm<span class="bar">3</span>m</i>' in html.space_group("Fm-3m", 225)


def test_replacements_get_charges_and_arrows():
    assert html.replacement("Cl-->O2- (1 of 2)") == (
        "Cl<sup>\N{MINUS SIGN}</sup> → O<sup>2\N{MINUS SIGN}</sup> (1 of 2)"
    )
