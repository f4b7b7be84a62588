"""Cohorts whose rows are on the workers of a dask cluster; dask itself is imported by whoever uses it, never here."""

import sys


def active_client():
    """The client of a dask cluster that is in use, None if there is none; dask is not imported to find out.

    Within a task of a cluster there is none: its worker would wait for itself.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        distributed.get_worker()
    except ValueError:
        pass
    else:
        return None
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return None if client.asynchronous else client
