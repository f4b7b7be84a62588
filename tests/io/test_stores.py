"""Expression in Zarr stores: what AnnData reads, what outlives a kill or a full disk, and what is never replaced."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from skenigma import EmpiricalBayesDeconvolver, FactorDeconvolver, L2MaxDeconvolver
from skenigma._stored import Deconvolved, bounds
from skenigma.anndata import cse_to_anndata
from skenigma.datasets import make_cohort
from skenigma.io import _journal, _stores
from skenigma.io._fingerprint import fingerprint
from skenigma.io._inputs import input_entry
from skenigma.io._stores import ROOTS, StoredLayers, is_store, store_files
from tests.models import MODELS

anndata = pytest.importorskip("anndata")
pytest.importorskip("zarr")

# products of fewer rows may add up in another order
SAME = {"rtol": 1e-12, "atol": 1e-14}
N_SAMPLES, N_GENES, CELL_TYPES = 9, 30, ["B", "T/NK"]
# two samples in a block, so that there are five, the last of one sample
BLOCK = 8 * 2 * N_GENES * len(CELL_TYPES)


@pytest.fixture(scope="module")
def cohort():
    cohort = make_cohort(N_SAMPLES, N_GENES, len(CELL_TYPES), random_state=0, as_frame=True)
    cohort.reference.index = CELL_TYPES
    return cohort


@pytest.fixture(scope="module")
def expression(cohort):
    return FactorDeconvolver(cohort.reference, materialize=False).fit(cohort.bulk).expression_


@pytest.fixture(scope="module")
def other(cohort):
    return FactorDeconvolver(cohort.reference, materialize=False).fit(cohort.bulk + 1).expression_


@pytest.fixture(scope="module")
def stored(expression, tmp_path_factory):
    """The expression as a store; tests that change it copy it."""
    store = tmp_path_factory.mktemp("stored") / "e.zarr"
    expression.to_zarr(store, max_bytes=BLOCK)
    return store


@pytest.fixture(scope="module")
def whole(stored):
    return contents(stored)


@pytest.fixture(scope="module")
def begun(expression, tmp_path_factory):
    """An unfinished folder with four blocks of five."""
    folder = tmp_path_factory.mktemp("begun")

    def stop(number, n_blocks):
        if number == 4:
            raise KeyboardInterrupt

    plan = _stores.plan_of(expression)
    with pytest.raises(KeyboardInterrupt):
        _stores.write_store(plan, folder / "e.zarr", max_bytes=BLOCK, progress=stop)
    return folder / "e.zarr.unfinished"


def contents(store):
    """Bytes of all files, by name."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store_files(store)}


@pytest.fixture
def watched(expression, monkeypatch):
    """The expression, the samples at which blocks of it that are built begin, and a switch that makes one fail."""
    source = expression.source
    built, fails = [], {}
    original = type(source).values

    def values(self, samples=slice(None), *others):
        rows = range(N_SAMPLES)[samples]
        if rows != range(1):  # that only asks for the type
            if rows[0] in fails:
                raise fails[rows[0]]
            built.append(rows[0])
        return original(self, samples, *others)

    monkeypatch.setattr(type(source), "values", values)
    return expression, built, fails


