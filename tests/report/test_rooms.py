"""The rooms of the report, each by itself: packing, escaping, groups, findings, and which genes have curves."""

import base64
import json
import zlib

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from skenigma import ProportionEstimator
from skenigma.baselines import scaled_reference
from skenigma.reliability import gene_contribution
from skenigma.report._common import read_groups
from skenigma.report._contents import Findings, Groups
from skenigma.report._expression import choose_genes, gene_shares, summarise
from skenigma.report._findings import classes_of, counts_by_type, directions, said
from skenigma.report._markup import Markup, breakable, joined, markup
from skenigma.report._pack import pack_codes, pack_names, pack_numbers, rounded, to_json
from skenigma.report._proportions import _comparison_table, compare_groups
from skenigma.report._sources import TableSource
from skenigma.report._texts import named, p_text, percent


def unpacked(packed):
    """What the script makes of packed numbers."""
    raw = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    return np.ascontiguousarray(raw.reshape(4, -1).T).view("<f4").ravel()


class TestPack:
    @pytest.mark.parametrize("bits", [5, 7, 11, 22])
    def test_rounding_error_is_half_a_unit(self, bits):
        values = np.random.default_rng(0).lognormal(0, 20, 1000) * np.array([1, -1] * 500)
        # one unit in the last place of a mantissa of so many bits, and float32's own
        assert_allclose(rounded(values, bits), values, rtol=2.0 ** -(bits + 1) + 2.0**-24)

    def test_what_is_no_number_stays(self):
        values = np.array([np.nan, np.inf, -np.inf, 0.0, 3.4e38])
        assert_array_equal(rounded(values, 11)[:4], values[:4].astype(np.float32))
        assert np.isfinite(rounded(values, 11)[4])

    def test_numbers_come_back(self):
        values = np.random.default_rng(0).normal(size=(3, 7))
        assert_array_equal(unpacked(pack_numbers(values)), rounded(values, 11).ravel())

    def test_positions_are_exact(self):
        assert_array_equal(unpacked(pack_numbers(np.arange(70_000), 22)), np.arange(70_000))

    def test_codes_and_names_come_back(self):
        assert zlib.decompress(base64.b64decode(pack_codes([0, 255])["data"])) == b"\x00\xff"
        names = ["</script>", "é", "\ud800"]
        assert json.loads(zlib.decompress(base64.b64decode(pack_names(names)["data"]))) == names

    def test_json_cannot_end_a_script(self):
        text = to_json({"a": "</script><!--&\u2028"})
        assert not set(text) & set("<>&\u2028")
        assert json.loads(text) == {"a": "</script><!--&\u2028"}


class TestMarkup:
    def test_everything_is_escaped_but_markup(self):
        assert markup("<b>{a}</b>{b}", a="<i>", b=[Markup("<u>"), '"']) == "<b>&lt;i&gt;</b><u>&quot;"
        assert joined(["&", Markup("&")], "<") == "&amp;&lt;&"

    def test_braces_in_values_are_no_places(self):
        assert markup("{a}", a="{b}") == "{b}"

    def test_long_names_can_be_broken(self):
        assert breakable("EmpiricalBayes<") == "Empirical<wbr>Bayes&lt;"


class TestTexts:
    def test_named(self):
        assert [named([]), named("a"), named("ab"), named("abc"), named("abcdefg")] == [
            "", "a", "a and b", "a, b and c", "a, b, c, d, e and 2 more",
        ]  # fmt: skip

    def test_small_numbers_are_not_zero(self):
        assert [percent(0.00003), percent(0.051), percent(0.97), percent(np.nan)] == [
            "0.003%",
            "5.1%",
            "97%",
            "–",
        ]
        assert [p_text(1e-30), p_text(0.04), p_text(np.nan), p_text(0.0)] == [
            "1.0e-30",
            "0.04",
            "–",
            "< 1e-36",
        ]


