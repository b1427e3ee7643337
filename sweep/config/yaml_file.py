"""Read a YAML file strictly: every key once, numbers as YAML 1.2 has them, and the line of everything.

PyYAML follows YAML 1.1, where 3e-4 is a string, 010 is eight, yes is true and 1:30 is ninety. Here scalars follow
YAML 1.2's core schema. Only plain data is built; tags that would construct objects are refused.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sweep.errors import InputError

Location = tuple[str | int, ...]


class YamlFile(NamedTuple):
    """The file's data and, for each key and item by its path, its line (from 1)."""

    path: Path
    data: Any
    lines: dict[Location, int]

    def line_of(self, location: Location) -> int:
        """The line of a location, or of the nearest thing around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def error(self, location: Location, message: str) -> InputError:
        """An error that names file and line."""
        return InputError(f"{self.path}:{self.line_of(location)}: {message}")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # PyYAML's own attribute


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
    ("null", r"~|null|", "~n\0"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def read_yaml(path: Path) -> YamlFile:
    """Read a file. Raises InputError naming file, line and what is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not a YAML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _walk(path, node, (), lines, seen=())
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise InputError(f"{path}:{line}: is not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: is not valid YAML: {str(error).splitlines()[0]}") from error
    finally:
        loader.dispose()
    return YamlFile(path, data, lines)


def _walk(path: Path, node: yaml.Node, at: Location, lines: dict[Location, int], seen: tuple[yaml.Node, ...]) -> None:
    """Note every line; refuse keys given twice and anchors that contain themselves."""
    if node in seen:
        raise InputError(f"{path}:{node.start_mark.line + 1}: an anchor that contains itself")
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here: Location = (*at, str(key.value))
            line = key.start_mark.line + 1
            if here in lines:
                raise InputError(f"{path}:{line}: key '{key.value}' is given twice, first on line {lines[here]}")
            lines[here] = line
            _walk(path, value, here, lines, (*seen, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(path, item, (*at, index), lines, (*seen, node))
