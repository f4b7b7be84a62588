"""The BLAS on one thread, and as it was afterwards."""

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from skenigma.checks.validation import few_blas_threads


def threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_within_another_and_after_an_error():
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        with pytest.raises(KeyError), few_blas_threads(True):  # noqa: PT012 - the error is not the point
            with few_blas_threads(True):
                assert threads() == {1}
            assert threads() == {1}
            raise KeyError
        assert threads() == before
        with few_blas_threads(True):
            assert threads() == {1}
        with few_blas_threads(False):
            assert threads() == before
