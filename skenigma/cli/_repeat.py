"""``--from``: the options of a recorded run, as far as they are options."""

import argparse

# Options that say where and how loudly, not what: they may come with --from, and are not repeated.
FREE = {"out", "force", "quiet", "json", "debug", "from_run"}


def recorded_options(command, repeated, given=()):
    """Options of a recorded run, checked as the parser checks those of a command line.

    Parameters
    ----------
    command : module
        One of the commands that write a folder.
    repeated : RunFolder
    given : dict
        Options on the command line.

    Returns
    -------
    options : dict
        Without those that say where the results go and what may be replaced: these are never taken from a record.

    Raises
    ------
    ValueError
        If one is no option of the command, or has a value that it cannot have.
    """
    actions = _actions(command)
    options = {}
    for name, value in repeated.record["options"].items():
        if name in FREE:
            continue
        try:
            options[name] = _checked(command, actions, name, value)
        except argparse.ArgumentTypeError as error:
            raise ValueError(
                f"{repeated.path / 'run.json'}: its option '{name}' cannot be repeated: {error}."
            ) from None
    # importing a class runs its module, and a record may come from anyone
    model = str(options.get("model", ""))
    if ":" in model and "model" not in given:
        raise ValueError(
            f"{repeated.path / 'run.json'} names the class {model}, and a record must not decide what code is run: "
            f"if you trust it, pass --model {model}."
        )
    return options


def _actions(command):
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    command.add_options(parser)
    return {action.dest: action for action in parser._actions}


def _checked(command, actions, name, value):
    if value is None and command.DEFAULTS.get(name, 0) is None:
        return None
    # an older version recorded None where it did what is now named
    if value is None and name in getattr(command, "BEFORE", {}):
        return command.BEFORE[name]
    if name == "parameters" and name in command.DEFAULTS:
        return _checked_parameters(value)
    if name not in actions or name not in {*command.DEFAULTS, *command.INPUTS, *command.REQUIRED}:
        raise argparse.ArgumentTypeError(f"skenigma {command.NAME} has none of that name")
    return _value(actions[name], value)


def _checked_parameters(parameters):
    """Parameters of a model; whether it has them, and the ranges, are checked by the model."""
    if not isinstance(parameters, dict):
        raise argparse.ArgumentTypeError("it is not an object")
    for name, value in parameters.items():
        # names go into a call as keywords
        if not name.isidentifier():
            raise argparse.ArgumentTypeError(f"there is no parameter '{name}'")
        if not (value is None or isinstance(value, (bool, int, float, str))):
            raise argparse.ArgumentTypeError(f"the parameter '{name}' is neither a number nor a word")
    return parameters


def _value(action, value):
    """A value as the option would have it from the command line."""
    if isinstance(action, argparse._StoreTrueAction):
        return _of_type(value, bool, "true or false")
    if action.nargs == "+":
        return [_of_type(entry, str, "a list of texts") for entry in _of_type(value, list, "a list of texts")]
    if action.type is None:
        value = _of_type(value, str, "a text")
    elif isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            # through its text, so that a record can hold no value which the command line could not
            value = action.type(str(value))
        except (ValueError, OverflowError):
            raise argparse.ArgumentTypeError(f"{value!r} is not a value that it takes") from None
    else:
        raise argparse.ArgumentTypeError(f"{value!r} is not a value that it takes")
    if action.choices is not None and value not in action.choices:
        raise argparse.ArgumentTypeError(f"{value!r} is not one of {', '.join(map(str, action.choices))}")
    return value


def _of_type(value, kind, what):
    if not isinstance(value, kind) or (kind is str and "\0" in value):
        raise argparse.ArgumentTypeError(f"it is not {what}")
    return value
