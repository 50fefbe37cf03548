"""The table of bad inputs and the code that detects them have the same kinds."""

import ast
from collections.abc import Iterator
from pathlib import Path

from segcore.ingest.problems import KINDS

ROOT = Path(__file__).parents[2]
FILES = [p for room in ("segcore", "tasks") for p in sorted((ROOT / room).rglob("*.py"))]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
# Rooms whose functions may take the kind of a bad input; elsewhere a `kind` is that of a run or of a picture.
FINDERS = ("segcore/errors.py", "segcore/ingest/", "segcore/io/", "segcore/data/volumes.py")


def strings(node: ast.AST) -> set[str]:
    return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def results(node: ast.AST) -> set[str]:
    """Strings that an expression may become: of `a if c else b` not those of the condition."""
    if isinstance(node, ast.IfExp):
        return results(node.body) | results(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def functions_with_kind() -> dict[str, int]:
    """Functions with a parameter `kind`, and its position among the arguments of a call."""
    positions = {"DataError": 2}
    for path, tree in TREES.items():
        if not path.relative_to(ROOT).as_posix().startswith(FINDERS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                names = [a.arg for a in node.args.args if a.arg != "self"]
                if "kind" in names:
                    positions[node.name] = names.index("kind")
    return positions


def raised() -> Iterator[tuple[str, str]]:
    """(kind, file) of every kind that the code gives to an error or to a quarantined row."""
    positions = functions_with_kind()
    for path, tree in TREES.items():
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name not in positions:
                    continue
                own = [k.value for k in node.keywords if k.arg == "kind"] + node.args[positions[name] :][:1]
                for value in own:
                    yield from ((kind, file) for kind in results(value))
            elif isinstance(node, ast.Assign) and file.startswith(FINDERS):
                if any(isinstance(target, ast.Name) and target.id == "kind" for target in node.targets):
                    yield from ((kind, file) for kind in results(node.value))
            elif isinstance(node, ast.FunctionDef) and node.name in positions:
                names = [a.arg for a in node.args.args]
                for argument, default in zip(names[::-1], node.args.defaults[::-1], strict=False):
                    if argument == "kind":
                        yield from ((kind, file) for kind in results(default))


def test_every_kind_that_is_raised_is_in_the_table() -> None:
    found = dict(raised())
    assert len(found) > 30
    unknown = {kind: file for kind, file in found.items() if kind not in KINDS}
    assert not unknown


def test_every_kind_of_the_table_is_named_by_the_code_that_finds_it() -> None:
    table = ROOT / "segcore/ingest/problems.py"
    named = set().union(*(strings(tree) for path, tree in TREES.items() if path != table))
    # An item that prepare sets aside is no error: `Assignment.aside` holds its reason.
    assert set(KINDS) - named == {"set-aside"}
