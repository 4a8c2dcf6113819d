"""The one kind of error that a user is meant to read."""


class InputError(ValueError):
    """Input that cannot be used: one clear sentence that names the file, gadget, property or acquisition,
    what was expected and what came. Hosts and command lines print the sentence and never a traceback."""
