"""A last line that tells whether a page is as it was written: pages have no record of their own."""

import hashlib
import re

SEAL = b"<!-- skenigma report; SHA-256 of all above this line: %s -->\n"
PATTERN = re.compile(re.escape(SEAL).replace(b"%s", b"([0-9a-f]{64})"))
LENGTH = len(SEAL) - len(b"%s") + 64
MOST_BYTES = 2**28  # of a page


def sealed(page):
    """Bytes of a page of HTML with its seal."""
    # what a name holds that is no character is written as its number
    content = page.rstrip("\n").encode("utf-8", errors="xmlcharrefreplace") + b"\n"
    return content + SEAL % hashlib.sha256(content).hexdigest().encode("ascii")


def is_sealed(path):
    """Whether a file is a page that nobody has changed since it was written."""
    if path.stat().st_size > MOST_BYTES:
        return False
    content = path.read_bytes()
    found = PATTERN.fullmatch(content[-LENGTH:])
    return found is not None and hashlib.sha256(content[:-LENGTH]).hexdigest().encode("ascii") == found[1]
