"""Public cohorts in which the cell types were measured beside the mixture."""

import gzip
from functools import partial

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from .._docstrings import COHORT, filled
from .._typing import PathLike
from ..checks.optional import import_optional
from ._download import kept

__all__ = ["fetch_lupus_pbmc", "fetch_whole_blood"]

GEO = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE60nnn/GSE60424"
WHOLE_BLOOD = [
    f"{GEO}/suppl/GSE60424_GEOSubmit_FC1to11_normalized_counts.txt.gz",
    f"{GEO}/matrix/GSE60424_series_matrix.txt.gz",
]
SORTED = ["Neutrophils", "Monocytes", "B-cells", "CD4", "CD8"]
# Patients who were sampled before and after a treatment: the numbers are of visits.
VISITS = {"33": "31", "46": "45", "56": "55"}
LUPUS = ["https://figshare.com/ndownloader/files/34464122"]
LUPUS_TYPES = [
    "B cells",
    "CD14+ Monocytes",
    "CD4 T cells",
    "CD8 T cells",
    "FCGR3A+ Monocytes",
    "NK cells",
]
# Counts per million below which a gene of a few dozen samples is mostly noise.
EXPRESSED = 5.0
# Mean count over donors and cell types below which a gene of pooled single cells is mostly zero.
COUNTED = 5.0

WHOLE_BLOOD_DESCRIPTION = """\
Whole blood of 20 visits, and five cell types sorted from each (GSE60424)
-------------------------------------------------------------------------

{n_samples} samples, {n_genes} genes (Ensembl), {n_cell_types} cell types; counts per million

Whole blood and sorted neutrophils, monocytes, B, CD4 and CD8 cells of healthy people and of patients with type 1
diabetes, amyotrophic lateral sclerosis, sepsis, and multiple sclerosis before and after treatment (Linsley et al.
2014, PLoS ONE 9:e109760). How much of each cell type a sample contains was not measured on these samples.

bulk         samples x genes
reference    cell types x genes; mean of the sorted samples over all visits
cse          samples x cell types x genes; the sorted samples
phenotype    samples; the diagnosis
persons      samples; equal for visits of one person
"""

LUPUS_DESCRIPTION = """\
Blood cells of eight patients with lupus, as exact mixtures (GSE96583)
----------------------------------------------------------------------

{n_samples} samples, {n_genes} genes, {n_cell_types} cell types; counts per million

Single cells of unstimulated blood (Kang et al. 2018, Nat. Biotechnol. 36:89), added up per patient and cell type. The
bulk is the sum over the cell types, so it has no noise of its own, and the proportions are exact shares of RNA.

bulk         samples x genes
reference    cell types x genes; mean of cse over patients
proportions  samples x cell types; shares of RNA
cse          samples x cell types x genes
n_cells      samples x cell types; number of cells that were added up
"""

# Entries that the docstrings of this module share.
ENTRIES = {
    **COHORT,
    "data_home": """data_home : str or path-like, default=None
    Folder in which the data are kept, see :func:`data_home`.""",
    "refusals": """Raises
------
OSError
    If the data are not there and cannot be downloaded.
ValueError
    If what was downloaded is not what it was when this was written.""",
}


