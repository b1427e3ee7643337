"""A foreign library kept to itself while it is used: its environment variables ours, its warnings and logs unheard."""

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def surroundings(prefix: str, variables: Mapping[str, str], loggers: Sequence[str] = ()) -> Iterator[None]:
    """Set variables and hide every other one of this prefix: what the user set for the live service is not for a file.

    loggers: those that say nothing below an error meanwhile. Warnings of the library about its own dependencies are not
    the reader's concern. All is put back afterwards.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith(prefix) or name in variables}
    levels = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(variables)
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in [name for name in os.environ if name.startswith(prefix) or name in variables]:
            del os.environ[name]
        os.environ.update(before)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
