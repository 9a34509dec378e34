"""The one exception type that is the user's to mend."""


class InputError(ValueError):
    """A mistake in what the user gave us: one sentence that names the value, the rule and the remedy.

    The command line prints the sentence and exits with code 2; the HTTP server answers 400 with it.
    """
