"""Contents from the folder of a run."""

import shlex
from dataclasses import dataclass
from functools import cached_property, partial

from .._stored import POSTERIOR
from ..io._fitted import read_fitted
from ..io._records import RECORD
from ..io._runs import DIFFERENTIAL, HISTORY, PROPORTIONS, PROPORTIONS_STD, QUALITY, RELIABILITY
from ._common import matched, read_groups, read_if_there, read_test, recorded_phenotype, texts
from ._contents import Contents
from ._expression import summarise
from ._sources import TableSource


def from_run(run, X, phenotype, test):
    record, missing = run.record, []
    result = record["result"]
    proportions, quality = run.table(PROPORTIONS), run.table(QUALITY)
    if proportions is None:
        raise ValueError(f"{run.path} lists no {PROPORTIONS}: there is nothing to report on.")
    stored = run.path / "differential"
    if test is None and (stored / DIFFERENTIAL).is_file():
        test = read_test(stored)
    if phenotype is None and test is not None and (stored / RECORD).is_file():
        phenotype = recorded_phenotype(stored, proportions.index, missing)
    groups = read_groups(phenotype, proportions.index)
    # paths of inputs have a place of their own on the page
    options = {name: value for name, value in record["options"].items() if name not in record["inputs"]}
    own = options.pop("parameters", {})
    return Contents(
        proportions=proportions,
        proportions_std=run.table(PROPORTIONS_STD),
        shares_of=result.get("shares_of"),
        groups=groups,
        expression=_expression_of_run(run, proportions, X, test, missing),
        test=test,
        history=run.table(HISTORY),
        quality=quality,
        facts=_facts(record),
        model=result.get("model"),
        parameters={**_chosen(record), **texts({**options, **own}), **texts(result.get("resolved", {}))},
        versions=texts(record["versions"]),
        inputs={
            name: f"{entry['path']} (SHA-256 {entry['sha256']})" for name, entry in record["inputs"].items()
        },
        commands=_commands(run, stored),
        warnings=record["warnings"],
        missing=missing,
        converged=result.get("converged"),
    )


def _facts(record):
    """What the page says of a run first."""
    result, understood = record["result"], record["understood"]
    return {
        "samples": f"{understood['n_samples']:,}",
        "genes in use": f"{understood['n_genes_shared']:,}",
        "cell types": f"{len(understood['cell_types']):,}",
        "model": result.get("model", f"proportions by {result.get('method')}"),
        "date": record["date"][:10],
    }


def _chosen(record):
    """Why the run took its model and its scale, where it says so."""
    scale = record["understood"].get("one_scale", {})
    total = scale.get("total")
    done = "as they are" if total is None else f"to a total of {total:,.10g}"
    found = {
        "why this model": record["result"].get("chosen"),
        "scale of bulk and reference": f"{done}: {scale['reason']}" if "reason" in scale else None,
    }
    return {name: text for name, text in found.items() if text}


def _expression_of_run(run, proportions, X, test, missing):
    """Summary of the expression that a run wrote, None where it wrote none."""
    record = run.record
    files = record["files"].get("expression")
    if not files:
        return None
    tables = _RunTables(run)
    types = list(files) if isinstance(files, dict) else list(tables.layers("expression"))
    parameters = record["options"].get("parameters", {})
    # deviations of the posterior are normal on the logarithmic scale
    scale = "log" if record["result"].get("model") == POSTERIOR else parameters.get("preprocess")
    source = TableSource(tables.read, types, scale)
    bulk = _input_of(run, "bulk", source.genes, missing) if X is None else X
    reference = _input_of(run, "reference", source.genes, missing)
    reliability = run.table(RELIABILITY)
    return summarise(
        source,
        proportions,
        bulk=matched(bulk, proportions.index, source.genes, "bulk"),
        reference=reference,
        reliability=None if reliability is None else reliability.T.loc[types, source.genes],
        differential=None if test is None else test.table,
    )


@dataclass(frozen=True)
class _RunTables:
    """Tables of expression in the folder of a run, read when they are asked for."""

    run: object

    def read(self, kind, cell_type):
        """A table of samples × genes, None where the run wrote none."""
        kind = {"values": "expression", "std": "expression_std"}[kind]
        files = self.run.record["files"].get(kind)
        if files is None:
            return None
        if isinstance(files, str):
            return self.layers(kind)[cell_type]
        return self.run.cell_type_table(cell_type, kind)

    def layers(self, kind):
        """All cell types of one file."""
        return self._layers[kind]

    @cached_property
    def _layers(self):
        kinds = [kind for kind in ("expression", "expression_std") if kind in self.run.record["files"]]
        return {kind: self.run.expression(kind) for kind in kinds}


def _input_of(run, name, genes, missing):
    """Bulk or reference as it was fitted, None where the file is not there any more, or is another one."""
    path = run.record["inputs"][name]["path"]
    return read_if_there(partial(read_fitted, run, name, path, genes), path, name, missing)


def _commands(run, tested):
    """Command lines that repeat a run, and the test on it."""
    command = run.record["command"]
    lines = [shlex.join(["skenigma", command, "--from", str(run.path / RECORD), "--out", "again"])]
    if (tested / RECORD).is_file():
        lines.append(
            shlex.join(["skenigma", "differential", "--from", str(tested / RECORD), "--out", "again_tested"])
        )
    return lines