class TestContent:
    @pytest.mark.parametrize("max_bytes", [1, 2**26])
    def test_anndata_reads_what_the_expression_answers(self, expression, cohort, tmp_path, max_bytes):
        expression.to_zarr(tmp_path / "e.zarr", bulk=cohort.bulk, max_bytes=max_bytes)
        adata = anndata.read_zarr(tmp_path / "e.zarr")
        assert_array_equal(adata.X, cohort.bulk)
        assert list(adata.obs_names) == list(cohort.bulk.index)
        assert list(adata.var_names) == list(cohort.bulk.columns)
        assert_array_equal(adata.obs["level"], expression.level)
        for k, name in enumerate(["B", "T|NK"]):
            assert_allclose(adata.layers[f"cse_{name}"], expression.values(cell_types=[k])[:, 0], **SAME)
            assert_allclose(adata.layers[f"cse_std_{name}"], expression.std(cell_types=[k])[:, 0], **SAME)
        assert_array_equal(adata.obsm["proportions"], expression.proportions)
        assert list(adata.obsm["proportions"]) == ["B", "T|NK"]
        written = adata.uns["skenigma"]
        assert list(written["cell_types"]) == CELL_TYPES
        assert list(written["layers"]) == ["cse_B", "cse_T|NK"]
        assert list(written["std_layers"]) == ["cse_std_B", "cse_std_T|NK"]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", list(MODELS))
    def test_any_model_can_be_written_and_recognised(self, name, cohort, tmp_path):
        model = clone(MODELS[name]).set_params(reference=np.exp(0.3 * cohort.reference), materialize=False)
        first, expression = (clone(model).fit(np.exp(0.3 * cohort.bulk)).expression_ for _ in range(2))
        before = fingerprint(expression.source)
        assert fingerprint(first.source) == before
        expression.to_zarr(tmp_path / "e.zarr")
        assert fingerprint(expression.source) == before
        adata = anndata.read_zarr(tmp_path / "e.zarr")
        assert_allclose(adata.layers["cse_B"], expression.values(cell_types=["B"])[:, 0], **SAME)
        assert ("cse_std_B" in adata.layers) == expression.has_std

    def test_chunks_of_many_genes_are_bounded(self, expression, tmp_path, monkeypatch):
        monkeypatch.setattr(_stores, "CHUNK", 2 * 20)
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        layer = _stores.open_group(tmp_path / "e.zarr")["layers/cse_B"]
        assert layer.chunks == (2, 20)
        assert_allclose(layer[:], expression.values(cell_types=["B"])[:, 0], **SAME)

    def test_single_precision_stays_single(self, cohort, tmp_path):
        model = L2MaxDeconvolver(cohort.reference.astype(np.float32), renorm_size="auto")
        model.fit(cohort.bulk.astype(np.float32)).expression_.to_zarr(tmp_path / "e.zarr")
        assert anndata.read_zarr(tmp_path / "e.zarr").layers["cse_B"].dtype == np.float32

    def test_samples_without_names_are_numbered(self, cohort, tmp_path):
        model = FactorDeconvolver(cohort.reference.to_numpy()).fit(cohort.bulk.to_numpy())
        model.expression_.to_zarr(tmp_path / "e.zarr")
        assert list(anndata.read_zarr(tmp_path / "e.zarr").obs_names[:2]) == ["sample1", "sample2"]

    def test_it_is_opened_lazily(self, expression, stored):
        pytest.importorskip("xarray")
        experimental = pytest.importorskip("anndata.experimental")
        if not hasattr(experimental, "read_lazy"):
            pytest.skip("AnnData reads lazily from 0.12 on")
        adata = experimental.read_lazy(stored)
        values = np.asarray(adata.layers["cse_B"][2:5])
        assert_allclose(values, expression.values(slice(2, 5), ["B"])[:, 0], **SAME)

    def test_layers_are_read_one_at_a_time(self, expression, stored):
        layers = StoredLayers(stored)
        assert list(layers) == CELL_TYPES
        pd.testing.assert_frame_equal(layers["T/NK"], expression.to_frame("T/NK"), check_names=False)
        std = StoredLayers(stored, "cse_std_")["B"]
        assert_allclose(std, expression.std(cell_types=["B"])[:, 0], **SAME)
        with pytest.raises(KeyError):
            layers["none"]

    def test_blocks_are_told_as_they_are_written(self, expression, tmp_path):
        told = []
        plan = _stores.plan_of(expression)
        progress = lambda *numbers: told.append(numbers)  # noqa: E731
        _stores.write_store(plan, tmp_path / "e.zarr", max_bytes=BLOCK, progress=progress)
        assert told == [(number, 5) for number in range(1, 6)]


