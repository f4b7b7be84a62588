"""Options for the parameters of the models: defaults and choices are read from the classes, not copied."""

import argparse
import importlib
from numbers import Integral

from .._parameters import OWN_OPTIONS, PARAMETERS
from ..checks.validation import Interval, StrOptions
from ..deconvolution import BaseDeconvolver
from ..deconvolution._choice import CHOSEN, MODELS
from ._usage import UsageError

AUTO = "auto"
OPTIONS = (
    "alpha", "beta", "renorm_size", "solver", "epsilon", "max_iter", "tao_k", "gamma", "n_factors", "tol",
    "preprocess", "normalize", "positive", "calibrate", "n_samples_of_settings",
)  # fmt: skip
HELP = {name: OWN_OPTIONS.get(name) or PARAMETERS[name].option for name in OPTIONS}
# Parameters that are data, or that the command line decides.
NOT_RECORDED = (
    "reference",
    "n_components",
    "proportion_estimator",
    "materialize",
    "output_cell_types",
    "verbose",
)


def defaults(name):
    """Default of a parameter by model, of the models that have it."""
    found = {kind: model().get_params(deep=False) for kind, model in MODELS.items()}
    return {kind: values[name] for kind, values in found.items() if name in values}


def model_name(text):
    """What ``--model`` may be: "auto", a name, or "module:Class"."""
    if text not in (AUTO, *MODELS) and ":" not in text:
        names = ", ".join((AUTO, *MODELS))
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither {names} nor a class as in package.module:Class"
        )
    return text


def find_model(name):
    """The class of a model; a UsageError if there is none of that name."""
    if name in MODELS:
        return MODELS[name]
    # code of the user's own: imported only because the command line names it
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError as error:
        raise UsageError(
            f"--model {name}: Python cannot import {module} ({error}): install it, or name its folder in PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseDeconvolver)):
        raise UsageError(
            f"--model {name}: {module} has no class {attribute} that is a skenigma.deconvolution.BaseDeconvolver"
        )
    return found


def add_own_parameters(parser):
    """``--set``, for parameters of models that have no option of their own here."""
    parser.add_argument(
        "--set",
        nargs="+",
        type=_assignment,
        metavar="NAME=VALUE",
        help="parameters of the model that have no option here: numbers, true, false, none or text",
    )


def _assignment(text):
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    words = {"true": True, "false": False, "none": None}
    # the most special first: what is none of these is a text
    for convert in (lambda text: words[text.lower()], int, float):
        try:
            return name, convert(value)
        except (KeyError, ValueError):
            pass
    return name, value


def add_parameters(parser):
    """Add the options of all models to a parser."""
    group = parser.add_argument_group(
        "parameters of the model", "Each is explained at length in the documentation of the model."
    )
    for name, text in HELP.items():
        by_model = defaults(name)
        words = _words(name)
        group.add_argument(
            "--" + name.replace("_", "-"),
            type=_converter(name, words),
            metavar=_metavar(name, words),
            help=f"{text} ({_default_text(by_model)})",
        )


def build_model(kind, given, **more):
    """The model with the given parameters; a UsageError if they are not its own or out of range."""
    model_class = find_model(kind)
    own = model_class().get_params(deep=False)
    foreign = [name for name in given if name not in own or name in NOT_RECORDED]
    if foreign:
        raise UsageError(_foreign(foreign[0], kind))
    model = model_class(**given, **more)
    try:
        model._validate_params()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return model


def only_model(given):
    """The one model that has all of these parameters, where the data may not choose one that has; else None."""
    fit = [kind for kind, model in MODELS.items() if not given.keys() - used_parameters(model()).keys()]
    return fit[0] if len(fit) == 1 and fit[0] not in CHOSEN else None


def check_any_choice(given):
    """A UsageError if parameters are given that not every model has which may be chosen by the data."""
    for name in given:
        for kind in CHOSEN:
            if name not in used_parameters(MODELS[kind]()):
                known = [other for other, model in MODELS.items() if name in used_parameters(model())]
                if not known:
                    raise UsageError(f"--set {name}: name the model that has this parameter with --model")
                option = f"--{name.replace('_', '-')}" if name in HELP else f"--set {name}"
                raise UsageError(f"{option} belongs to --model {', '.join(known)}: say which")


def _foreign(name, kind):
    """Sentence on a parameter that a model does not have."""
    if name not in HELP:
        return f"--set {name}: {kind} has no such parameter to set"
    others = ", ".join(defaults(name))
    return f"--{name.replace('_', '-')} belongs to --model {others}, not to {kind}"


def used_parameters(model):
    """Every parameter of a model that can be given here, with its value."""
    return {name: value for name, value in model.get_params(deep=False).items() if name not in NOT_RECORDED}


def _default_text(by_model):
    texts = {model: "none" if value is None else f"{value}" for model, value in by_model.items()}
    if len(set(texts.values())) == 1 and len(texts) == len(MODELS):
        return f"default: {next(iter(texts.values()))}"
    return "default: " + ", ".join(f"{text} for {model}" for model, text in texts.items())


def _constraints(name):
    """What the models allow for a parameter, without repetitions."""
    return [rule for model in defaults(name) for rule in MODELS[model]._parameter_constraints[name]]


def _words(name):
    """Words that stand for a value, with the value."""
    words = {}
    for rule in _constraints(name):
        if isinstance(rule, StrOptions):
            words.update((option, option) for option in sorted(rule.options))
        elif rule is None:
            words["none"] = None
        elif rule == "boolean":
            words.update(yes=True, no=False)
    return words


def _converter(name, words):
    numbers = [rule for rule in _constraints(name) if isinstance(rule, Interval)]
    number = int if numbers and all(rule.type is Integral for rule in numbers) else float

    def convert(text):
        if text.lower() in words:
            return words[text.lower()]
        try:
            if numbers:
                return number(text)
        except ValueError:
            pass
        kind = {int: "a whole number", float: "a number"}[number]
        allowed = ([kind] if numbers else []) + list(words)
        raise argparse.ArgumentTypeError(f"{text!r} is not {', '.join(allowed)}".replace(", ", " or "))

    return convert


def _metavar(name, words):
    numbers = [rule for rule in _constraints(name) if isinstance(rule, Interval)]
    kind = ["N" if all(rule.type is Integral for rule in numbers) else "NUMBER"] if numbers else []
    return "|".join(kind + list(words))
