"""Expression and colours that only files or layers remain of."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from skenigma import FactorDeconvolver
from skenigma._stored import bounds


@pytest.mark.parametrize("scale", [None, "sqrt", "log"])
def test_bounds_from_files_are_those_of_the_model(scale):
    rng = np.random.default_rng(0)
    reference = rng.gamma(2, 50, (2, 40)) + 20
    theta = rng.dirichlet([4, 4], 20)
    bulk = np.einsum("jk,jkg->jg", theta, reference * rng.lognormal(0, 0.1, (20, 2, 40)))
    if scale is None:  # which is for values that may be negative
        bulk, reference = bulk - bulk.mean(axis=0), reference - reference.mean(axis=0)
    fitted = FactorDeconvolver(reference, preprocess=scale).fit(bulk, proportions=theta).expression_
    low, high = fitted.interval(0.95)
    found = bounds(fitted.values(), fitted.std(), scale, 0.95)
    # where a deviation does not reach below 0; there the two mirror it in different ways
    clear = (scale is None) | (fitted.values() > 4 * fitted.std())
    assert np.mean(clear) > 0.5
    assert_allclose(found[0][clear], low[clear], rtol=1e-7)
    assert_allclose(found[1][clear], high[clear], rtol=1e-7)