@filled(ENTRIES)
def fetch_whole_blood(*, data_home: PathLike | None = None, download_if_missing: bool = True) -> Bunch:
    """Load whole blood with its sorted cell types: real samples, and the truth about their expression.

    Parameters
    ----------
    {data_home}
    download_if_missing : bool, default=True
        Whether to download about 5 MB from the Gene Expression Omnibus, once, where they are not kept yet.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        With the attributes

        bulk : DataFrame of shape (20, n_genes)
            Whole blood, counts per million.
        reference : DataFrame of shape (5, n_genes)
            Mean of every cell type's sorted samples.
        cse : ndarray of shape (20, 5, n_genes)
            The sorted samples: what every cell type expresses in every sample.
        phenotype : Series of str
            Diagnosis.
        persons : Series of str
            Equal for visits of one person, so that folds can keep these together.
        sample_names, gene_names, cell_types : ndarray of str
            The names along the axes. Genes are Ensembl identifiers.
        DESCR : str
            Description of the data.

    {refusals}

    Notes
    -----
    Of the genes those are kept whose mean over the bulk is above 5 counts per million. No checksum is published for
    these files, so what they contain is checked instead: the cell types, and that every visit has all of them.

    References
    ----------
    .. [1] Linsley P.S. et al. (2014) "Copy number loss of the interferon gene cluster in melanomas is linked to
       reduced T cell infiltrate and poor patient prognosis". PLoS ONE 9:e109760. GEO series GSE60424.

    Examples
    --------
    >>> from skenigma.datasets import fetch_whole_blood
    >>> blood = fetch_whole_blood()  # doctest: +SKIP
    >>> blood.bulk.shape[0], list(blood.cell_types)  # doctest: +SKIP
    (20, ['Neutrophils', 'Monocytes', 'B-cells', 'CD4', 'CD8'])
    """
    path = kept("gse60424.npz", _prepare_whole_blood, WHOLE_BLOOD, data_home, download_if_missing)
    cohort = _load(path, WHOLE_BLOOD_DESCRIPTION)
    with np.load(path) as file:
        cohort.phenotype = pd.Series(
            [name.replace("_", " ") for name in file["disease"]], cohort.bulk.index, name="diagnosis"
        )
    visits = [str(name).partition("_")[0] for name in cohort.sample_names]
    cohort.persons = pd.Series(
        [VISITS.get(visit, visit) for visit in visits], cohort.bulk.index, name="person"
    )
    return cohort


@filled(ENTRIES)
def fetch_lupus_pbmc(*, data_home: PathLike | None = None, download_if_missing: bool = True) -> Bunch:
    """Load blood cells of patients with lupus, added up to a bulk of which everything is known.

    Parameters
    ----------
    {data_home}
    download_if_missing : bool, default=True
        Whether to download the single cells, about 40 MB, once, where they are not kept yet. Reading them needs the
        package anndata.

    Returns
    -------
    cohort : :class:`~sklearn.utils.Bunch`
        With the attributes

        bulk : DataFrame of shape (8, n_genes)
            Sum of the cell types, counts per million.
        reference : DataFrame of shape (6, n_genes)
            Mean of every cell type over patients.
        proportions : DataFrame of shape (8, 6)
            Shares of RNA, exact.
        cse : ndarray of shape (8, 6, n_genes)
            What every cell type expresses in every sample.
        n_cells : DataFrame of shape (8, 6)
            How many cells were added up.
        {cohort_names}
        DESCR : str
            Description of the data.

    {refusals}

    Notes
    -----
    The bulk is an exact mixture of few cells, so estimates that inherit the noise of the bulk look better on it than
    on real bulk samples. Of the genes those are kept that have 5 counts or more per patient and cell type in the
    mean; totals are over these.

    References
    ----------
    .. [1] Kang H.M. et al. (2018) "Multiplexed droplet single-cell RNA-sequencing using natural genetic variation".
       Nat. Biotechnol. 36:89-94. GEO series GSE96583.

    Examples
    --------
    >>> from skenigma.datasets import fetch_lupus_pbmc
    >>> lupus = fetch_lupus_pbmc()  # doctest: +SKIP
    >>> lupus.bulk.shape[0], lupus.proportions.shape  # doctest: +SKIP
    (8, (8, 6))
    """
    path = kept("kang8.npz", _prepare_lupus, LUPUS, data_home, download_if_missing)
    cohort = _load(path, LUPUS_DESCRIPTION)
    named = partial(pd.DataFrame, index=cohort.bulk.index, columns=cohort.reference.index)
    with np.load(path) as file:
        cohort.proportions, cohort.n_cells = named(file["theta"]), named(file["n_cells"])
    return cohort


def _load(path, description):
    """What the prepared files have in common."""
    with np.load(path) as file:
        bulk, cse = file["bulk"], file["cse"].astype(np.float64)
        samples, types, genes = file["samples"], file["types"], file["genes"]
    sizes = {"n_samples": len(samples), "n_cell_types": len(types), "n_genes": len(genes)}
    return Bunch(
        bulk=pd.DataFrame(bulk, samples, genes),
        reference=pd.DataFrame(cse.mean(axis=0), types, genes),
        cse=cse,
        sample_names=samples,
        cell_types=types,
        gene_names=genes,
        DESCR=description.format(**sizes),
    )


