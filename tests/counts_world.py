"""A whole experiment on counts with a known answer: annotated cells, and a bulk of another platform."""

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

N_GENES, N_CELLS, N_SAMPLES, N_TYPES = 3000, 2400, 60, 8
# Markers of each type are higher in it, and lower in the others, by powers of e.
N_MARKERS, HIGHER, LOWER = 40, 2.0, -1.0
# Concentrations of the shares of RNA: common types and a rare one.
CONCENTRATIONS = (9, 7, 5, 4, 3, 2, 1.5, 1)


@dataclass(frozen=True)
class World:
    """What is measured, and what is true.

    Attributes
    ----------
    cells : AnnData
        Counts, with the column "cell_type".
    bulk : AnnData
        Counts, library sizes five apart.
    truth : ndarray of shape (n_samples, n_cell_types, n_genes)
        Expression per million on the platform of the bulk.
    shares : ndarray of shape (n_samples, n_cell_types)
        Shares of RNA.
    types : list of str
    """

    cells: anndata.AnnData
    bulk: anndata.AnnData
    truth: np.ndarray
    shares: np.ndarray
    types: list


def make_world(seed):
    """Profiles, cells and samples drawn from them; the bulk differs by a factor per gene, and programs vary."""
    rng = np.random.default_rng(seed)
    types = [f"type{k}" for k in range(N_TYPES)]
    genes = [f"G{g:04d}" for g in range(N_GENES)]
    profiles = _profiles(rng)
    truth = _expression(rng, profiles)
    shares = rng.dirichlet(CONCENTRATIONS, N_SAMPLES)
    depths = np.exp(rng.uniform(np.log(2e6), np.log(1e7), N_SAMPLES))
    rates = np.einsum("jk,jkg->jg", shares, truth) * depths[:, None]
    bulk = rng.poisson(rates * rng.gamma(100, 0.01, rates.shape)).astype(np.float32)
    samples = pd.DataFrame(index=[f"sample{j}" for j in range(N_SAMPLES)])
    return World(
        _cells(rng, profiles, types, genes),
        anndata.AnnData(bulk, samples, pd.DataFrame(index=genes)),
        truth * 1e6,
        shares,
        types,
    )


def _profiles(rng):
    """Logarithms of the profiles, with markers."""
    profiles = rng.normal(0, 1.6, N_GENES) + rng.normal(0, 0.6, (N_TYPES, N_GENES))
    for k in range(N_TYPES):
        markers = rng.choice(N_GENES, N_MARKERS, replace=False)
        profiles[:, markers] += LOWER
        profiles[k, markers] += HIGHER - LOWER
    return profiles


def _expression(rng, profiles):
    """Shares of RNA by gene, of every type in every sample: two programs per type, noise, and the platform."""
    programs = rng.normal(0, 0.6, (N_TYPES, 2, N_GENES)) * (rng.random((N_TYPES, 2, N_GENES)) < 0.1)
    activity = rng.normal(0, 1, (N_SAMPLES, N_TYPES, 2))
    logarithms = profiles + np.einsum("jkp,kpg->jkg", activity, programs)
    logarithms += rng.normal(0, 0.25, logarithms.shape) + rng.normal(0, 0.3, N_GENES)
    expression = np.exp(logarithms)
    return expression / expression.sum(axis=2, keepdims=True)


def _cells(rng, profiles, types, genes):
    """Some 2,400 unique molecules per cell, overdispersed."""
    kinds = rng.choice(N_TYPES, N_CELLS)
    shares = np.exp(profiles)
    shares /= shares.sum(axis=1, keepdims=True)
    sizes = np.exp(rng.normal(7.8, 0.4, N_CELLS))[:, None]
    counts = rng.poisson(shares[kinds] * sizes * rng.gamma(4, 0.25, (N_CELLS, N_GENES)))
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical([types[k] for k in kinds])}, [f"c{i}" for i in range(N_CELLS)]
    )
    return anndata.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs, pd.DataFrame(index=genes))
