"""What can go wrong here."""


class BenchmarkError(Exception):
    """Something cannot be measured; the message is one sentence for the user."""
