"""The end of the page: how the fit went, parameters, versions, and all that it takes to repeat the run."""

from ._charts import line_chart
from ._contents import CHANGE, GRADIENTS
from ._markup import Markup, joined, markup
from ._reading import how_to_read
from ._tables import pairs


def fit_section(history):
    """Plots of the optimiser, None where there was nothing to iterate."""
    if history is None:
        return None
    # what is neither a gradient nor a change is a loss, whatever the model calls it
    losses = {
        name: history[name] for name in history if name not in GRADIENTS and not name.startswith(CHANGE)
    }
    charts = []
    if losses:
        charts.append(line_chart(losses, "Loss terms", "iteration", "squared expression units"))
    if set(GRADIENTS) <= set(history.columns):
        norms = {name.removeprefix("gradient "): history[name] for name in GRADIENTS}
        charts.append(line_chart(norms, "Gradient norms", "iteration", "before renormalisation"))
    changes = {name.removeprefix(CHANGE): history[name] for name in history if name.startswith(CHANGE)}
    if changes:
        unit = "squared, summed over samples and genes"
        charts.append(line_chart(changes, "Change per cell type", "iteration", unit))
    return joined([how_to_read("fit"), markup('<div class="grid2">{charts}</div>', charts=charts)])


def repeat_section(contents):
    """Parameters, inputs, versions and commands."""
    parts = []
    if contents.commands:
        lines = "\n".join(contents.commands)
        parts.append(
            markup(
                "<h3>To repeat it</h3><p>With the inputs below, unchanged, and the same versions:</p>"
                '<pre tabindex="0"><code>{lines}</code></pre>',
                lines=lines,
            )
        )
    for heading, values in (
        ("Parameters", contents.parameters),
        ("Inputs", contents.inputs),
        ("Versions", contents.versions),
    ):
        if values:
            parts += [markup("<h3>{heading}</h3>", heading=heading), pairs(values, heading)]
    return joined(parts) if parts else Markup("")
