"""Tables of every type that pandas has are read, or refused with what to pass instead."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.utils.validation import check_array

from skenigma import ProportionEstimator
from skenigma.anndata import deconvolve
from skenigma.checks.tables import check_table, is_as_asked

GENES = [f"g{i}" for i in range(12)]


@pytest.fixture(scope="module")
def tables():
    rng = np.random.default_rng(0)
    reference = pd.DataFrame(rng.integers(8, 999, (3, 12)) / 8, ["B", "T", "NK"], GENES)
    bulk = pd.DataFrame(rng.dirichlet([3, 3, 3], 4) @ reference.to_numpy(), list("abcd"), GENES)
    return (bulk * 64).round() / 64, reference


def arrow(name):
    def change(frame):
        pa = pytest.importorskip("pyarrow")
        if name == "decimal":
            return frame.apply(lambda column: column.map(lambda value: Decimal(str(value)))).astype(
                pd.ArrowDtype(pa.decimal128(20, 8))
            )
        return frame.astype(f"{name}[pyarrow]")

    return change


CHANGES = {
    "nullable": lambda frame: frame.astype("Float64"),
    "converted": lambda frame: frame.convert_dtypes(),
    "arrow": arrow("double"),
    "arrow decimal": arrow("decimal"),
    "decimal": lambda frame: frame.apply(lambda column: column.map(lambda value: Decimal(str(value)))),
    "objects": lambda frame: frame.astype(object),
    "mixed": lambda frame: frame.astype({"g0": "float32", "g1": "Float64", "g2": object}),
    "string names": lambda frame: frame.set_axis(pd.Index(GENES, dtype="string"), axis=1),
    "categorical names": lambda frame: frame.set_axis(pd.CategoricalIndex(GENES), axis=1),
    "string rows": lambda frame: frame.set_axis(pd.Index(frame.index, dtype="string")),
    "categorical rows": lambda frame: frame.set_axis(pd.CategoricalIndex(frame.index)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_types_of_pandas_make_no_difference(tables, name):
    bulk, reference = tables
    right = ProportionEstimator(reference).fit(bulk)
    found = ProportionEstimator(CHANGES[name](reference)).fit(CHANGES[name](bulk))
    # sixty-fourths are exact in all of these types
    assert_allclose(found.proportions_, right.proportions_, rtol=1e-12)
    assert_array_equal(found.cell_types_, ["B", "T", "NK"])
    assert_array_equal(found.feature_names_in_, GENES)
    assert_array_equal(found.quality_.index, list("abcd"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.rename(columns={"g3": np.nan}),
            r"1 gene\(s\) of X have no name .NaN., at position 3.*notna",
        ),
        (lambda x: x.set_axis(range(100, 112), axis=1), r"X.columns = X.columns.astype\(str\)"),
        (
            lambda x: x.set_axis(pd.MultiIndex.from_product([GENES, ["tpm"]]), axis=1),
            "2 levels.*get_level_values",
        ),
        (lambda x: x.astype("Float64").mask(x == x.iloc[1, 2]), r"NaN in 1 place.*row 'b', column 'g2'"),
        (
            lambda x: np.log(x.mask(x == x.iloc[1, 2], 0)),
            "infinity.*the logarithm of 0: pass the values as they were",
        ),
        (lambda x: x.astype(str).replace({"g3": {x.iloc[0, 3].astype(str): "1,5"}}), "decimal=','"),
        (lambda x: x.reset_index(), r"'index' \('a'\).*index_col=0"),
        (lambda x: x.assign(when=pd.Timestamp("2020-01-01")), r"'when'.*Drop or convert other columns"),
        (
            lambda x: pd.concat([pd.DataFrame("chr1", ["Chr", "Strand"], GENES), x]),
            r"2 row\(s\) that are not numbers: 'Chr' .'chr1'., 'Strand'.*X.drop\(index=\['Chr', 'Strand'\]\)",
        ),
    ],
)
def test_errors_point_at_the_remedy(tables, change, message):
    bulk, reference = tables
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message) as caught:
        ProportionEstimator(reference).fit(change(bulk))
    assert message.count("index_col") == str(caught.value).count("index_col")


@pytest.mark.parametrize("what", ["X", "reference"])
def test_an_anndata_is_told_from_a_table(tables, what):
    anndata = pytest.importorskip("anndata")
    given = {"X": tables[0], "reference": tables[1]}
    given[what] = anndata.AnnData(given[what])
    with pytest.raises(ValueError, match=rf"{what} is an AnnData: pass a table, {what}.to_df\(\)"):
        ProportionEstimator(given["reference"]).fit(given["X"])


@pytest.mark.parametrize("backed", [None, "r"])
def test_an_anndata_without_x_says_which_layers_it_has(tables, tmp_path, backed):
    """In memory, and read from its file as needed, where to ask for X fails."""
    anndata = pytest.importorskip("anndata")
    bulk, reference = tables
    path = tmp_path / "bulk.h5ad"
    names = {"obs": pd.DataFrame(index=bulk.index), "var": pd.DataFrame(index=bulk.columns)}
    anndata.AnnData(None, layers={"counts": bulk.to_numpy()}, **names).write_h5ad(path)
    data = anndata.read_h5ad(path, backed=backed)
    with pytest.raises(ValueError, match=r"The AnnData has no X: choose a layer. It has: 'counts'"):
        deconvolve(data, reference)
    if backed:
        data.file.close()


@pytest.mark.parametrize(
    "table",
    [
        np.ones((3, 2)),
        np.ones((3, 2), dtype=np.float32),
        np.ones((2, 3)).T,
        np.ones((3, 2), dtype=int),
        np.ones((3, 2), dtype=">f8"),
        [[1.0, 2.0]],
    ],
    ids=["float64", "float32", "columns", "integers", "other byte order", "lists"],
)
def test_only_what_scikit_learn_returns_as_it_is_is_taken_as_it_is(table):
    checks = {"dtype": [np.float64, np.float32], "ensure_all_finite": False}
    if is_as_asked(table, **checks):
        assert check_array(table, **checks) is table
    else:
        assert type(table) is not np.ndarray or table.dtype not in checks["dtype"]
    assert check_table(table, "table", **checks).dtype in checks["dtype"]
