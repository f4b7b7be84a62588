"""Output of quantifiers is recognised by its columns: the counts of its genes, and nothing else, become samples."""

import gzip

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skenigma import io

from .test_reading_writing import refused

GENES = ["CD19", "CD4", "CD8A"]
COUNTS = np.array([[10, 0, 7], [3, 5, 1]])
SAMPLES = ["donor1", "donor2"]
LENGTHS = [900, 1200, 450]


def tsv(columns):
    return pd.DataFrame(columns).to_csv(sep="\t", index=False)


def salmon(counts):
    return tsv(
        {"Name": GENES, "Length": LENGTHS, "EffectiveLength": 700.5, "TPM": counts / 2, "NumReads": counts}
    )


def kallisto(counts):
    return tsv(
        {"target_id": GENES, "length": LENGTHS, "eff_length": 1, "est_counts": counts, "tpm": counts / 2}
    )


def rsem(counts):
    return tsv(
        {"gene_id": GENES, "transcript_id(s)": "t1,t2", "length": LENGTHS, "effective_length": 1.5,
         "expected_count": counts, "TPM": counts / 2, "FPKM": 9}
    )  # fmt: skip


def rsem_isoforms(counts):
    return tsv(
        {"transcript_id": GENES, "gene_id": "g", "length": LENGTHS, "effective_length": 1.5,
         "expected_count": counts, "TPM": counts / 2, "FPKM": 9, "IsoPct": 50}
    )  # fmt: skip


def star(counts, forward=0.5):
    rows = [
        "N_unmapped\t9\t9\t9",
        "N_multimapping\t9\t9\t9",
        "N_noFeature\t9\t20\t30",
        "N_ambiguous\t9\t1\t1",
    ]
    # whole numbers for the shares that are tested
    rows += [
        f"{gene}\t{n}\t{100 * n * forward:.0f}\t{100 * n * (1 - forward):.0f}"
        for gene, n in zip(GENES, counts, strict=True)
    ]
    return "\n".join(rows) + "\n"


def htseq(counts):
    rows = [f"{gene}\t{n}" for gene, n in zip(GENES, counts, strict=True)]
    return "\n".join([*rows, "__no_feature\t99", "__ambiguous\t3", "__too_low_aQual\t0", "__not_aligned\t1",
                      "__alignment_not_unique\t5", ""])  # fmt: skip


def gdc(counts):
    table = {"gene_id": GENES, "gene_name": ["a", "b", "c"], "gene_type": "protein_coding", "unstranded": counts,
             "stranded_first": 5 * counts, "stranded_second": 5 * counts, "tpm_unstranded": counts / 2,
             "fpkm_unstranded": 0.1, "fpkm_uq_unstranded": 0.2}  # fmt: skip
    header, *rows = tsv(table).splitlines()
    summary = [
        f"{name}\t\t\t9\t9\t9\t\t\t"
        for name in ("N_unmapped", "N_multimapping", "N_noFeature", "N_ambiguous")
    ]
    return "\n".join(["# gene-model: GENCODE v36", header, *summary, *rows, ""])


def stringtie(counts):
    return tsv(
        {"Gene ID": GENES, "Gene Name": GENES, "Reference": "chr1", "Strand": "+", "Start": 1, "End": 9,
         "Coverage": 2.5, "FPKM": 1.5, "TPM": counts / 2}
    )  # fmt: skip


WRITTEN = {
    "salmon": (salmon, "quant.sf"),
    "kallisto": (kallisto, "abundance.tsv"),
    "rsem": (rsem, "x.genes.results"),
    "isoforms": (rsem_isoforms, "x.isoforms.results"),
    "star": (star, "ReadsPerGene.out.tab"),
    "htseq": (htseq, "x.htseq.counts"),
    "gdc": (gdc, "x.rna_seq.augmented_star_gene_counts.tsv"),
}


