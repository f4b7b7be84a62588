"""A bulk of known proportions, by the reference and the SAMPLES of each module."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def truth(request, reference):
    samples = request.module.SAMPLES
    values = np.random.default_rng(1).dirichlet(np.full(len(reference), 3.0), len(samples))
    return pd.DataFrame(values, index=samples, columns=reference.index)


@pytest.fixture(scope="module")
def bulk(reference, truth):
    return truth @ reference * np.random.default_rng(2).gamma(50, 0.02, (len(truth), reference.shape[1]))
