"""The errors of this package."""


class AnalysisError(Exception):
    """Results cannot become the table, figure or page asked for; base of every error of this package."""