def write_cohort(folder, write, name):
    """A file of every sample, in a folder of its own by that name."""
    for sample, counts in zip(SAMPLES, COUNTS, strict=True):
        path = (
            folder / sample / name.replace("x", sample, 1) if name.startswith("x") else folder / sample / name
        )
        path.parent.mkdir(exist_ok=True)
        path.write_text(write(counts))
    return folder


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_folder_becomes_one_bulk_of_counts(tmp_path, kind):
    notes = []
    found = io.read_bulk(write_cohort(tmp_path, *WRITTEN[kind]), notes=notes)
    pd.testing.assert_frame_equal(
        found, pd.DataFrame(COUNTS.astype(float), SAMPLES, GENES), check_names=False
    )
    assert "2 files" in notes[-1]
    by_folder = [note for note in notes if note.startswith("named samples by their folders")]
    assert len(by_folder) == (kind in ("salmon", "kallisto", "star"))


@pytest.mark.parametrize("kind", WRITTEN)
def test_one_file_under_any_name_is_one_sample(tmp_path, kind):
    (tmp_path / "donor1.txt.gz").write_bytes(gzip.compress(WRITTEN[kind][0](COUNTS[0]).encode()))
    with pytest.warns(UserWarning, match="read the output of"):
        found = io.read_bulk(tmp_path / "donor1.txt.gz")
    assert_array_equal(found, COUNTS[:1])
    assert list(found.index) == ["donor1"]


@pytest.mark.parametrize("kind", ["salmon", "kallisto", "rsem", "isoforms", "gdc"])
def test_tpm_on_request(tmp_path, kind):
    found = io.read_bulk(write_cohort(tmp_path, *WRITTEN[kind]), quantity="tpm", notes=[])
    assert_array_equal(found, COUNTS / 2)


def test_stringtie_has_tpm_only(tmp_path):
    (tmp_path / "s.tab").write_text(stringtie(COUNTS[0]))
    assert_array_equal(io.read_bulk(tmp_path / "s.tab", quantity="tpm", notes=[]), COUNTS[:1] / 2)
    with refused("s.tab", "StringTie gives no counts", "'tpm'"):
        io.read_bulk(tmp_path / "s.tab")


@pytest.mark.parametrize(
    ("write", "name", "level"),
    [(salmon, "quant.genes.sf", "gene"), (rsem, "s.results", "gene"), (rsem_isoforms, "s.results", "transcript"),
     (kallisto, "a.tsv", "transcript"), (salmon, "quant.sf", "transcript")],
)  # fmt: skip
def test_level_is_said(tmp_path, write, name, level):
    (tmp_path / name).write_text(write(COUNTS[0]))
    notes = []
    io.read_bulk(tmp_path / name, notes=notes)
    assert f"{level} level" in notes[-1]


def test_identifiers_tell_the_level(tmp_path):
    text = salmon(COUNTS[0])
    for i, gene in enumerate(GENES):
        text = text.replace(gene, f"ENSG0000000000{i}.2")
    (tmp_path / "quant.sf").write_text(text)
    notes = []
    io.read_bulk(tmp_path / "quant.sf", notes=notes)
    assert "gene level" in notes[-1]


def test_files_of_genes_before_those_of_transcripts(tmp_path):
    write_cohort(tmp_path, rsem, "x.genes.results")
    write_cohort(tmp_path, lambda counts: rsem_isoforms(counts + 1), "x.isoforms.results")
    notes = []
    assert_array_equal(io.read_bulk(tmp_path, notes=notes), COUNTS)
    assert "left out 2 files of transcripts" in notes[0]


class TestStrandedness:
    @pytest.mark.parametrize(
        ("forward", "factor", "word"), [(0.97, 97, "forward"), (0.03, 97, "reverse"), (0.5, 1, "unstranded")]
    )
    def test_rule(self, tmp_path, forward, factor, word):
        write_cohort(tmp_path, lambda counts: star(counts, forward), "ReadsPerGene.out.tab")
        notes = []
        assert_array_equal(io.read_bulk(tmp_path, notes=notes), factor * COUNTS)
        assert f"took column '{word}'" in notes[0]
        assert f"{forward:.0%}" in notes[0]

    def test_asked_for(self, tmp_path):
        (tmp_path / "s.tab").write_text(star(COUNTS[0], 0.97))
        assert_array_equal(io.read_bulk(tmp_path / "s.tab", strandedness="reverse", notes=[]), 3 * COUNTS[:1])

    @pytest.mark.parametrize("shares", [(0.7, 0.7), (0.5, 0.97)])
    def test_doubtful_libraries(self, tmp_path, shares):
        for sample, counts, share in zip(SAMPLES, COUNTS, shares, strict=True):
            (tmp_path / f"{sample}_ReadsPerGene.out.tab").write_text(star(counts, share))
        with refused("stranded cannot be told", f"'donor1 {shares[0]:.0%}'", "'reverse'"):
            io.read_bulk(tmp_path)


