"""The report: everything about a sweep on one page of HTML that needs nothing else, to mail or to open from a disk."""

from analysis.report.build import write_report

__all__ = ["write_report"]
