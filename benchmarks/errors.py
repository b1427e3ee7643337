"""The errors of this package."""


class BenchmarkError(Exception):
    """Something cannot be measured; the message is one sentence for the user."""
