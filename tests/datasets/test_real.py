"""Public cohorts: what is read from the cache, what is made of downloads, and what is said without a network."""

import gzip

import anndata
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import sparse

from skenigma.datasets import _real, data_home, fetch_lupus_pbmc, fetch_whole_blood

GENES = [f"ENSG{i:011d}" for i in range(6)]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def blood(tmp_path, monkeypatch, rng):
    """Files such as the Gene Expression Omnibus has them: two whole visits, and one without CD8 cells."""
    kinds = ["Whole Blood", *_real.SORTED, "NK"]
    visits = [("7", "Healthy Control"), ("31", "MS pretreatment"), ("33", "MS posttreatment")]
    pairs = [(visit, kind) for visit in visits for kind in kinds if (visit[0], kind) != ("33", "CD8")]
    titles = [f"lib{i}" for i in range(len(pairs))]
    counts = pd.DataFrame(rng.integers(1, 100, (6, len(pairs))), pd.Index(GENES, name="genenames"), titles)
    counts.loc[GENES[0], :] = 0
    counts.to_csv(tmp_path / "counts.txt.gz", sep="\t")
    rows = {
        "!Series_title": ["blood"],
        "!Sample_title": titles,
        "!Sample_characteristics_ch1": [f"celltype: {kind}" for _, kind in pairs],
        "!Sample_characteristics_ch1 ": [f"diseasestatus: {visit[1]}" for visit, _ in pairs],
        "!Sample_characteristics_ch1  ": [f"donorid: {visit[0]}" for visit, _ in pairs],
    }
    with gzip.open(tmp_path / "series.txt.gz", "wt", encoding="utf-8") as file:
        for name, values in rows.items():
            file.write("\t".join([name.strip(), *(f'"{value}"' for value in values)]) + "\n")
    monkeypatch.setattr(
        _real, "WHOLE_BLOOD", [(tmp_path / name).as_uri() for name in ("counts.txt.gz", "series.txt.gz")]
    )
    return counts, pairs


@pytest.fixture
def lupus(tmp_path, monkeypatch, rng):
    """Single cells of two patients; a condition, a cell type and a gene that are left out."""
    kinds = [*_real.LUPUS_TYPES, "Megakaryocytes"]
    obs = pd.DataFrame(
        [(kind, label, f"patient_{p}") for kind in kinds for label in ("ctrl", "stim") for p in (101, 7)] * 3,
        columns=["cell_type", "label", "replicate"],
    ).astype("category")
    obs.index = obs.index.astype(str)
    counts = rng.integers(5, 50, (len(obs), 4))
    counts[:, 3] = 0
    cells = anndata.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs, pd.DataFrame(index=list("ABCD"))
    )
    cells.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setattr(_real, "LUPUS", [(tmp_path / "cells.h5ad").as_uri()])
    return obs, counts


def test_whole_blood_of_downloads(blood, tmp_path):
    counts, pairs = blood
    cohort = fetch_whole_blood(data_home=tmp_path / "kept")
    assert list(cohort.sample_names) == ["7_Healthy_Control", "31_MS_pretreatment"]
    assert list(cohort.phenotype) == ["Healthy Control", "MS pretreatment"]
    assert list(cohort.cell_types) == _real.SORTED
    assert list(cohort.gene_names) == GENES[1:]  # the first is not expressed
    millions = counts / counts.sum() * 1e6
    place = {(visit[0], kind): f"lib{i}" for i, (visit, kind) in enumerate(pairs)}
    assert_allclose(cohort.bulk.loc["7_Healthy_Control"], millions[place["7", "Whole Blood"]][1:], rtol=1e-12)
    # single precision
    assert_allclose(cohort.cse[1, 4], millions[place["31", "CD8"]][1:], rtol=1e-6)
    assert_allclose(cohort.reference, cohort.cse.mean(axis=0))
    # kept: the addresses are asked no more
    again = fetch_whole_blood(data_home=tmp_path / "kept", download_if_missing=False)
    assert_allclose(again.bulk, cohort.bulk, rtol=0)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["gse60424.npz"]


def test_visits_of_one_person():
    assert _real.VISITS == {"33": "31", "46": "45", "56": "55"}


def test_lupus_of_downloads(lupus, tmp_path):
    obs, counts = lupus
    cohort = fetch_lupus_pbmc(data_home=tmp_path / "kept")
    assert list(cohort.sample_names) == ["101", "7"]
    assert list(cohort.gene_names) == list("ABC")
    kind = "NK cells"
    chosen = (obs["cell_type"] == kind) & (obs["label"] == "ctrl") & (obs["replicate"] == "patient_7")
    pooled = counts[chosen.to_numpy(), :3].sum(axis=0)
    assert cohort.n_cells.loc["7", kind] == chosen.sum() == 3
    assert_allclose(cohort.cse[1, _real.LUPUS_TYPES.index(kind)], pooled / pooled.sum() * 1e6, rtol=1e-6)
    assert_allclose(cohort.proportions.sum(axis=1), 1)
    mixture = np.einsum("jk,jkg->jg", cohort.proportions, cohort.cse)
    assert_allclose(cohort.bulk, mixture, rtol=1e-6)


@pytest.mark.parametrize("fetch", [fetch_whole_blood, fetch_lupus_pbmc])
def test_without_a_network(fetch, tmp_path, monkeypatch):
    monkeypatch.setattr(_real, "WHOLE_BLOOD", [(tmp_path / "nowhere").as_uri()] * 2)
    monkeypatch.setattr(_real, "LUPUS", [(tmp_path / "nowhere").as_uri()])
    with pytest.raises(
        OSError, match=r"could not be downloaded.*data_home or by the environment variable SKENIGMA"
    ):
        fetch(data_home=tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
    with pytest.raises(OSError, match="download_if_missing=False"):
        fetch(data_home=tmp_path / "kept", download_if_missing=False)


def test_changed_downloads_are_refused(blood, tmp_path, monkeypatch):
    monkeypatch.setattr(_real, "SORTED", ["Neutrophils", "Eosinophils"])
    with pytest.raises(ValueError, match=r"has changed.*'Eosinophils'.*report"):
        fetch_whole_blood(data_home=tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_where_data_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("SKENIGMA_DATA_HOME", str(tmp_path))
    assert data_home() == tmp_path
    assert data_home("~/x").name == "x"
    monkeypatch.delenv("SKENIGMA_DATA_HOME")
    assert data_home().name == "skenigma_data"


def test_real_files(truth_folder):
    """The prepared files, which are what the downloads become."""
    blood = fetch_whole_blood(data_home=truth_folder)
    assert blood.cse.shape == (20, 5, 10067)
    assert blood.persons.nunique() == 17
    assert set(blood.phenotype[blood.persons.duplicated()]) == {"MS posttreatment"}
    lupus = fetch_lupus_pbmc(data_home=truth_folder)
    assert lupus.proportions.shape == (8, 6)
    # the file keeps single precision
    assert_allclose(np.einsum("jk,jkg->jg", lupus.proportions, lupus.cse), lupus.bulk, rtol=1e-5)
