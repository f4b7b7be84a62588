"""What commands have in common that go on from an earlier run."""

from ..checks.names import listing
from ..io import read_run
from ._usage import UsageError


def check_run(options, *commands):
    """The run that an option names, which becomes its record; a UsageError if it is of none of these commands."""
    run = read_run(options["run"])
    command = run.record["command"]
    if command not in commands:
        allowed = " or ".join(f"'{name}'" for name in commands)
        raise UsageError(f"{run.path} is a run of '{command}': give one of {allowed}")
    # what a record names must not depend on the folder that the command is repeated in
    options["run"] = str(run.path / "run.json")
    return run


def fill_in_inputs(options, run, inputs):
    """Inputs are where the run had them, unless an option says where they are now; ``inputs`` by their options."""
    for option, name in inputs.items():
        options[option] = options[option] or run.record["inputs"][name]["path"]


def refuse_lacking(path, table, genes, of):
    """Refuse new samples that lack some of the genes that an earlier step used; ``of`` says what has these."""
    missing = genes.difference(table.columns, sort=False)
    if len(missing):
        raise ValueError(
            f"{path} lacks {len(missing)} of the {len(genes)} genes of {of}: {listing(list(missing))}. It has "
            f"{listing(list(table.columns))}."
        )
