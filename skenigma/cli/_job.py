"""One run: options and inputs in, a folder with results and ``run.json`` out, whole or not at all."""

import datetime
import os
import platform
import re
import sys
import unicodedata
from importlib import import_module
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import scipy
import sklearn

from .._version import __version__
from ..checks.validation import limit_blas_threads
from ..io import file_checksum, read_run, staged_folder, write_table
from ..io._checksums import watched_readings
from ..io._engines import PANDAS, available_writer, chosen_writer
from ..io._inputs import check_input, input_entry
from ..io._journal import Remedies
from ..io._records import RECORD_VERSION
from ..io._staging import hidden_complete
from ..io._stores import write_store
from ._level import level_text
from ._memory import Budget
from ._record import write_record
from ._repeat import FREE, recorded_options
from ._usage import UsageError

# Exit code of a repeat whose files differ: it has run to its end, unlike what ends by 1 or 2.
REPEAT_DIFFERS = 3
REMEDIES = Remedies("repeat the command", "--force")
# Bytes of the name of a file, its end not counted: less than any file system allows.
LONGEST_NAME = 120
# Names that are devices on Windows, with any end.
DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10)),
}


class Job:
    """What a command works with.

    Attributes
    ----------
    options : dict
        All options with their values; a command may complete them, and they go into the record.
    folder : Path
        Where to write.
    console : Console
    understood, result, files, seeds : dict
        For the record, filled by the command.
    stores : dict of str to Path
        Stores that are to be moved into the folder, by their names there.
    budget : Budget
    """

    def __init__(self, options, folder, console):
        self.options, self.folder, self.console = options, folder, console
        self.understood, self.result, self.files, self.seeds = {}, {}, {}, {}
        self.stores, self.budget = {}, Budget(options.get("memory"))

    def write(self, frame, name):
        """Write a table into the folder."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        write_table(frame, path)

    def write_store(self, plan, name, progress):
        """Write a store beside the folder: a folder that is not whole is removed, and the store must outlive that."""
        out = Path(os.path.realpath(self.options["out"]))
        path = out.with_name(f"{out.name}.{name}")
        self.console.keeps(path)
        other = "replace" if self.options["force"] else "refuse"
        write_store(
            plan, path, max_bytes=self.budget.written, other=other, progress=progress, remedies=REMEDIES
        )
        self.stores[name] = path

    def take_stores(self):
        """Move the stores into the folder."""
        for name, path in self.stores.items():
            os.rename(path, self.folder / name)
        self.console.keeps(None)


def execute(command, given, console):
    """Run a command: check, compute, write, record.

    Parameters
    ----------
    command : module
        One of the commands that write a folder.
    given : dict
        Options on the command line.
    console : Console

    Returns
    -------
    code : int
        Exit code.
    summary : dict
        For ``--json``.
    """
    repeated = read_run(given["from_run"]) if "from_run" in given else None
    options = _resolve(command, given, repeated)
    writer = repeated.record.get("writer", PANDAS) if repeated else available_writer()
    with chosen_writer(writer):
        return _execute(command, given, options, repeated, writer, console)


def _execute(command, given, options, repeated, writer, console):
    """The run itself, of options that are complete."""
    inputs = {name: Path(options[name]).absolute() for name in command.INPUTS if options.get(name)}
    out = Path(options["out"]).absolute()
    # with --force an earlier run is replaced, but never one that holds what is read here
    keep = [*inputs.values(), *([given["from_run"]] if repeated else [])]
    for left in hidden_complete(out):
        console.say(f"{left} holds the complete results of a run that was killed: rename it, or remove it")
    with staged_folder(out, force=options["force"], keep=keep, done=console.has_written) as folder:
        for path in inputs.values():
            check_input(path)
        if repeated:
            # before anything is computed
            _refuse_changed(_checksums(inputs), repeated)
        job = Job(options, folder, console)
        with watched_readings() as readings:
            limit_blas_threads(limits=options.get("threads", 1), user_api="blas")(command.run)(job)
        recorded_inputs = {name: input_entry(path, readings) for name, path in inputs.items()}
        if repeated:
            # and what has been read indeed: a file may have changed since
            _refuse_changed(recorded_inputs, repeated)
        record = _record(command, job, recorded_inputs, writer)
        write_record(record, folder)
        job.take_stores()
    code = _compare(record, repeated, console) if repeated else 0
    console.say(f"{_sentence(record)} written to {options['out']}{level_text(job.result)}")
    summary = {
        key: record[key] for key in ("command", "understood", "result", "warnings", "files", "outputs")
    }
    return code, {"out": str(out), **summary}


def _resolve(command, given, repeated):
    """All options: those given, else those of the repeated run, else the defaults."""
    if repeated is None:
        options = {**command.DEFAULTS, **given}
    else:
        _check_repeat(command, given, repeated)
        # a record of an older version lacks options that came later, and their defaults are not what it did
        before = getattr(command, "BEFORE", {})
        options = {**command.DEFAULTS, **before, **recorded_options(command, repeated, given), **given}
    options = {"force": False, **options}
    _need(options, command.REQUIRED)
    if repeated:  # nobody but the user says where to write
        _need(given, ["out"])
    options = _check_options(command, options, repeated)
    _need(options, ["out"])
    return options


def _check_options(command, options, repeated):
    try:
        return command.check(options)
    except UsageError as error:
        if repeated is None:
            raise
        raise ValueError(f"{repeated.path / 'run.json'} cannot be repeated: {error}") from error


def _need(options, names):
    missing = ["--" + name.replace("_", "-") for name in names if not options.get(name)]
    if missing:
        raise UsageError(f"needed: {', '.join(missing)}")


def _check_repeat(command, given, repeated):
    recorded = repeated.record["command"]
    if recorded != command.NAME:
        raise UsageError(
            f"{repeated.path / 'run.json'} is of a run of '{recorded}': skenigma {recorded} --from"
        )
    # a class must be named again by whoever trusts it; that changes nothing
    same = {"model"} if given.get("model") == repeated.record["options"].get("model") else set()
    changed = sorted(set(given) - FREE - set(command.INPUTS) - same)
    if changed:
        names = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise UsageError(f"--from repeats a run as it was: leave out {names}")


def _checksums(inputs):
    """Inputs for the record, as they lie there."""
    return {name: input_entry(path) for name, path in inputs.items()}


def _refuse_changed(inputs, repeated):
    for name, recorded in repeated.record["inputs"].items():
        if name not in inputs or inputs[name]["sha256"] != recorded["sha256"]:
            path = inputs.get(name, recorded)["path"]
            raise ValueError(
                f"{path} is not the {name} of the recorded run, its SHA-256 differs: "
                f"a repeat needs the same file. If it was moved, say where it is with --{name.replace('_', '-')}."
            )


def _record(command, job, inputs, writer):
    options = {name: value for name, value in job.options.items() if name not in FREE}
    options.update((name, entry["path"]) for name, entry in inputs.items())
    return {
        "skenigma_run": RECORD_VERSION,
        "command": command.NAME,
        "date": _now(),
        "argv": sys.argv,
        "versions": _versions(writer),
        "writer": writer,
        "options": options,
        "seeds": job.seeds,
        "inputs": inputs,
        "understood": job.understood,
        "result": job.result,
        "warnings": job.console.warnings,
        "files": job.files,
        "outputs": {
            path.relative_to(job.folder).as_posix(): {
                "size": path.stat().st_size,
                "sha256": file_checksum(path),
            }
            for path in sorted(job.folder.rglob("*"))
            if path.is_file()
        }
        | {name: _checksum_of_store(path) for name, path in job.stores.items()},
    }


def _checksum_of_store(path):
    entry = input_entry(path)
    return {name: entry[name] for name in ("size", "sha256")}


def _now():
    """Date of the record; SOURCE_DATE_EPOCH, where set, makes it repeatable as well."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.timezone.utc)
    if epoch:
        now = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    return now.isoformat(timespec="seconds")


