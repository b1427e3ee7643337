"""Plan a sweep, submit it, tell how it stands, retry what failed; and the command line."""
