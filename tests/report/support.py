"""What tests of the report share: cohorts with hostile names, and a page read as a browser would."""

import html.parser

import numpy as np
import pandas as pd

NASTY = 'T "<script>alert(1)</script>" & NK'
EMPTY_TAGS = {"meta", "link", "line", "circle", "path", "br", "wbr", "col"}


class Page(html.parser.HTMLParser):
    """Text and tags of a page; fails where a tag is not closed in order."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.links, self.texts, self.attributes = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, dict(attributes))]
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)


def counts_cohort(n_samples=24, n_genes=90, types=("B", NASTY, "monocyte"), seed=0):
    """Bulk in counts per million, reference, and a phenotype that changes 10 genes of the second type."""
    rng = np.random.default_rng(seed)
    samples = [f"donor{number:02d}" for number in range(n_samples)]
    genes = [NASTY, "=1+1", *(f"GENE{number}" for number in range(n_genes - 2))]
    profiles = rng.lognormal(4, 1.5, (len(types), n_genes))
    profiles *= 1e6 / profiles.sum(axis=1, keepdims=True)
    theta = rng.dirichlet(np.arange(len(types)) + 4, n_samples)
    sick = np.arange(n_samples) % 2
    expression = profiles * rng.lognormal(0, 0.2, (n_samples, len(types), n_genes))
    expression[sick == 1, 1, :10] *= 5
    bulk = pd.DataFrame(np.einsum("jk,jkg->jg", theta, expression), samples, genes)
    phenotype = pd.Series(np.where(sick, "sick", "healthy"), samples, name="state")
    return bulk, pd.DataFrame(profiles, list(types), genes), phenotype
