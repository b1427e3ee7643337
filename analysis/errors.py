"""What can go wrong here."""


class AnalysisError(Exception):
    """What there is cannot be made into what was asked for; the base of every error of this package."""
