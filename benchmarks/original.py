"""The original R code as a contestant: run where a user has it, and as recorded elsewhere."""

import json
import pathlib
import shutil
import subprocess
import tempfile

import pandas as pd

from .data import data_folder
from .harness import Contestant

# Arguments: folder of the inputs, then the scripts to source, in this order. The inputs are read before the clock
# runs (R evaluates arguments where they are used), under names that no script is likely to use.
PROGRAM = """
benchmark_arguments <- commandArgs(trailingOnly = TRUE)
benchmark_inputs <- lapply(c(X = "bulk", theta = "proportions", R = "reference"), function(name) {
  as.matrix(read.csv(file.path(benchmark_arguments[1], paste0(name, ".csv")), row.names = 1))
})
for (benchmark_script in benchmark_arguments[-1]) source(benchmark_script)
benchmark_time <- system.time(cell_deconvolve(
  X = benchmark_inputs$X, theta = benchmark_inputs$theta, R = benchmark_inputs$R, epsilon = 0.001, alpha = 0.1,
  beta = 50, tao_k = 1, max.iter = 1000, verbose = FALSE, Normalize = FALSE, pos = FALSE
))
cat("\nseconds", benchmark_time[["elapsed"]], "\n")
"""


class Original:
    """The original R code.

    Parameters
    ----------
    scripts : sequence of path
        Scripts that define its function ``cell_deconvolve``, in the order in which to source them.
    folder : path or None
        Recorded timings; None looks where the environment says, and beside the checkout.
    """

    def __init__(self, scripts=(), folder=None):
        self.scripts = [str(pathlib.Path(script).resolve(strict=True)) for script in scripts]
        self.program = shutil.which("Rscript")
        if self.scripts and not self.program:
            raise FileNotFoundError("--r-script needs Rscript, which is not on the path.")
        self.folder = pathlib.Path(folder or data_folder() / "reference")

    def run(self, cohort):
        """The published call on ``cohort``, as a list of no or one contestant."""
        if not self.scripts:
            return []
        name = f"original, {pathlib.Path(self.scripts[-1]).name}"
        note = "R's own clock, without start and loading"
        return [Contestant(name, lambda: self._seconds(cohort), reports=True, note=note)]

    def _seconds(self, cohort):
        with tempfile.TemporaryDirectory() as folder:
            write_inputs(cohort, pathlib.Path(folder))
            program = pathlib.Path(folder, "program.R")
            program.write_text(PROGRAM, encoding="utf-8")
            command = [self.program, program, folder, *self.scripts]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("seconds")]
        return float(line.split()[1])

    def recorded(self, run, shape, n_iter):
        """Recorded time per iteration times ``n_iter``, as a list of no or one contestant.

        Parameters
        ----------
        run : str
            Name of the recorded run.
        shape : tuple
            Genes, samples, cell types.
        n_iter : int
            Iterations to stand for.
        """
        found = self._published(run) if shape == (1000, 100, 5) else self._large(run, shape, "iter_cpu_s")
        if found is None:
            return []
        note = f"recorded on another run, on other data of this size: {found:.3g} s of CPU per iteration"
        seconds = found * n_iter
        return [Contestant("original, recorded", lambda: seconds, reports=True, once=True, note=note)]

    def recorded_memory(self, run, shape):
        """Recorded peak memory in megabytes, as a list of no or one contestant."""
        found = self._large(run, shape, "peak_rss_mib")
        if found is None:
            return []
        note, megabytes = "recorded on another run: the whole process, float64", found * 1.048576
        return [Contestant("original, recorded", lambda: megabytes, reports=True, once=True, note=note)]

    def _published(self, run):
        """Seconds of CPU per iteration on the published data."""
        entry = self._read("vignette/manifest.json").get("runs", {}).get(run)
        return entry and entry["solver_user_s"] / entry["n_loss_rows"]

    def _large(self, run, shape, figure):
        sizes = self._read("r_timings.json").get("big", {})
        entry = sizes.get("{}x{}x{}".format(*shape), {}).get(run)
        return entry and entry["median_1_thread"][figure]

    def _read(self, name):
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_inputs(cohort, folder):
    """Bulk, reference and proportions as the original wants them: genes as rows, everything named."""
    samples, genes, cell_types = cohort.sample_names, cohort.gene_names, cohort.cell_types
    tables = {
        "bulk": pd.DataFrame(cohort.bulk.T, genes, samples),
        "reference": pd.DataFrame(cohort.reference.T, genes, cell_types),
        "proportions": pd.DataFrame(cohort.proportions, samples, cell_types),
    }
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", float_format="%.17g")
