"""What the script of the page works with."""

import numpy as np

from ._colours import group_slots
from ._findings import CAREFUL, REASONS, classes_of, directions, effect_name, types_of
from ._pack import pack_codes, pack_names, pack_numbers, to_json
from ._proportions import arrange
from ._texts import LEAST_P

CURVE_BITS, SHARE_BITS = 7, 7  # a curve is drawn, and a share is said, to less than a percent


def script_data(contents):
    """JSON of everything that the script shows."""
    expression, test = contents.expression, contents.test
    types = [str(kind) for kind in contents.proportions.columns]
    data = {"types": types, "samples": [str(name) for name in contents.proportions.index]}
    order = contents.proportions.mean().sort_values(ascending=False).index
    arranged, _ = arrange(contents.proportions, contents.groups, order)
    data["bars"] = [int(place) for place in contents.proportions.index.get_indexer(arranged.index)]
    data["shares"] = pack_numbers(contents.proportions.to_numpy(dtype=float))
    if contents.groups is not None:
        data["groups"] = _groups(contents)
    genes = list(expression.genes) if expression is not None else []
    if test is not None:
        data["types"] = types = types + [kind for kind in types_of(test, types) if kind not in types]
        known = set(genes)
        genes += [gene for gene in dict.fromkeys(test.table.gene) if gene not in known]
        data["test"] = _test(test, contents.groups, types, genes)
    if genes:
        data["genes"] = pack_names(genes)
    if expression is not None:
        data["expression"] = _expression(expression, types, len(genes))
    return to_json(data)


def _groups(contents):
    groups = contents.groups
    # NaN is not equal to itself
    values = ["" if value is None or value != value else f"{value}" for value in groups.values]
    if groups.classes is None:
        return {"name": groups.name, "values": values, "classes": None}
    return {
        "name": groups.name,
        "values": values,
        "classes": [str(label) for label in groups.classes],
        "colours": group_slots(contents),
    }


def _test(test, groups, types, genes):
    """Arrays of shape (n_types, n_genes) of a test."""
    table = test.table
    row = table.cell_type.map({kind: number for number, kind in enumerate(types)}).to_numpy()
    column = table.gene.map({gene: number for number, gene in enumerate(genes)}).to_numpy()
    shape = len(types), len(genes)

    def spread(values, fill=np.nan):
        array = np.full(shape, fill)
        array[row, column] = values
        return array

    flags = ["", *sorted(set(table["flag"].astype(str)) - {"", "nan"})] if "flag" in table else [""]
    coded = (
        table["flag"].astype(str).map({flag: n for n, flag in enumerate(flags)}).fillna(0)
        if "flag" in table
        else 0
    )
    pair = classes_of(test, groups)
    packed = {
        "present": pack_codes(spread(1, 0)),
        # 0 has no logarithm, and below the least that is shown all are alike
        "p": pack_numbers(spread(table.p_value.clip(lower=LEAST_P / 10))),
        "q": pack_numbers(spread(table.q_value.clip(lower=LEAST_P / 10))),
        "flag": pack_codes(spread(coded, 0)),
        "flags": [{**REASONS, **CAREFUL}.get(flag, flag) for flag in flags],
        "effectName": effect_name(test),
        "neutral": 1 if effect_name(test) == "fold change" else 0,
        "contrast": test.contrast,
        "directions": list(directions(test, groups)),
        "classes": pair,
    }
    if "effect" in table:
        packed["effect"] = pack_numbers(spread(table.effect))
    if "standard_error" in table:
        packed["error"] = pack_numbers(spread(table.standard_error), 9)
    return packed


def _expression(expression, types, n_genes):
    """Summaries of shape (n_types, n_genes), and curves."""
    place = [types.index(kind) for kind in expression.cell_types]

    def spread(values):
        array = np.full((len(types), n_genes), np.nan)
        array[place, : values.shape[1]] = values
        return array

    packed = {"mean": pack_numbers(spread(expression.mean), 9), "types": place}
    for name, bits in (("reference", 9), ("share", SHARE_BITS), ("reliability", SHARE_BITS)):
        values = getattr(expression, name)
        if values is not None:
            packed[name] = pack_numbers(spread(values), bits)
    curves = expression.curves
    packed["curves"] = {"genes": pack_numbers(curves.genes, 22)}
    for name in ("values", "low", "high", "bulk"):
        values = getattr(curves, name)
        if values is not None:
            packed["curves"][name] = pack_numbers(values, CURVE_BITS)
    return packed
