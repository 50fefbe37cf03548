"""segcore is a standalone library: it names no tool of the pipeline, not even in a text."""

import ast
import re
from pathlib import Path

import pytest

SEGCORE = Path(__file__).parents[2] / "segcore"
FILES = sorted(path.relative_to(SEGCORE).as_posix() for path in SEGCORE.rglob("*.py"))
# "make" and "tasks" are English words too: only the command and the package are meant.
TOOLS = re.compile(
    r"\b(dvc|prefect|mlflow)\b|\bpython -m (tasks|flows)\b|\b(tasks|flows)[./]\w|`make\b|\bmake [a-z-]+`"
    r"|^(tasks|flows|make)$",
    re.IGNORECASE,
)

# a field of STAC items of models
ALLOWED = {"export/_stac.py": {"tasks"}}


def texts(source: str) -> list[str]:
    """String constants and docstrings, those within f-strings too."""
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


@pytest.mark.parametrize("name", FILES)
def test_segcore_names_no_tool_of_the_pipeline(name: str) -> None:
    found = {text for text in texts((SEGCORE / name).read_text(encoding="utf-8")) if TOOLS.search(text)}
    found -= ALLOWED.get(name, set())
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        '"""For checkpoints, facts and MLflow."""',
        'remedy = "run `dvc repro prepare` first"',
        'remedy = f"{path}: restore it with `dvc checkout`"',
        'modules = ("scipy.fftpack", "tasks.console")',
        '"""When the retraining runs under `make serve`."""',
        'command = ["-m", "tasks"]',
    ],
)
def test_a_named_tool_is_found(source: str) -> None:
    assert any(TOOLS.search(text) for text in texts(source))


@pytest.mark.parametrize(
    "text", ["make prepare.window smaller", "Damaged files make rasterio fail.", "two tasks"]
)
def test_plain_english_is_not_taken_for_a_tool(text: str) -> None:
    assert not TOOLS.search(text)
