"""The report: everything about a sweep on one page of HTML that needs nothing else, to mail or to open from a disk."""

from analysis.report.build import write_report
from analysis.report.standing import RunStatus

__all__ = ["RunStatus", "write_report"]
