"""Contents of a page from whatever it is on."""

from pathlib import Path

from ..checks.tables import is_anndata
from ..io import read_run
from ._common import check_differential, read_test, test_of
from ._from_anndata import from_anndata
from ._from_model import from_model
from ._from_run import from_run


def gather(source, *, X=None, phenotype=None, differential=None, key="skenigma"):
    """Contents from a run's folder, its path, a fitted model or an AnnData."""
    if isinstance(source, (str, Path)):
        source = read_run(source)
    if isinstance(differential, (str, Path)):
        differential = read_test(Path(differential))
    elif differential is not None:
        differential = test_of(check_differential(differential, "differential"))
    if hasattr(source, "record"):
        return from_run(source, X, phenotype, differential)
    if is_anndata(source):
        return from_anndata(source, X, phenotype, differential, key)
    return from_model(source, X, phenotype, differential)