def _prepare_whole_blood(counts, series, target):
    """The sorted and unsorted samples of one visit side by side, in counts per million."""
    libraries = pd.read_csv(counts, sep="\t", index_col=0, compression="gzip").T
    libraries *= 1e6 / libraries.sum(axis=1).to_numpy()[:, None]
    about = _sample_annotation(series)
    missing = {"celltype", "diseasestatus", "donorid"} - set(about)
    absent = {"Whole Blood", *SORTED} - set(about.get("celltype", ()))
    if missing or absent or not set(about.index) <= set(libraries.index):
        raise ValueError(
            f"GSE60424 has changed: it lacks the fields {sorted(missing)}, the cell types {sorted(absent)} "
            f"and {len(set(about.index) - set(libraries.index))} libraries. Please report this."
        )
    about["visit"] = about["donorid"] + "_" + about["diseasestatus"].str.replace(" ", "_")
    tables = {
        kind: libraries.loc[part.index].set_axis(part["visit"], axis=0)
        for kind, part in about.groupby("celltype")
        if kind in {"Whole Blood", *SORTED}
    }
    visits = [v for v in tables["Whole Blood"].index if all(v in tables[kind].index for kind in SORTED)]
    genes = libraries.columns[tables["Whole Blood"].loc[visits].mean(axis=0) > EXPRESSED]
    np.savez_compressed(
        target,
        bulk=tables["Whole Blood"].loc[visits, genes].to_numpy(),
        cse=np.stack([tables[kind].loc[visits, genes] for kind in SORTED], axis=1).astype(np.float32),
        samples=np.array(visits, dtype=str),
        types=np.array(SORTED),
        genes=genes.to_numpy(dtype=str),
        disease=np.array([visit.partition("_")[2] for visit in visits]),
    )


def _sample_annotation(series):
    """Characteristics of the samples of a series matrix, by title: one column for each "key: value"."""
    titles, columns = [], {}
    with gzip.open(series, "rt", encoding="utf-8") as lines:
        for line in lines:
            name, *values = line.rstrip("\n").split("\t")
            values = [value.strip('"') for value in values]
            if name == "!Sample_title":
                titles = values
            elif name == "!Sample_characteristics_ch1":
                pairs = [value.partition(": ") for value in values]
                columns[pairs[0][0]] = [value for _, _, value in pairs]
    return pd.DataFrame(columns, index=titles)


def _prepare_lupus(cells, target):
    """Counts of unstimulated cells, added up per patient and cell type."""
    anndata = import_optional("anndata", "anndata", "Reading the single cells")
    data = anndata.read_h5ad(cells)
    missing = {"cell_type", "label", "replicate"} - set(data.obs)
    if missing:
        raise ValueError(f"GSE96583 has changed: the cells lack {sorted(missing)}. Please report this.")
    data = data[(data.obs["label"] == "ctrl") & data.obs["cell_type"].isin(LUPUS_TYPES)]
    patients = data.obs["replicate"].astype(str).str.removeprefix("patient_")
    samples = sorted(patients.unique())
    groups = [
        ((patients == sample) & (data.obs["cell_type"] == kind)).to_numpy()
        for sample in samples
        for kind in LUPUS_TYPES
    ]
    sizes = (len(samples), len(LUPUS_TYPES))
    counts = np.stack([np.asarray(data.X[group].sum(axis=0)).ravel() for group in groups]).reshape(*sizes, -1)
    counted = counts.mean(axis=(0, 1)) >= COUNTED
    counts = counts[..., counted]
    totals = counts.sum(axis=2, dtype=np.float64)
    shares, cse = totals / totals.sum(axis=1, keepdims=True), counts / totals[..., None] * 1e6
    np.savez_compressed(
        target,
        bulk=np.einsum("jk,jkg->jg", shares, cse),
        cse=cse.astype(np.float32),
        theta=shares,
        n_cells=np.array([group.sum() for group in groups]).reshape(sizes),
        samples=np.array(samples),
        types=np.array(LUPUS_TYPES),
        genes=data.var_names[counted].to_numpy(dtype=str),
    )
