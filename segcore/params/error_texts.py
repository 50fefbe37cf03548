"""Sentences for the errors that pydantic finds in params.yaml."""

from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Location = tuple[int | str, ...]

# by pydantic's type of error: what a setting can be
_NEEDED = {
    **dict.fromkeys(("bool_parsing", "bool_type"), "true or false"),
    **dict.fromkeys(("int_parsing", "int_parsing_size", "int_type", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("list_type", "tuple_type"), "a list in brackets"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a section of keys and values"),
    "string_type": "a word",
    "literal_error": "{expected}",
}
# what the value of a setting has to fulfil
_LIMITS = {
    "greater_than_equal": "must be at least {ge}, not {value}",
    "greater_than": "must be more than {gt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "finite_number": "must be a finite number, not {value}",
    "too_short": "needs {min_length} or more entries, not {actual_length}",
    "too_long": "can have at most {max_length} entries, not {actual_length}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "{value} does not fit: lower-case letters a to z, digits and hyphens are allowed, and "
    "the first must not be a hyphen",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
}
_LONGEST_VALUE = 60


def text(error: ValidationError, values: Any) -> str:
    """All problems, each with its place."""
    found = by_location(error, values).items()
    return "; ".join(f"{'.'.join(map(str, location))}: {sentence(problems)}" for location, problems in found)


def by_location(error: ValidationError, values: Any) -> dict[Location, list[ErrorDetails]]:
    """Problems by keys and indices in `values`, without what pydantic adds to name the alternatives of a type."""
    found: dict[Location, list[ErrorDetails]] = {}
    for problem in error.errors():
        found.setdefault(_location(problem, values), []).append(problem)
    # of the alternatives of a type, that of which more was read is the one that was meant
    return {
        one: found[one] for one in found if not any(one == deeper[: len(one)] != deeper for deeper in found)
    }


def _location(problem: ErrorDetails, values: Any) -> Location:
    location: list[int | str] = []
    for number, part in enumerate(problem["loc"]):
        is_last = number == len(problem["loc"]) - 1
        is_key = isinstance(values, dict) and part in values
        is_index = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if is_key or is_index:
            values = values[part]
        if is_key or is_index or (is_last and problem["type"] == "missing"):
            location.append(part)
    return tuple(location)


def sentence(problems: list[ErrorDetails]) -> str:
    """What is wrong with one setting; several problems are those of the alternatives of its type."""
    # a value of the right type has a limit to fulfil
    for problem in problems:
        if problem["type"] in _LIMITS:
            value = in_yaml(problem["input"])
            return _LIMITS[problem["type"]].format(**problem.get("ctx", {}), value=value)
    others = [problem["msg"] for problem in problems if problem["type"] not in _NEEDED]
    if others:
        return others[0].removeprefix("Value error, ")
    value = problems[0]["input"]
    if [problem["type"] for problem in problems] == ["string_type"] and not isinstance(value, list | dict):
        return f"a word is needed: put {in_yaml(value)} in quotes, or correct it"
    needed = [_NEEDED[problem["type"]].format(**problem.get("ctx", {})) for problem in problems]
    alternatives = " or ".join(dict.fromkeys(needed)).replace("true or false or ", "true, false or ")
    return f"{alternatives} is needed, not {in_yaml(value)}"


def in_yaml(value: Any) -> str:
    """A value as in params.yaml; long ones are shortened."""
    if value is None:
        return "null"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = f'"{text}"' if isinstance(value, str) else text
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} ..."