class TestFeatureCounts:
    def text(self, comment=True, chromosome="chr1;chr1"):
        table = {"Geneid": GENES, "Chr": chromosome, "Start": "100;400" if comment else 7, "End": 9, "Strand": "+",
                 "Length": LENGTHS, "/data/bam/donor1.bam": COUNTS[0], "/data/bam/donor2.bam": COUNTS[1]}  # fmt: skip
        first = '# Program:featureCounts v2.0.3; Command:"featureCounts" "-a" "x.gtf"\n' if comment else ""
        return first + tsv(table)

    @pytest.mark.parametrize(("comment", "chromosome"), [(True, "chr1;chr1"), (False, 1)])
    def test_counts_of_the_samples(self, tmp_path, comment, chromosome):
        (tmp_path / "fc.txt").write_text(self.text(comment, chromosome))
        notes = []
        found = io.read_bulk(tmp_path / "fc.txt", notes=notes)
        samples = [f"/data/bam/{sample}.bam" for sample in SAMPLES]
        expected = pd.DataFrame(COUNTS.astype(float), samples, GENES)
        pd.testing.assert_frame_equal(found, expected, check_names=False)
        assert notes == ["read the output of featureCounts, gene level"]

    def test_no_tpm(self, tmp_path):
        (tmp_path / "fc.txt").write_text(self.text())
        with refused("counts only"):
            io.read_bulk(tmp_path / "fc.txt", quantity="tpm")


@pytest.mark.parametrize("end", ["tsv", "csv"])
@pytest.mark.parametrize(("quantity", "factor"), [(None, 1), ("tpm", 0.5)])
def test_tximport_list_as_a_frame(tmp_path, end, quantity, factor):
    """As R writes it: a header without a field for the names of the rows."""
    parts = {"abundance": COUNTS / 2, "counts": COUNTS, "length": COUNTS + 900}
    frame = pd.DataFrame(
        {f"{name}.{sample}": values[j] for name, values in parts.items() for j, sample in enumerate(SAMPLES)},
        GENES,
    )
    frame["countsFromAbundance"] = "no"
    delimiter = "\t" if end == "tsv" else ","
    frame.to_csv(tmp_path / f"txi.{end}", sep=delimiter, index_label="")
    path = tmp_path / f"txi.{end}"
    path.write_text(path.read_text().removeprefix(delimiter))
    found = io.read_bulk(path, quantity=quantity, notes=[])
    pd.testing.assert_frame_equal(
        found, pd.DataFrame(factor * COUNTS.astype(float), SAMPLES, GENES), check_names=False
    )


