"""Optional dependencies, imported where they are used, with a plain word where they are missing."""

from importlib import import_module


def import_optional(module, extra, purpose):
    """Import what an extra of this package installs.

    Parameters
    ----------
    module : str
        Full name of the module to import.
    extra : str
        Extra that installs it.
    purpose : str
        What it is needed for: the subject of the message.

    Returns
    -------
    module : module

    Raises
    ------
    ImportError
        If it is not installed; the message names the extra.
    """
    package = module.partition(".")[0]
    try:
        import_module(package)  # a module of it may have been imported before the package was hidden
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {package}: pip install 'skenigma[{extra}]'") from error
