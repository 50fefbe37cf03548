"""Pages of docs/reference, from parameter models, metrics, commands and modules: `python -m docs.generate`.

They are not under git: `make docs` writes them before it builds the site, so that they agree with the code.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segcore.files import atomic_write
from segcore.metrics import EMPTY_POLICY, OBJECT_POLICY, SURFACE_POLICY, table
from segcore.params import Params, TrainSettings
from tasks.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs/reference"

PARAMS = """# params.yaml

Generated from the models in `segcore/params`. An unknown key is an error. A key without a default is required.
"""

METRIC_ROWS = """# Metrics

Generated from `segcore/metrics`. `compare.metric` selects the one that ranks.

| name | title | unit | direction | meaning |
|---|---|---|---|---|
"""

COMMAND_LIST = """# Commands

Generated from the commands' own help. `make` without arguments lists the targets that call them. Run
`. .venv/bin/activate` first, or write `.venv/bin/python` in place of `python`.
"""


def models(path: str = "", model: type[BaseModel] = Params) -> Iterator[tuple[str, type[BaseModel]]]:
    """Each section of params.yaml with its path, in order: ("", Params), ("data", Data), ("train.common", ...), ..."""
    yield path, model
    for key, field in model.model_fields.items():
        if model is Params and key == "train":
            yield from models("train.common", TrainSettings)
        elif (inner := section(field)) is not None:
            yield from models(f"{path}.{key}".lstrip("."), inner)


def section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a section of its own, else None."""
    kind = field.annotation
    return kind if inspect.isclass(kind) and issubclass(kind, BaseModel) else None


def type_text(kind: Any) -> str:
    """A type as a user of YAML reads it: "integer or null", "list of text"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin is Union or type(kind).__name__ == "UnionType":
        return " or ".join(type_text(a) for a in arguments)
    if origin is list:
        return f"list of {type_text(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)} × {type_text(arguments[0])}"
    if origin is dict:
        return f"mapping of {type_text(arguments[0])} to {type_text(arguments[1])}"
    plain = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        Any: "any",
    }
    return plain.get(kind, "section")


def limits(field: FieldInfo) -> str:
    """Limits of a value, such as "≥ 0, < 1"; empty without any."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in signs.items()
        if getattr(rule, name, None) is not None
    )


def field_row(key: str, field: FieldInfo) -> str:
    """One row of the table of a section."""
    kind = ", ".join(filter(None, [type_text(field.annotation), limits(field)]))
    if field.is_required():
        default = "required"
    else:
        value = field.get_default(call_default_factory=True)
        dumped = yaml.safe_dump(_plain(value), default_flow_style=True, width=1000, sort_keys=False)
        # YAML's end of a document follows a lone value
        default = "`" + dumped.removesuffix("...\n").strip() + "`"
    if section(field) is not None:
        default = "see below"
    return f"| `{key}` | {kind} | {default} | {field.description} |"


def params_page() -> str:
    """The reference of params.yaml, one table per section."""
    parts = [PARAMS]
    for path, model in models():
        parts.append(f"## {path or 'Sections'}\n\n{inspect.cleandoc(model.__doc__ or '')}\n")
        rows = [field_row(key, field) for key, field in model.model_fields.items()]
        parts.append("\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def metrics_page() -> str:
    """The table of metrics."""
    rows = (
        f"| `{m['name']}` | {m['title']} | {m['unit']} | {m['direction']} | {m['definition']} |"
        for m in table()
    )
    policies = {"Pixels": EMPTY_POLICY, "Objects": OBJECT_POLICY, "Surfaces": SURFACE_POLICY}
    return (
        METRIC_ROWS + "\n".join(rows) + "".join(f"\n\n{of}: {text}" for of, text in policies.items()) + "\n"
    )


def commands_page() -> str:
    """Help texts of `python -m tasks` and of each of its commands."""
    width = {**os.environ, "COLUMNS": "100"}

    def shown(name: str) -> str:
        command = [sys.executable, "-m", "tasks", name, "--help"]
        done = subprocess.run(command, cwd=ROOT, env=width, check=True, capture_output=True, text=True)
        return f"## {name}\n\n{COMMANDS[name].capitalize()}.\n\n```text\n{done.stdout.strip()}\n```\n"

    with ThreadPoolExecutor(2) as pool:
        return COMMAND_LIST + "\n" + "\n".join(pool.map(shown, COMMANDS))


def api_pages() -> dict[str, str]:
    """One page per room of segcore, by file name: the documentation of its public modules."""
    pages = {}
    for room in sorted((ROOT / "segcore").iterdir()):
        modules = sorted(room.rglob("*.py")) if room.is_dir() else [room] if room.suffix == ".py" else []
        names = [
            ".".join(m.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for m in modules
        ]
        public = [name for name in names if "._" not in name]
        if public:
            first, *others = public
            blocks = [f"::: {first}\n    options: {{heading_level: 1}}", *(f"::: {name}" for name in others)]
            pages[f"{first.removeprefix('segcore.')}.md"] = "\n\n".join(blocks) + "\n"
    return pages


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def main() -> None:
    """Write all pages of the reference."""
    pages = {"params.md": params_page(), "metrics.md": metrics_page(), "commands.md": commands_page()}
    pages |= {f"api/{name}": text for name, text in api_pages().items()}
    (REFERENCE / "api").mkdir(parents=True, exist_ok=True)
    for stale in set(REFERENCE.rglob("*.md")) - {REFERENCE / name for name in pages}:
        stale.unlink()
    for name, text in pages.items():
        with atomic_write(REFERENCE / name) as part:
            part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