class TestGroups:
    samples = pd.Index([f"s{number}" for number in range(20)])

    def proportions(self):
        rng = np.random.default_rng(0)
        shares = pd.DataFrame({"a": rng.uniform(0.1, 0.3, 20), "b": rng.uniform(0.1, 0.3, 20)}, self.samples)
        shares.loc[self.samples[10:], "a"] += 0.2
        return shares.assign(c=1 - shares.sum(axis=1), d=0.0)

    def test_two_groups(self):
        shares = self.proportions()
        groups = read_groups(["x"] * 10 + ["y"] * 10, self.samples)
        found = compare_groups(shares, groups)
        first, second = shares.a[:10], shares.a[10:]
        assert_allclose(found.table.effect["a"], second.mean() - first.mean(), rtol=1e-12)
        # Welch's interval from its formula
        errors = [part.var() / 10 for part in (first, second)]
        degrees = sum(errors) ** 2 / sum(e**2 / 9 for e in errors)
        reach = stats.t.ppf(0.975, degrees) * np.sqrt(sum(errors))
        assert_allclose(found.table.high["a"] - found.table.effect["a"], reach, rtol=1e-9)
        assert_allclose(
            found.table.p_value["a"],
            2 * stats.t.sf(found.table.effect["a"] / np.sqrt(sum(errors)), degrees),
            rtol=1e-9,
        )
        assert np.isnan(found.table.p_value["d"])  # does not vary
        # three cell types were tested, so that the smallest p counts three times
        assert_allclose(found.table.q_value.min(), 3 * found.table.p_value.min(), rtol=1e-12)
        assert found.sizes == {"x": 10, "y": 10}
        assert found.effect == "y − x"

    def test_groups_that_are_too_small_are_not_tested(self):
        found = compare_groups(self.proportions(), read_groups(["x"] * 18 + ["y"] * 2, self.samples))
        assert found.table.p_value.isna().all()
        assert found.table.effect.notna().all()

    def test_three_groups(self):
        found = compare_groups(self.proportions(), read_groups([*"xyz"] * 6 + ["x"] * 2, self.samples))
        assert found.effect is None
        assert found.table.p_value[["a", "b", "c"]].notna().all()
        of_y = self.proportions()["a"][1:18:3]
        low, high = stats.t.interval(0.95, len(of_y) - 1, of_y.mean(), stats.sem(of_y))
        around = found.table.loc["a", ["mean y", "reach y"]]
        assert_allclose([around.iloc[0] - around.iloc[1], around.sum()], [low, high], rtol=1e-12)  # rounding
        shown, _ = _comparison_table(found, ["a", "b", "c"])
        assert shown.loc["a", "mean y, 95% interval"] == f"{100 * low:.1f} to {100 * high:.1f}%"

    def test_a_quantity(self):
        shares = self.proportions()
        age = pd.Series(np.arange(20.0), self.samples[::-1], name="age")  # matched by name
        found = compare_groups(shares, read_groups(age, self.samples))
        slope = np.polyfit(age[self.samples], shares.a, 1)[0]
        assert_allclose(found.table.effect["a"], slope, rtol=1e-9)
        assert found.table.low["a"] < slope < found.table.high["a"]

    def test_missing_groups_take_no_part(self):
        groups = read_groups(pd.Series(["x"] * 9 + [None] + ["y"] * 10, self.samples, name="g"), self.samples)
        assert compare_groups(self.proportions(), groups).sizes == {"x": 9, "y": 10}

    def test_what_does_not_fit_is_refused(self):
        with pytest.raises(ValueError, match="3 entries for 20 samples"):
            read_groups([1, 2, 3], self.samples)
        with pytest.raises(ValueError, match="lacks the samples 's19'"):
            read_groups(pd.Series(["x", "y"] * 9 + ["x"], self.samples[:19]), self.samples)
        with pytest.raises(ValueError, match="columns 'a', 'b'"):
            read_groups(pd.DataFrame({"a": 1, "b": 2}, self.samples), self.samples)


def found_table(**columns):
    rows = {"cell_type": ["B", "B", "T"], "gene": ["g1", "g2", "g1"], "effect": [2.0, -1.0, 0.5]}
    return Findings(
        pd.DataFrame({**rows, "p_value": [0.001, 0.002, np.nan], "q_value": [0.01, 0.02, np.nan], **columns})
    )


class TestFindings:
    @pytest.mark.parametrize(
        ("contrast", "classes", "words"),
        [
            ("log2(sick / healthy)", ["healthy", "sick"], ("higher in sick", "lower in sick")),
            ("case - control", ["control", "case"], ("higher in case", "lower in case")),
            ("per unit of age", None, ("rises with age", "falls with age")),
            ("log2 fold change per unit of age", None, ("rises with age", "falls with age")),
            ("log2(largest / smallest) over state", None, ("differs", "differs")),
            ("largest - smallest mean of state", None, ("differs", "differs")),
        ],
    )
    def test_directions_are_those_of_the_contrast(self, contrast, classes, words):
        test = found_table()
        test.contrast = contrast
        assert classes_of(test, None) == classes
        assert directions(test, None) == words

    def test_other_groups_do_not_name_the_direction(self):
        test = found_table()
        test.contrast = "log2(sick / healthy)"
        others = Groups("sex", pd.Series(["f", "m"]), ["f", "m"])
        assert classes_of(test, others) == ["healthy", "sick"]
        assert directions(test, others) == ("higher in sick", "lower in sick")
        own = Groups("state", pd.Series(["a / b", "c"]), ["a / b", "c"])
        test.contrast = "log2(c / a / b)"
        assert classes_of(test, own) == ["a / b", "c"]

    def test_counts(self):
        counts = counts_by_type(found_table(flag=["", "", "rare"]), ["T", "B"])
        assert list(counts.index) == ["T", "B"]
        assert counts.loc["B", ["genes", "tested", "up", "down"]].tolist() == [2, 2, 1, 1]
        assert counts.reasons["T"] == {"rare": 1}

    def test_nothing_tested_nothing_found_and_something_found(self):
        test = found_table(flag=["", "", "rare"])
        test.contrast = "log2(sick / healthy)"
        counts = counts_by_type(test, ["B", "T"])
        assert said("B", counts.loc["B"], test, None).startswith("1 higher in sick and 1 lower in sick")
        assert "Nothing could be tested in T: the cell type is too rare" in said(
            "T", counts.loc["T"], test, None
        )
        test.table["q_value"] = 0.5
        row = counts_by_type(test, ["B"]).loc["B"]
        assert "Nothing was found in B: none of 2 tested genes" in said("B", row, test, None)

    def test_ratios_below_one_are_lower(self):
        test = found_table(effect=[2.0, 0.5, 0.5])
        test.contrast = "sick / healthy"
        assert counts_by_type(test, ["B"]).loc["B", ["up", "down"]].tolist() == [1, 1]


