"""Files of public data, kept in one folder after the first use."""

import os
import pathlib
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from .._typing import PathLike

VARIABLE = "SKENIGMA_DATA_HOME"
SECONDS = 60


def data_home(folder: PathLike | None = None) -> Path:
    """Folder in which public data are kept.

    Parameters
    ----------
    folder : str or path-like, default=None
        The folder; None is the one that the environment variable ``SKENIGMA_DATA_HOME`` names, or else
        ``skenigma_data`` in the user's home. It need not exist.

    Returns
    -------
    folder : pathlib.Path
        Made when the first data are kept in it.

    Examples
    --------
    >>> from skenigma.datasets import data_home
    >>> data_home("data").name
    'data'
    """
    return pathlib.Path(folder or os.environ.get(VARIABLE) or "~/skenigma_data").expanduser()


def kept(name, prepare, sources, folder, download_if_missing):
    """Path of a prepared file, which is made from downloads where it is not there yet.

    Parameters
    ----------
    name : str
        File name.
    prepare : callable
        Takes the paths of the downloads and the path at which to write the file.
    sources : list of str
        Addresses of the downloads.
    folder : str, path-like or None
        See :func:`data_home`.
    download_if_missing : bool

    Raises
    ------
    OSError
        If the file is not there and cannot be, or must not be, downloaded.
    """
    folder = data_home(folder)
    path = folder / name
    if path.exists():
        return path
    if not download_if_missing:
        raise OSError(f"{path} is not there, and download_if_missing=False.")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        work = pathlib.Path(work)
        downloads = [_download(source, work / f"{i}", path) for i, source in enumerate(sources)]
        # under another name until it is whole: what bears the name of the file can be relied on
        prepare(*downloads, work / name)
        (work / name).replace(path)
    return path


def _download(address, target, wanted):
    """Fetch one address to a file."""
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer, target.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise OSError(
            f"{wanted} is not there, and {address} could not be downloaded: {getattr(error, 'reason', error)}. "
            f"Where there is no network, copy the folder of a machine that has one, and name it by data_home or by "
            f"the environment variable {VARIABLE}."
        ) from error
    return target
