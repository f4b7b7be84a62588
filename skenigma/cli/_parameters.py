"""Options for the parameters of the models: defaults and choices are read from the classes, not copied."""

import argparse
import inspect
from numbers import Integral

from ..checks.validation import Interval, StrOptions
from ..deconvolution import L2MaxDeconvolver, TraceNormDeconvolver
from ._job import UsageError

MODELS = {"l2max": L2MaxDeconvolver, "tracenorm": TraceNormDeconvolver}
HELP = {
    "alpha": "weight of reconstructing the bulk; staying near the reference has the rest to 1",
    "beta": "weight of the penalty",
    "renorm_size": "norm to which both gradients are rescaled in every iteration",
    "solver": "how the objective is minimised",
    "epsilon": "when to stop: see the documentation of the model for its unit",
    "max_iter": "largest number of iterations",
    "tao_k": "step length of the solver 'proximal'",
    "gamma": "penalty parameter of the ADMM solvers",
    "preprocess": "scale on which bulk and reference enter the model; results are on that of the bulk",
    "normalize": "write a second, normalised expression as well",
    "positive": "whether to clip negative expression to 0",
}


def defaults(name):
    """Default of a parameter by model, of the models that have it."""
    signatures = {model: inspect.signature(MODELS[model].__init__).parameters for model in MODELS}
    return {model: found[name].default for model, found in signatures.items() if name in found}


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
    model_class = MODELS[kind]
    foreign = [name for name in given if kind not in defaults(name)]
    if foreign:
        others = ", ".join(defaults(foreign[0]))
        raise UsageError(f"--{foreign[0].replace('_', '-')} belongs to --model {others}, not to {kind}")
    model = model_class(**given, **more)
    try:
        model._validate_params()
    except ValueError as error:
        raise UsageError(str(error)) from error
    return model


def used_parameters(model):
    """Every parameter of a model that has an option, with its value."""
    return {name: value for name, value in model.get_params(deep=False).items() if name in HELP}


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
