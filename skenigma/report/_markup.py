"""HTML by templates in which everything is escaped but what is markup already: names are never markup."""

import re
import string
from html import escape


class Markup(str):
    """Text that is HTML, and goes into a page as it is."""

    __slots__ = ()


class _Escaping(string.Formatter):
    """``str.format`` that escapes."""

    def format_field(self, value, format_spec):
        if isinstance(value, Markup):
            return str(value)
        if isinstance(value, (list, tuple)):
            return "".join(self.format_field(entry, format_spec) for entry in value)
        return escape(format(value, format_spec))


_FORMATTER = _Escaping()


def markup(template, /, **values):
    """HTML of a template with ``{name}`` places.

    Parameters
    ----------
    template : str
        HTML, from the source of this package.
    **values : object
        Escaped, unless they are :class:`Markup`; of a list, each entry.

    Returns
    -------
    html : Markup

    Examples
    --------
    >>> from skenigma.report._markup import markup
    >>> markup("<b>{name}</b>", name="T & <i>NK</i>")
    '<b>T &amp; &lt;i&gt;NK&lt;/i&gt;</b>'
    """
    return Markup(_FORMATTER.vformat(template, (), values))


def joined(parts, separator=""):
    """Parts as one, each escaped unless it is markup."""
    return Markup(_FORMATTER.format_field(separator, "").join(_FORMATTER.format_field(p, "") for p in parts))


def breakable(text):
    """A text that may be broken between the words of a name such as "EmpiricalBayesDeconvolver"."""
    return joined(re.split(r"(?<=[a-z0-9])(?=[A-Z])", text), Markup("<wbr>"))