class TestManyFiles:
    def test_a_list(self, tmp_path):
        write_cohort(tmp_path, kallisto, "abundance.tsv")
        paths = [tmp_path / sample / "abundance.tsv" for sample in reversed(SAMPLES)]
        found = io.read_bulk(paths, notes=[])
        assert_array_equal(found, COUNTS[::-1])
        assert list(found.index) == SAMPLES[::-1]

    def test_genes_in_another_order(self, tmp_path):
        write_cohort(tmp_path, kallisto, "abundance.tsv")
        second = tmp_path / SAMPLES[1] / "abundance.tsv"
        header, *rows = second.read_text().splitlines()
        second.write_text("\n".join([header, *reversed(rows), ""]))
        assert_array_equal(io.read_bulk(tmp_path, notes=[]), COUNTS)

    def test_other_genes(self, tmp_path):
        write_cohort(tmp_path, kallisto, "abundance.tsv")
        second = tmp_path / SAMPLES[1] / "abundance.tsv"
        second.write_text(second.read_text().replace("CD8A", "CD8B"))
        with refused("donor2", "has other genes than", "'CD8A', 'CD8B'", "one annotation"):
            io.read_bulk(tmp_path)

    def test_different_programs(self, tmp_path):
        (tmp_path / "a.tsv").write_text(kallisto(COUNTS[0]))
        (tmp_path / "b.sf").write_text(salmon(COUNTS[0]))
        with refused("different programs", "kallisto", "salmon"):
            io.read_bulk(tmp_path)

    def test_one_sample_twice(self, tmp_path):
        (tmp_path / "a.tsv").write_text(kallisto(COUNTS[0]))
        (tmp_path / "a.txt").write_text(kallisto(COUNTS[0]))
        with refused("Several files are of one sample", "'a'"):
            io.read_bulk(tmp_path)

    def test_something_else_in_a_list(self, tmp_path):
        (tmp_path / "a.tsv").write_text("gene\ts\nCD4\t1\n")
        with refused("a.tsv is not the output of a quantifier"):
            io.read_bulk([tmp_path / "a.tsv"])

    def test_other_files_are_named(self, tmp_path):
        write_cohort(tmp_path, kallisto, "abundance.tsv")
        (tmp_path / "samples.tsv").write_text("sample\tgroup\ndonor1\tcase\n")
        notes = []
        io.read_bulk(tmp_path, notes=notes)
        assert "left out 1 other files in the folder: 'samples.tsv'" in notes

    @pytest.mark.parametrize("current", [False, True], ids=["by its name", "as a dot"])
    def test_a_folder_without_any(self, tmp_path, monkeypatch, current):
        monkeypatch.chdir(tmp_path)
        with refused("is a folder without the output of a quantifier", "salmon"):
            io.read_bulk("." if current else tmp_path)


class TestNoHeader:
    """Nobody's first gene becomes a header, and no header of numbers a gene."""

    def test_counts_pasted_side_by_side(self, tmp_path):
        (tmp_path / "t.tsv").write_text("CD19\t10\t3\nCD4\t0\t5\n")
        with refused("seems to have no header", "'CD19 10 3'", "Add a line"):
            io.read_bulk(tmp_path / "t.tsv")

    @pytest.mark.parametrize("corner", ["", "gene", "Gene Symbol", "Geneid", "ENSEMBL_ID", "gene_name"])
    def test_samples_named_by_numbers(self, tmp_path, corner):
        (tmp_path / "t.tsv").write_text(f"{corner}\t101\t102\nCD19\t10\t3\nCD4\t0\t5\n")
        found = io.read_bulk(tmp_path / "t.tsv")
        assert found.loc["101"].to_dict() == {"CD19": 10, "CD4": 0}


@pytest.mark.parametrize("choice", [{"quantity": "tpm"}, {"strandedness": "forward"}, {"layer": "counts"}])
def test_choices_that_a_plain_table_does_not_leave(tmp_path, choice):
    (tmp_path / "t.tsv").write_text("gene\ts\nCD4\t1\n")
    with refused("t.tsv", next(iter(choice)), "nothing to choose"):
        io.read_bulk(tmp_path / "t.tsv", **choice)


@pytest.mark.parametrize("choice", [{"quantity": "fpkm"}, {"strandedness": "both"}, {"duplicates": "mean"}])
def test_choices_that_do_not_exist(choice):
    with refused("must be one of"):
        io.read_bulk("t.tsv", **choice)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/donor1/quant.sf", "donor1"),
        ("runs/donor1/abundance.tsv", "donor1"),
        ("runs/donor1/outs/quant.sf", "donor1"),
        ("donor1ReadsPerGene.out.tab", "donor1"),
        ("donor1_ReadsPerGene.out.tab.gz", "donor1"),
        ("donor1.genes.results", "donor1"),
        ("donor1.isoforms.results", "donor1"),
        ("d.1_abundance.tsv", "d.1"),
        ("uuid.rna_seq.augmented_star_gene_counts.tsv", "uuid"),
    ],
)
def test_names_of_samples(path, name):
    assert io._quantifiers.sample_name(path) == name
