"""The parser of the command line."""

import argparse
import sys
from importlib import import_module

from .._version import __version__
from ._options import add_messages
from ._streams import visible

# What each command does, in a line: here, because the list of commands loads none of them.
SUMMARIES = {
    "reference": "make the profiles of a reference from annotated single cells",
    "batch": "correct for differences between the platforms of bulk and reference",
    "proportions": "estimate how much of each cell type every sample contains",
    "deconvolve": "estimate what every cell type expresses in every single sample",
    "transform": "estimate the expression of new samples with an earlier run",
    "reliability": "say how far to trust each gene in each cell type",
    "differential": "find genes that differ between groups, by cell type",
    "simulate": "simulate a cohort whose cell-type-specific expression is known",
    "report": "write a report on a run as a web page",
}
DESCRIPTION = """\
Cell-type proportions and cell-type-specific expression from bulk RNA-seq, by the ENIGMA method and by newer ones."""
EPILOG = """\
exit codes:
  0    all went well
  1    the data or the machine did not allow the run: one line on stderr says why, and where results are, if any
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


class CommandParser(Parser):
    """Parser of one command, which is loaded when there is something to parse, or help is asked for."""

    command = None

    def load(self, name):
        """Take texts and options from the module of a command."""
        self.command = find_command(name)
        self.description, self.epilog = self.command.DESCRIPTION, self.command.EXAMPLES
        self.usage = f"skenigma {name} {self.command.USAGE} [options]"
        self.command.add_options(self)
        add_messages(self)

    def parse_known_args(self, args=None, namespace=None):
        """Parse, as argparse calls it for the command that it met."""
        self.loaded()
        return super().parse_known_args(args, namespace)

    def format_help(self):
        """What ``--help`` prints."""
        self.loaded()
        return super().format_help()

    def loaded(self):
        """The parser, its options in place."""
        if self.command is None:
            self.load(self.prog.split()[-1])
        return self


def find_command(name):
    """The module of a command."""
    return import_module(f"{__package__}._{name}")


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

    # no abbreviations: with the next option, one that works today may be ambiguous
    style = {"formatter_class": formatter, "allow_abbrev": False}
    if sys.version_info >= (3, 14):
        # texts of a given width go into documentation, where colours would be codes
        style["color"] = False if width else None
    parser = Parser(prog="skenigma", description=DESCRIPTION, epilog=EPILOG, **style)
    parser.add_argument("--version", action="version", version=f"skenigma {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True, parser_class=CommandParser
    )
    for name, summary in SUMMARIES.items():
        # what is not given stays away: only then can it be told from defaults and recorded options
        commands.add_parser(name, help=summary, argument_default=argparse.SUPPRESS, add_help=False, **style)
    return parser


def help_texts(width: int = 100) -> dict[str, str]:
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
    >>> sorted(help_texts())[:4]
    ['batch', 'deconvolve', 'differential', 'proportions']
    """
    parser = build_parser(width)
    (commands,) = (
        action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)
    )
    return {
        "skenigma": parser.format_help(),
        **{name: child.format_help() for name, child in commands.items()},
    }
