"""Files of other programs on the command line: what was done while they were read is said, recorded and repeated."""

import numpy as np
import pandas as pd
import pytest

from skenigma import io
from skenigma.cli import main

GENES = [f"gene{i}" for i in range(60)]
TYPES = ["B", "T"]


@pytest.fixture(scope="module")
def tables():
    """Counts per million of two profiles, and of two mixtures of them."""
    rng = np.random.default_rng(0)
    profiles = rng.lognormal(3, 2, (2, len(GENES)))
    profiles *= 1e6 / profiles.sum(axis=1, keepdims=True)
    reference = pd.DataFrame(profiles, TYPES, GENES)
    bulk = pd.DataFrame(np.array([[0.25, 0.75], [0.6, 0.4]]) @ profiles, ["S1", "S2"], GENES)
    return bulk, reference


@pytest.fixture
def reference(tables, tmp_path):
    io.write_table(tables[1].T.rename_axis("gene"), tmp_path / "reference.tsv")
    return str(tmp_path / "reference.tsv")


@pytest.fixture
def kallisto(tables, tmp_path):
    """A folder with a file for each sample, whose counts are not its TPM."""
    for sample, values in tables[0].iterrows():
        path = tmp_path / "runs" / sample / "abundance.tsv"
        path.parent.mkdir(parents=True)
        columns = {"length": 900, "eff_length": 700, "est_counts": values[::-1].to_numpy(), "tpm": values}
        io.write_table(pd.DataFrame(columns).rename_axis("target_id"), path)
    return tmp_path / "runs"


def proportions(folder):
    return io.read_proportions(folder / "proportions.tsv")


def expected():
    return pd.DataFrame([[0.25, 0.75], [0.6, 0.4]], ["S1", "S2"], TYPES)


class TestFolder:
    def command(self, kallisto, reference, out):
        # exact mixtures, by least squares: no error but that of rounding
        options = ["--quantity", "tpm", "--method", "nnls", "--out", str(out)]
        return ["proportions", "--bulk", str(kallisto), "--reference", reference, *options]

    def test_read_said_and_recorded(self, kallisto, reference, tmp_path, capsys):
        assert main(self.command(kallisto, reference, tmp_path / "out")) == 0
        pd.testing.assert_frame_equal(proportions(tmp_path / "out"), expected(), rtol=1e-6)
        line = "read the output of kallisto, transcript level, 2 files: tpm are column 'tpm'"
        assert f"bulk  {line}" in capsys.readouterr().err
        record = io.read_run(tmp_path / "out").record
        assert any(note.startswith(line) for note in record["understood"]["reading"]["bulk"])
        assert record["options"]["quantity"] == "tpm"
        assert record["inputs"]["bulk"]["path"] == str(kallisto)

    def test_repeated_with_the_same_files_only(self, kallisto, reference, tmp_path, capsys):
        assert main([*self.command(kallisto, reference, tmp_path / "out"), "-q"]) == 0
        repeat = ["proportions", "--from", str(tmp_path / "out" / "run.json"), "-q", "--out"]
        assert main([*repeat, str(tmp_path / "again")]) == 0
        path = kallisto / "S1" / "abundance.tsv"
        path.write_text(path.read_text().replace("900", "901"))
        assert main([*repeat, str(tmp_path / "third")]) == 1
        assert "is not the bulk of the recorded run" in capsys.readouterr().err

    def test_without_anything_that_can_be_read(self, reference, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        assert main(self.command(tmp_path / "empty", reference, tmp_path / "out")) == 1
        assert "is a folder, a file is needed" in capsys.readouterr().err


def test_layer_and_gene_column_of_an_anndata(tables, reference, tmp_path):
    anndata = pytest.importorskip("anndata")
    bulk = tables[0]
    data = anndata.AnnData(
        np.log1p(bulk.to_numpy()),
        obs=bulk[[]],
        var=pd.DataFrame({"symbol": GENES}, index=[f"ENSG{i:011d}" for i in range(len(GENES))]),
        layers={"cpm": bulk.to_numpy()},
    )
    data.uns["log1p"] = {}
    data.write_h5ad(tmp_path / "bulk.h5ad")
    command = [
        "proportions",
        "--bulk",
        str(tmp_path / "bulk.h5ad"),
        "--reference",
        reference,
        "--method",
        "nnls",
    ]
    chosen = ["--layer", "cpm", "--gene-column", "symbol", "--out", str(tmp_path / "out"), "-q"]
    assert main([*command, *chosen]) == 0
    pd.testing.assert_frame_equal(proportions(tmp_path / "out"), expected(), rtol=1e-6)


@pytest.mark.parametrize("how", ["sum", "largest"])
def test_genes_named_more_than_once(tables, reference, tmp_path, how, capsys):
    """A gene in two rows of a third and two thirds; "largest" changes one gene of sixty."""
    bulk = tables[0]
    parts = pd.concat([bulk.T.iloc[:1] / 3, bulk.T.iloc[:1] * 2 / 3, bulk.T.iloc[1:]])
    io.write_table(parts.rename_axis("gene"), tmp_path / "bulk.tsv")
    command = [
        "proportions",
        "--bulk",
        str(tmp_path / "bulk.tsv"),
        "--reference",
        reference,
        "--method",
        "nnls",
    ]
    assert main([*command, "--out", str(tmp_path / "no")]) == 1
    assert "1 of 60 genes named more than once: 'gene0'" in capsys.readouterr().err
    assert main([*command, "--duplicates", how, "--out", str(tmp_path / "out")]) == 0
    tolerance = 1e-6 if how == "sum" else 0.05
    pd.testing.assert_frame_equal(proportions(tmp_path / "out"), expected(), atol=tolerance, rtol=0)
    assert "genes named more than once: 'gene0'" in capsys.readouterr().err
