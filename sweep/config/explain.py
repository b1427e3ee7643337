"""One sentence for what is wrong in a file: where, what was found, what was expected."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from sweep.config.yaml_file import Location, YamlFile
from sweep.errors import InputError
from sweep.words import nearest
from trainer.records.files import reason


def validate(source: YamlFile, schema: type[Any]) -> Any:
    """Check a file against its schema and make the object. Raises InputError for the first thing wrong."""
    if not isinstance(source.data, dict):
        found = "nothing" if source.data is None else type(source.data).__name__
        raise source.error((), f"expected keys and values such as 'name: thesis', got {found}")
    try:
        return schema.model_validate(source.data)
    except ValidationError as error:
        raise _explain(source, schema, error) from error


def validate_part(source: YamlFile, at: Location, schema: type[Any], data: Any) -> Any:
    """Check a part of a file against a schema of its own. Raises InputError for the first thing wrong."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise _explain(source, schema, error, at) from error


def _explain(source: YamlFile, schema: type[Any], error: ValidationError, at: Location = ()) -> InputError:
    """Put pydantic's first finding into a sentence; a misspelt key before the one that is missing because of it."""
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    location = at
    for part in first["loc"]:
        # Inside a union pydantic also names the alternative it tried, which is no key of the file.
        if (*location, part) in source.lines or first["type"] == "missing":
            location = (*location, part)
    key = str(location[-1]) if location else ""
    within = ".".join(str(part) for part in location[:-1]) or "the file"
    if first["type"] == "extra_forbidden":
        known = _keys_at(schema, location[len(at) : -1])
        return source.error(location, f"unknown key '{key}' in '{within}'{nearest(key, known)}")
    if first["type"] == "missing":
        return source.error(location[:-1], f"'{key}' is missing in '{within}'")
    shown = ".".join(str(part) for part in location) or "the file"
    message = reason(first)
    given = first["input"]
    if isinstance(given, (str, int, float, bool, list)) or given is None:
        return source.error(location, f"'{shown}' is {quoted(given)}: {lowered(message)}")
    return source.error(location, f"'{shown}': {lowered(message)}")


def _keys_at(schema: type[Any], location: Location) -> Iterable[str]:
    """The keys that a schema allows at a location."""
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(schema, "model_fields", {}).get(part)
        if field is None:
            continue
        schema = _model_in(field.annotation) or schema
    return [field.alias or name for name, field in getattr(schema, "model_fields", {}).items()]


def _model_in(annotation: Any) -> Any:
    """The model class inside an annotation such as `list[Rule]` or `ClusterSection | None`."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for inner in getattr(annotation, "__args__", ()) if (found := _model_in(inner))), None)


def quoted(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else "nothing" if value is None else str(value)


def lowered(message: str) -> str:
    return message[:1].lower() + message[1:]
