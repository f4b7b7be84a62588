"""What the command line refuses before it begins."""


class UsageError(Exception):
    """A combination of options that cannot be meant."""
