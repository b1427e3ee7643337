"""The report: everything about a sweep on one self-contained HTML page."""

from analysis.report.build import write_report

__all__ = ["write_report"]