class TestExpression:
    rng = np.random.default_rng(0)
    samples, types, genes = [f"s{i}" for i in range(12)], ["a", "b"], [f"g{i}" for i in range(30)]
    reference = pd.DataFrame(rng.gamma(1, 50, (2, 30)), types, genes)
    theta = pd.DataFrame(rng.dirichlet([2, 3], 12), samples, types)
    cse = reference.to_numpy() * rng.lognormal(0, 0.3, (12, 2, 30))
    bulk = pd.DataFrame(np.einsum("jk,jkg->jg", theta.to_numpy(), cse), samples, genes)

    def source(self, cse, std=None):
        def read(kind, cell_type):
            values = cse if kind == "values" else std
            return (
                None
                if values is None
                else pd.DataFrame(values[:, self.types.index(cell_type)], self.samples, self.genes)
            )

        return TableSource(read, self.types, None)

    def test_the_truth_adds_up_to_the_bulk(self):
        found = summarise(self.source(self.cse), self.theta, bulk=self.bulk, reference=self.reference)
        assert_allclose(found.level, 1, rtol=1e-12)
        assert_allclose(found.mean, self.cse.mean(axis=0), rtol=1e-12)
        assert found.curves.low is None
        assert_allclose(found.curves.bulk, self.bulk.T, rtol=1e-12)
        assert_allclose(found.curves.values, self.cse.transpose(2, 1, 0), rtol=1e-12)

    def test_half_of_it_has_half_the_level(self):
        found = summarise(self.source(0.5 * self.cse), self.theta, bulk=self.bulk, reference=self.reference)
        assert_allclose(found.level, 0.5, rtol=1e-12)

    def test_free_baselines_are_found_out(self):
        scaled = scaled_reference(self.bulk, self.reference, self.theta)
        found = summarise(self.source(scaled), self.theta, bulk=self.bulk, reference=self.reference).follows
        # correlations of a baseline with itself
        assert_allclose(found["scaled reference"], 1, rtol=1e-12)
        assert_allclose(found["other types"], 1, rtol=1e-12)
        same = np.broadcast_to(self.bulk.to_numpy()[:, None], self.cse.shape)
        found = summarise(self.source(same), self.theta, bulk=self.bulk, reference=self.reference).follows
        assert_allclose(found["bulk"], 1, rtol=1e-12)
        assert_allclose(found["variation"], 1, rtol=1e-12)
        flat = np.broadcast_to(self.reference.to_numpy(), self.cse.shape)
        found = summarise(self.source(flat), self.theta, bulk=self.bulk, reference=self.reference).follows
        assert found["bulk"].isna().all()
        assert_allclose(found["variation"], 0, atol=1e-12)

    def test_shares_are_those_of_gene_contribution(self):
        model = ProportionEstimator(self.reference, method="nnls").fit(self.bulk)
        theta = pd.DataFrame(model.proportions_, self.samples, self.types)
        assert_allclose(gene_shares(theta, self.reference, self.types), gene_contribution(model), rtol=1e-12)
        assert gene_shares(self.theta, -self.reference, self.types) is None

    def test_without_a_bulk_there_is_no_level(self):
        found = summarise(self.source(self.cse, 0.1 * self.cse), self.theta)
        assert found.level is None
        assert found.follows is None
        assert found.curves.bulk is None
        assert found.curves.low.shape == (30, 2, 12)
        assert list(found.uncertainty.index) == self.types

    def test_findings_have_curves_first_and_then_what_deserves_trust(self):
        trust = np.zeros((2, 30))
        trust[1, [20, 21, 22]] = [0.7, 0.9, 0.8]
        rows = {
            "cell_type": ["a", "a", "b", "b"],
            "gene": ["g5", "g6", "g7", "g8"],
            "p_value": [1e-9, 1e-8, 1e-5, 0.1],
        }
        table = pd.DataFrame({**rows, "q_value": [1e-8, 1e-7, 1e-4, 0.5]})
        # of each type in turn, as far as there is room
        assert choose_genes(self.genes, self.types, 5, trust, table).tolist() == [0, 1, 5, 7, 21]
        assert choose_genes(self.genes, self.types, 2).tolist() == [0, 1]
        assert choose_genes(self.genes, self.types, 99).tolist() == list(range(30))


def test_groups_in_the_order_of_the_levels():
    groups = Groups("g", pd.Series(["b", "a"]), ["b", "a"])
    assert read_groups(groups, pd.Index([0, 1])) is groups
