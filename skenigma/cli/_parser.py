"""The parser of the command line."""

import argparse
import sys

from .._version import __version__
from . import _deconvolve, _differential, _proportions, _reference, _report, _simulate
from ._options import add_messages
from ._streams import visible

COMMANDS = {
    command.NAME: command
    for command in (_reference, _proportions, _deconvolve, _differential, _simulate, _report)
}
DESCRIPTION = """\
Cell-type proportions and cell-type-specific expression from bulk RNA-seq, by the ENIGMA method."""
EPILOG = """\
exit codes:
  0    all went well
  1    the data or the machine did not allow it: one line on stderr says why, and where results are, if any
  2    the command was not understood
  3    a repeat (--from) was written, but differs from the recorded run
  130  interrupted (Ctrl-C), 143 terminated; the line says whether the results were complete

a first run:
  skenigma simulate --out cohort
  skenigma deconvolve --bulk cohort/bulk.tsv --reference cohort/reference.tsv --out run
  skenigma differential run --phenotype cohort/phenotype.tsv
  skenigma report run"""


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message):
        """Say what was wrong, and where help is."""
        message = visible(" ".join(message.split()))
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser(width=None):
    """The parser of all commands.

    Parameters
    ----------
    width : int, default=None
        Columns of the help; None is what the terminal has, at most 100.
    """

    def formatter(prog):
        fits = width or min(100, argparse.HelpFormatter(prog)._width)
        return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=fits)

    style = {"formatter_class": formatter, "allow_abbrev": False}
    if sys.version_info >= (3, 14):
        style["color"] = False if width else None
    parser = Parser(prog="skenigma", description=DESCRIPTION, epilog=EPILOG, **style)
    parser.add_argument("--version", action="version", version=f"skenigma {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True)
    for name, command in COMMANDS.items():
        child = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=command.EXAMPLES,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            usage=f"skenigma {name} {command.USAGE} [options]",
            **style,
        )
        command.add_options(child)
        add_messages(child)
    return parser


def help_texts(width=100):
    """What ``--help`` prints, of the whole and of each command, for documentation.

    Parameters
    ----------
    width : int, default=100
        Columns.

    Returns
    -------
    texts : dict of str to str
        By command; "skenigma" is the whole.

    Examples
    --------
    >>> from skenigma.cli import help_texts
    >>> sorted(help_texts())
    ['deconvolve', 'differential', 'proportions', 'reference', 'report', 'simulate', 'skenigma']
    """
    parser = build_parser(width)
    (commands,) = (
        action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        "skenigma": parser.format_help(),
        **{name: child.format_help() for name, child in commands.items()},
    }