class TestReadBack:
    """What reads the AnnData of :func:`skenigma.anndata.deconvolve` reads that of a store as well."""

    @pytest.fixture
    def adata(self, stored):
        return anndata.read_zarr(stored)

    def test_rows(self, adata, expression):
        rows = cse_to_anndata(adata)
        assert_allclose(rows.X, expression.values().reshape(-1, N_GENES), **SAME)
        assert list(rows.obs["cell_type"][:2]) == CELL_TYPES
        assert rows.uns["skenigma"]["model"] == ""
        assert "scale" not in rows.uns["skenigma"]

    def test_intervals_are_on_the_scale_of_the_model(self, cohort, tmp_path):
        model = EmpiricalBayesDeconvolver(np.exp2(cohort.reference / 4))
        expression = model.fit(np.exp2(cohort.bulk / 4)).expression_
        expression.to_zarr(tmp_path / "e.zarr")
        found = Deconvolved.of(anndata.read_zarr(tmp_path / "e.zarr"), "skenigma").expression
        assert_allclose(
            found.interval(0.9), bounds(expression.values(), expression.std(), "log", 0.9), **SAME
        )

    def test_displays(self, adata, cohort):
        pytest.importorskip("matplotlib")
        from skenigma.plotting import GeneExpressionDisplay, ProportionDisplay

        shown = ProportionDisplay.from_anndata(adata)
        assert_array_equal(shown.proportions, adata.obsm["proportions"])
        assert shown.shares_of is None
        assert GeneExpressionDisplay.from_anndata(adata, 0, log_scale=False).reference is None

    def test_what_a_store_lacks_is_named(self, adata):
        found = Deconvolved.of(adata, "skenigma")
        with pytest.raises(ValueError, match=r"varm\['reference'\] is missing: .* genes × cell types"):
            found.reference  # noqa: B018
        with pytest.raises(ValueError, match="no bulk"):
            found.bulk  # noqa: B018

    @pytest.mark.parametrize("name", ["model", "params"])
    def test_older_stores_are_refused_with_what_to_do(self, adata, name):
        older = adata.copy()
        del older.uns["skenigma"][name]
        with pytest.raises(ValueError, match=rf"no entry '{name}'.* write the AnnData anew"):
            cse_to_anndata(older)


