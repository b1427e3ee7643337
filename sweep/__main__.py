"""`python -m sweep` is `sweep`."""

from sweep.cli.app import main

main()
