"""What every record has in common: known keys, a schema version, times in UTC. Standard library and pydantic only."""

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Literal[1] = 1
Finite = Annotated[float, Field(allow_inf_nan=False)]


def now() -> datetime:
    """The present moment, UTC, to the millisecond."""
    moment = datetime.now(timezone.utc)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class Record(BaseModel):
    """What every file and every part of one has in common: known keys only, never changed once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Versioned(Record):
    """A whole file."""

    schema_version: Literal[1] = SCHEMA_VERSION


class Difference(NamedTuple):
    """A field in which two records differ, and what each has in it."""

    name: str
    mine: object
    theirs: object


def difference(mine: Sequence[BaseModel], theirs: Sequence[BaseModel]) -> Difference | None:
    """Find the first field in which records of the same kinds differ, None where they are equal."""
    for one, other in zip(mine, theirs, strict=True):
        for name in type(one).model_fields:
            if getattr(one, name) != getattr(other, name):
                return Difference(name, getattr(one, name), getattr(other, name))
    return None