class TestResume:
    @pytest.mark.parametrize(
        "change",
        [
            {"samples": pd.Index([f"other{j}" for j in range(N_SAMPLES)])},
            {"cell_types": CELL_TYPES[:1]},
            {"cell_types": CELL_TYPES[::-1]},
            {"bulk": np.ones((N_SAMPLES, N_GENES))},
            {"tables": {"more": pd.DataFrame({"B": [0.1] * N_SAMPLES})}},
        ],
        ids=lambda change: "".join(change),
    )
    def test_whatever_is_written_is_in_the_key(self, expression, change):
        """Else blocks of one plan would be gone on with by another."""
        plan = _stores.plan_of(expression)
        assert replace(plan, **change).key() != plan.key()

    @pytest.mark.parametrize(
        "change",
        [
            {"cell_types": np.array(["B", "NK"])},
            {"gene_names": np.array([f"other{i}" for i in range(N_GENES)])},
            {"proportions": np.full((N_SAMPLES, 2), 0.5)},
            {"scale": "log"},
            {"level": np.full(N_SAMPLES, 0.5)},
        ],
        ids=lambda change: "".join(change),
    )
    def test_whatever_is_written_of_the_expression_is_in_the_key(self, expression, change):
        plan = _stores.plan_of(expression)
        assert replace(plan, expression=replace(expression, **change)).key() != plan.key()

    @pytest.mark.parametrize(
        "build", [lambda values: {"bulk": values}, lambda values: {"tables": {"more": values}}]
    )
    def test_every_value_of_what_is_written_beside_it_is_in_the_key(self, expression, build):
        one, other = (np.ones((N_SAMPLES, N_GENES)) for _ in range(2))
        other[-1, -1] = 2.0
        before, after = (_stores.plan_of(expression, **build(values)).key() for values in (one, other))
        assert before != after

    def test_another_version_may_compute_another_result(self, expression, monkeypatch):
        before = _stores.plan_of(expression).key()
        monkeypatch.setattr(_stores, "__version__", "0.0")
        assert _stores.plan_of(expression).key() != before

    def test_what_only_describes_the_fit_is_not_in_the_key(self, expression, cohort):
        described = {"about": {"model": "FactorDeconvolver"}, "reference": cohort.reference}
        assert _stores.plan_of(expression, **described).key() == _stores.plan_of(expression).key()

    @pytest.mark.parametrize("first", [2, 8])
    def test_complete_blocks_are_kept_when_the_disk_is_full(self, watched, whole, tmp_path, first):
        expression, built, fails = watched
        store = tmp_path / "e.zarr"
        built.clear()
        fails[first] = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(
            OSError, match=rf"disk is full: {first // 2} of 5 blocks .* kept in .*e\.zarr\.unf.* again"
        ):
            expression.to_zarr(store, max_bytes=BLOCK)
        assert not store.exists()
        fails.clear()
        expression.to_zarr(store, max_bytes=BLOCK)
        assert built == [0, 2, 4, 6, 8]
        assert contents(store) == whole
        assert [path.name for path in tmp_path.iterdir()] == ["e.zarr"]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
    def test_whatever_ends_it_leaves_complete_blocks(self, watched, whole, tmp_path, error):
        expression, built, fails = watched
        built.clear()
        fails[6] = error()
        with pytest.raises(error):
            expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        fails.clear()
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [0, 2, 4, 6, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_a_whole_store_is_left_as_it_is(self, watched, stored, tmp_path):
        expression, built, _ = watched
        store = shutil.copytree(stored, tmp_path / "e.zarr")
        expression.to_zarr(store)
        assert built == []
        expression.to_zarr(store, resume=False, max_bytes=BLOCK)
        assert built == [0, 2, 4, 6, 8]

    @pytest.fixture
    def cut(self, begun, watched, tmp_path):
        """The expression, the list of blocks that are built, and such an unfinished folder of its own."""
        shutil.copytree(begun, tmp_path / begun.name)
        return watched[0], watched[1], tmp_path / begun.name

    def test_blocks_that_were_damaged_since_are_written_again(self, cut, whole, tmp_path):
        expression, built, folder = cut
        (chunk,) = (folder / "result" / "layers" / "cse_B").glob("1.0")
        chunk.write_bytes(b"")
        (lost,) = (folder / "result" / "layers" / "cse_std_B").glob("2.0")
        lost.unlink()
        (folder / "result" / "layers" / "cse_B" / "0.0.abc.partial").write_bytes(b"half")
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [2, 4, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_one_value_that_was_damaged_since_is_written_again(self, cut, whole, tmp_path):
        expression, built, folder = cut
        _stores.open_group(folder / "result", "r+")["layers/cse_std_B"][3, -1] = 7.0
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [2, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_a_line_of_the_journal_that_was_cut_counts_for_nothing(self, cut, watched, whole, tmp_path):
        """Nor does it spoil the next one."""
        expression, built, folder = cut
        fails = watched[2]
        journal = folder / "journal.jsonl"
        journal.write_bytes(journal.read_bytes()[:-9])
        fails[8] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        fails.clear()
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [6, 8]
        assert contents(tmp_path / "e.zarr") == whole

    @pytest.mark.parametrize("content", [b"", b'{"skenigma_jour'])
    def test_a_journal_that_was_only_begun_begins_anew(self, cut, whole, tmp_path, content):
        expression, built, folder = cut
        (folder / "journal.jsonl").write_bytes(content)
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [0, 2, 4, 6, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_another_result_is_refused_with_what_to_do(self, cut, other, tmp_path):
        match = r"unfinished holds another result, of which 4 of 5 blocks .* resume=False"
        with pytest.raises(ValueError, match=match):
            other.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK)
        other.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK, resume=False)
        adata = anndata.read_zarr(tmp_path / "e.zarr")
        assert_allclose(adata.layers["cse_B"], other.values(cell_types=["B"])[:, 0], **SAME)

    def test_an_unfinished_store_of_another_result_is_begun_anew_where_that_is_asked_for(
        self, cut, watched, whole, tmp_path
    ):
        """As by --force; and what is interrupted then goes on."""
        expression, built, folder = cut
        fails, plan = watched[2], _stores.plan_of(expression)
        journal = folder / "journal.jsonl"
        journal.write_text(journal.read_text().replace('"key": "', '"key": "0'))
        fails[4] = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            _stores.write_store(plan, tmp_path / "e.zarr", max_bytes=BLOCK, other="replace")
        fails.clear()
        _stores.write_store(plan, tmp_path / "e.zarr", max_bytes=BLOCK)
        assert built == [0, 2, 4, 6, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_an_unfinished_store_is_begun_anew_where_that_is_asked_for(self, cut, whole, tmp_path):
        expression, built, _ = cut
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=BLOCK, resume=False)
        assert built == [0, 2, 4, 6, 8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_smaller_blocks_are_refused_and_larger_ones_go_on(self, cut, whole, tmp_path):
        expression, built, _ = cut
        with pytest.raises(
            ValueError, match=r"begun with blocks of 2 samples, .* more memory than the 1 asked"
        ):
            expression.to_zarr(tmp_path / "e.zarr", max_bytes=1)
        expression.to_zarr(tmp_path / "e.zarr", max_bytes=10 * BLOCK)
        assert built == [8]
        assert contents(tmp_path / "e.zarr") == whole

    def test_readers_are_told_that_it_is_unfinished(self, cut, tmp_path):
        with pytest.raises(
            ValueError, match=r"e\.zarr is not complete: 4 of 5 blocks are written in .*unfinished"
        ):
            StoredLayers(tmp_path / "e.zarr")

    def test_a_whole_store_is_read_while_another_is_written_in_its_place(self, cut, stored, tmp_path):
        layers = StoredLayers(shutil.copytree(stored, tmp_path / "e.zarr"))
        pd.testing.assert_frame_equal(layers["B"], cut[0].to_frame("B"), check_names=False)

    def test_what_is_left_of_a_whole_store_is_removed(self, cut, stored, tmp_path):
        """As of a process that was killed when the store had its name already."""
        expression, built, _ = cut
        shutil.copytree(stored, tmp_path / "e.zarr")
        expression.to_zarr(tmp_path / "e.zarr")
        assert built == []
        assert [path.name for path in tmp_path.iterdir()] == ["e.zarr"]

    @pytest.mark.parametrize("whose", ["another result", "another version", "a process at work"])
    def test_what_is_unfinished_of_others_outlives_a_call_that_finds_its_store(
        self, cut, stored, tmp_path, whose
    ):
        expression, _, folder = cut
        shutil.copytree(stored, tmp_path / "e.zarr")
        journal = folder / "journal.jsonl"
        if whose == "another result":
            journal.write_text(journal.read_text().replace('"key": "', '"key": "0'))
        elif whose == "another version":
            journal.write_text(json.dumps({"skenigma_journal": 2}) + "\n")
        elif _journal.fcntl is None:
            pytest.skip("no locks here")
        before = contents(folder)
        with open(journal, "rb") as file:
            if whose == "a process at work":
                _journal.fcntl.flock(file, _journal.fcntl.LOCK_EX)
            expression.to_zarr(tmp_path / "e.zarr")
        assert contents(folder) == before

    def test_a_journal_of_another_version_is_left_alone(self, cut, tmp_path):
        expression, _, folder = cut
        (folder / "journal.jsonl").write_text(json.dumps({"skenigma_journal": 2}) + "\n")
        with pytest.raises(FileExistsError, match="journal of another version"):
            expression.to_zarr(tmp_path / "e.zarr")

    @pytest.mark.skipif(_journal.fcntl is None, reason="no locks here")
    def test_two_processes_do_not_write_one_store(self, cut, tmp_path):
        expression, _, folder = cut
        with open(folder / "journal.jsonl", "rb") as file:
            _journal.fcntl.flock(file, _journal.fcntl.LOCK_EX)
            with pytest.raises(FileExistsError, match="being written by another process"):
                expression.to_zarr(tmp_path / "e.zarr")

    @pytest.mark.skipif(_journal.fcntl is None, reason="no locks here")
    def test_a_store_that_another_process_finishes_at_that_moment(self, cut, tmp_path, monkeypatch):
        expression, _, folder = cut
        monkeypatch.setattr(_journal.fcntl, "flock", lambda *_: (folder / "journal.jsonl").unlink())
        with pytest.raises(FileExistsError, match="has just been finished by another process"):
            expression.to_zarr(tmp_path / "e.zarr")

    @pytest.mark.slow
    def test_a_killed_process_is_gone_on_with(self, tmp_path):
        script = textwrap.dedent(
            """
            import sys, time
            from skenigma import FactorDeconvolver
            from skenigma.datasets import make_cohort
            from skenigma.io import _stores
            cohort = make_cohort(60, 2000, 3, random_state=0, as_frame=True)
            model = FactorDeconvolver(cohort.reference, materialize=False, max_iter=5)
            expression = model.fit(cohort.bulk).expression_
            def progress(number, n_blocks):
                print(number, flush=True)
                time.sleep(float(sys.argv[2]))
            written = _stores._written
            def counted(arrays, rows, blocks):
                print("written", rows.start, flush=True)
                return written(arrays, rows, blocks)
            _stores._written = counted
            plan = _stores.plan_of(expression)
            _stores.write_store(plan, sys.argv[1], max_bytes=8 * 2 * 3 * 2000, progress=progress)
            """
        )

        def start(name, pause):
            command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / name), str(pause)]
            return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

        process = start("killed.zarr", 0.02)
        lines = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait()
        process.stdout.close()
        complete = max(int(line) for line in lines if line.strip().isdigit())
        assert 5 < complete < 30
        assert not (tmp_path / "killed.zarr").exists()
        again, _ = (process := start("killed.zarr", 0)).communicate()
        assert process.returncode == 0
        assert again.count("written") <= 30 - complete
        straight, _ = (process := start("straight.zarr", 0)).communicate()
        assert process.returncode == 0
        assert straight.count("written") == 30
        assert contents(tmp_path / "killed.zarr") == contents(tmp_path / "straight.zarr")


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_survived(tmp_path):
    resource = pytest.importorskip("resource")
    cohort = make_cohort(60, 3000, 2, random_state=0, as_frame=True)
    model = FactorDeconvolver(cohort.reference, materialize=False)
    expression = model.fit(cohort.bulk).expression_
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # less than a chunk of this takes
    try:
        with pytest.raises(OSError, match=r"no more can be written, .*0 of 1 blocks are complete, and kept"):
            expression.to_zarr(tmp_path / "e.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "e.zarr").exists()
    expression.to_zarr(tmp_path / "e.zarr")
    values = expression.values(cell_types=[0])[:, 0]
    assert_allclose(anndata.read_zarr(tmp_path / "e.zarr").layers["cse_celltype1"], values, **SAME)


class TestRefused:
    @pytest.mark.parametrize("resume", [True, False])
    def test_another_result_and_strange_things(self, expression, other, tmp_path, resume):
        store = tmp_path / "e.zarr"
        store.mkdir()
        (store / "thesis.txt").write_text("years")
        with pytest.raises(FileExistsError, match="not what skenigma wrote"):
            expression.to_zarr(store, resume=resume)
        assert (store / "thesis.txt").read_text() == "years"

    @pytest.mark.parametrize("resume", [True, False])
    def test_a_store_of_someone_else(self, expression, tmp_path, resume):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats to come
            anndata.AnnData(np.eye(3)).write_zarr(tmp_path / "e.zarr")
        with pytest.raises(FileExistsError, match="not what skenigma wrote"):
            expression.to_zarr(tmp_path / "e.zarr", resume=resume)
        assert_array_equal(anndata.read_zarr(tmp_path / "e.zarr").X, np.eye(3))

    @pytest.mark.parametrize("name", ["e.zarr", "e.zarr.unfinished"])
    def test_a_file(self, expression, tmp_path, name):
        (tmp_path / name).write_text("mine")
        with pytest.raises(FileExistsError, match="never replaced"):
            expression.to_zarr(tmp_path / "e.zarr")
        assert (tmp_path / name).read_text() == "mine"

    @pytest.mark.parametrize("names", [["mine"], ["result"], ["journal.jsonl", "mine"]], ids=" ".join)
    def test_a_folder_in_the_place_of_the_unfinished_one(self, expression, tmp_path, names):
        folder = tmp_path / "e.zarr.unfinished"
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        with pytest.raises(FileExistsError, match="not what skenigma left"):
            expression.to_zarr(tmp_path / "e.zarr", resume=False)
        assert sorted(path.name for path in folder.iterdir()) == names

    def test_a_store_of_another_result_is_replaced_only_when_asked(self, stored, other, tmp_path):
        store = shutil.copytree(stored, tmp_path / "e.zarr")
        with pytest.raises(ValueError, match=r"e\.zarr holds another result.*resume=False"):
            other.to_zarr(store)
        other.to_zarr(store, resume=False)
        values = other.values(cell_types=["B"])[:, 0]
        assert_allclose(anndata.read_zarr(store).layers["cse_B"], values, **SAME)
        assert [path.name for path in tmp_path.iterdir()] == ["e.zarr"]

    @pytest.mark.parametrize(
        "change",
        [
            "a layer",
            "a file at the root",
            "an empty file",
            "a lost file",
            "other bytes",
            "an attribute of a layer",
        ],
    )
    @pytest.mark.parametrize("resume", [True, False])
    def test_a_store_that_was_changed_since_is_left_alone(self, expression, stored, tmp_path, change, resume):
        store = shutil.copytree(stored, tmp_path / "e.zarr")
        if change == "a layer":
            shutil.copytree(store / "layers" / "cse_B", store / "layers" / "mine")
        elif change == "a file at the root":
            (store / "notes.txt").write_text("mine")
        elif change == "an empty file":
            (store / "mine").touch()
        elif change == "a lost file":
            next((store / "obs").rglob("0")).unlink()
        else:
            names = ("0.0",) if change == "other bytes" else ROOTS
            (file,) = (path for path in (store / "layers" / "cse_B").iterdir() if path.name in names)
            file.write_bytes(file.read_bytes() + b" ")
        before = contents(store)
        with pytest.raises(FileExistsError, match="or was changed since, and is never replaced"):
            expression.to_zarr(store, resume=resume)
        assert contents(store) == before

    def test_a_store_that_is_changed_while_another_takes_its_place(self, stored, other, tmp_path):
        store = shutil.copytree(stored, tmp_path / "e.zarr")
        plan = _stores.plan_of(other)
        with pytest.raises(FileExistsError, match="was changed since, and is never replaced"):
            _stores.write_store(
                plan, store, max_bytes=2**26, other="replace", progress=lambda *_: (store / "mine").touch()
            )
        assert (store / "mine").exists()

    def test_a_store_is_replaced_where_names_cannot_be_exchanged(self, stored, other, tmp_path, monkeypatch):
        monkeypatch.setattr(_journal, "exchange", lambda *_: False)
        store = shutil.copytree(stored, tmp_path / "e.zarr")
        other.to_zarr(store, resume=False)
        assert_allclose(StoredLayers(store)["B"], other.values(cell_types=["B"])[:, 0], **SAME)
        assert [path.name for path in tmp_path.iterdir()] == ["e.zarr"]

    def test_an_empty_folder_is_as_good_as_none(self, expression, tmp_path):
        (tmp_path / "e.zarr").mkdir()
        expression.to_zarr(tmp_path / "e.zarr")
        assert is_store(tmp_path / "e.zarr")

    @pytest.mark.parametrize("store", ["s3://bucket/e.zarr", 3, {}])
    def test_what_is_no_folder_of_this_machine(self, expression, store):
        with pytest.raises(ValueError, match="must be the path of a folder"):
            expression.to_zarr(store)

    def test_a_folder_that_must_not_be_written_to(self, expression, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise OSError(errno.EROFS, "Read-only file system", "e.zarr")

        monkeypatch.setattr(_journal.Path, "mkdir", refuse)
        with pytest.raises(OSError, match="Read-only file system"):
            expression.to_zarr(tmp_path / "e.zarr")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights do not bind here")
    def test_a_folder_without_the_right_to_write(self, expression, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(PermissionError):
                expression.to_zarr(tmp_path / "e.zarr")
        finally:
            tmp_path.chmod(0o700)

    @pytest.mark.parametrize(
        ("arguments", "match"),
        [
            ({"sample_names": ["a"]}, "has 1 names, but there are 9 samples"),
            ({"sample_names": ["a"] * 9}, "Samples .*'a'"),
            ({"bulk": np.zeros((9, 2))}, r"bulk must be of shape \(9, 30\)"),
            ({"max_bytes": 0}, "max_bytes must be a positive number of bytes, got 0"),
        ],
    )
    def test_arguments_that_do_not_fit(self, expression, tmp_path, arguments, match):
        with pytest.raises(ValueError, match=match):
            expression.to_zarr(tmp_path / "e.zarr", **arguments)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kinds", [None, ["T/NK"]])
    def test_cell_types_that_would_be_one_layer(self, expression, kinds):
        """Of those that are written, and among the proportions of all."""
        named = replace(expression, cell_types=np.array(["T|NK", "T/NK"]))
        with pytest.raises(ValueError, match=r"differ in '/' and '\|' only cannot be layers"):
            _stores.plan_of(named, cell_types=kinds)

    def test_genes_of_one_name(self, expression):
        named = replace(expression, gene_names=np.array(["g"] * 2 + [f"g{i}" for i in range(2, N_GENES)]))
        with pytest.raises(ValueError, match=r"Genes .*'g'"):
            _stores.plan_of(named)

    def test_a_bulk_of_other_genes(self, expression, cohort, tmp_path):
        with pytest.raises(ValueError, match="genes of the expression, in their order"):
            expression.to_zarr(tmp_path / "e.zarr", bulk=cohort.bulk.iloc[:, ::-1])

    def test_a_missing_package_is_named_with_its_extra(self, expression, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "zarr", None)
        with pytest.raises(ImportError, match=r"needs zarr: pip install 'skenigma\[zarr\]'"):
            expression.to_zarr(tmp_path / "e.zarr")


def test_the_checksum_of_a_store_is_that_of_names_and_files(stored, tmp_path):
    before = input_entry(stored)
    assert before["size"] == sum(path.stat().st_size for path in store_files(stored))
    copy = shutil.copytree(stored, tmp_path / "copy.zarr")
    assert input_entry(copy)["sha256"] == before["sha256"]
    next((copy / "layers").rglob("0.0")).rename(copy / "layers" / "1.0")
    assert input_entry(copy)["sha256"] != before["sha256"]