def _versions(writer):
    packages = [np, scipy, pd, sklearn, joblib] + ([import_module(writer)] if writer != PANDAS else [])
    return {
        "skenigma": __version__,
        "python": platform.python_version(),
        **{package.__name__: package.__version__ for package in packages},
        "platform": platform.platform(),
    }


def _compare(record, repeated, console):
    """Exit code of a repeat: whether its files have the bytes of the recorded ones."""
    old, new = repeated.record["outputs"], record["outputs"]
    different = sorted(
        name
        for name in old.keys() | new.keys()
        if old.get(name, {}).get("sha256") != new.get(name, {}).get("sha256")
    )
    if not different:
        console.say(f"all {len(new)} files have the same bytes as in the recorded run")
        return 0
    # other versions of packages are the usual cause
    versions = [
        f"{name} {repeated.record['versions'].get(name)} then, {version} now"
        for name, version in record["versions"].items()
        if repeated.record["versions"].get(name) != version
    ]
    console.warn(
        f"{len(different)} of {len(new)} files differ from the recorded run: {', '.join(different[:5])}. "
        + ("; ".join(versions) or "The versions are the same")
        + "."
    )
    return REPEAT_DIFFERS


def _sentence(record):
    count = len(record["outputs"])
    return f"{count} file{'' if count == 1 else 's'} and run.json"


def file_names(names, end):
    """A distinct file name for each name, also where upper and lower case are one, and of a length that all allow."""
    files, taken = {}, set()
    for name in names:
        # names come from tables, and must lead out of no folder
        base = re.sub(r"[^\w.+-]+", "_", str(name)).strip("._") or "unnamed"
        # file systems count bytes, not letters
        while len(base.encode("utf-8", "replace")) > LONGEST_NAME:
            base = base[:-1]
        if base.split(".")[0].lower() in DEVICES:
            base = f"_{base}"
        file, number = base, 2
        while _folded(file) in taken:
            file, number = f"{base}_{number}", number + 1
        taken.add(_folded(file))
        files[name] = file + end
    return files


def _folded(name):
    """What is the same for names that some file system takes for one."""
    return unicodedata.normalize("NFKC", name).casefold()
