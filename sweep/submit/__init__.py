"""Acting on a plan: the intent on disk, then the jobs; remedies, cancelling, waiting."""
