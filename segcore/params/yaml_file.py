"""params.yaml as plain values, by the rules of YAML 1.2: yes, no, on and off are words."""

import re
from pathlib import Path
from typing import Any

import yaml

from segcore.errors import ParamsError


class Unquoted(str):
    """A text without quotes that readers of YAML take for different values, such as 010 or 1:30."""


class _Loader(yaml.SafeLoader):
    """A safe loader of YAML 1.2 that rejects duplicate keys; what is ambiguous is `Unquoted`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                problem=f"duplicate key {twice!r}", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_AMBIGUOUS = "!unquoted"
# those of YAML 1.1, which the class shares with its parent
_Loader.yaml_implicit_resolvers = {}
# the first pattern that fits a text without quotes gives its type; others are words
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?(0|[1-9][0-9_]*)", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9][0-9_]*|[0-9][0-9_]*\.[0-9_]*)([eE][-+]?[0-9]+)?|[-+]?(0|[1-9][0-9_]*)[eE][-+]?[0-9]+|"
        r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    (
        _AMBIGUOUS,
        r"[-+]?0[0-9_]+|[-+]?0[xob][0-9a-fA-F_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|\d{4}-\d\d?-\d\d?.*",
        list("-+0123456789"),
    ),
    ("tag:yaml.org,2002:merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)


def _unquoted(loader: _Loader, node: yaml.ScalarNode) -> Unquoted:
    text = Unquoted(loader.construct_scalar(node))
    if re.match(r"\d{4}-(\d\d-\d\d$|\d\d?-\d\d?[Tt ])", text):
        # a type that no setting has, and that cannot be recorded with the others
        raise yaml.constructor.ConstructorError(
            problem=f'{text} without quotes is a date; write "{text}"', problem_mark=node.start_mark
        )
    return text


_Loader.add_constructor(_AMBIGUOUS, _unquoted)


# a colour in { } that is a comment, because it has no quotes, and such braces with nothing but comments
_COLOR_IN_BRACES = re.compile(r"[{,]\s*(#[0-9A-Fa-f]{6})\b")
_ONLY_COLORS = re.compile(r"\blabel_values:\s*\{\s*(#[0-9A-Fa-f]{6})\b[^\n]*\n(?:\s*#[^\n]*\n)*\s*\}")


def read(path: Path) -> Any:
    """Values of a YAML file.

    Raises:
        ParamsError: it is missing, cannot be read, or is not valid YAML; or colours without quotes are comments.
    """
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        values = _values(text)
    except FileNotFoundError as error:
        raise ParamsError(
            f"{path}: no such file", "run from the project's folder, or restore it with git"
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"{path}: is not UTF-8 text (byte {error.start})", "save it as UTF-8, or restore it with git"
        ) from error
    except OSError as error:
        raise ParamsError(
            f"{path}: cannot be read ({error.strerror})",
            "give this user the right to read it, or restore it with git",
        ) from error
    # ValueError: a number of thousands of digits; RecursionError: thousands of brackets
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        _require_no_color(path, _COLOR_IN_BRACES.search(text))
        raise ParamsError(
            f"{path}: is not valid YAML: {error}", "correct the indentation or quoting"
        ) from error
    _require_no_color(path, _ONLY_COLORS.search(text))
    return values


def _require_no_color(path: Path, color: re.Match[str] | None) -> None:
    if color:
        raise ParamsError(
            f"{path}: {color[1]} without quotes is a comment, because # starts one",
            f'put colours in quotes: {{"{color[1]}": land}}',
        )


def _values(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
