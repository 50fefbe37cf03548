"""No artefact is loaded through pickle, servers listen on the loopback address only, and no secret is recorded."""

import ast
import json
import re
from pathlib import Path

import pytest

from flows import ui
from segcore.errors import ModelError
from segcore.models.base.bundle import load_bundle

ROOT = Path(__file__).parents[2]
SOURCES = [
    p for name in ("segcore", "tasks", "flows", "benchmarks") for p in sorted((ROOT / name).rglob("*.py"))
]
UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "torch.load",
}
# PyTorch publishes ImageNet weights as a pickle: this file is checked by its sha256 and opened with weights_only.
# ruamel's round-trip loader, which keeps comments, builds plain values only.
ALLOWED = {
    "segcore/models/base/pretrained.py": {"torch.load", "pickle.UnpicklingError"},
    "benchmarks/nights.py": {"yaml.load"},
    "tasks/complete.py": {"yaml.load"},
    "tasks/configure.py": {"yaml.load"},
}


def _name(node: ast.expr) -> str:
    return ast.unparse(node)


def unsafe(text: str) -> set[str]:
    """Imports and calls in a source that could execute the content of a file."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.partition(".")[0] in UNSAFE_MODULES}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNSAFE_MODULES:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call):
            name = _name(node.func)
            if name in UNSAFE_CALLS or any(
                k.arg == "allow_pickle" and _name(k.value) == "True" for k in node.keywords
            ):
                found.add(name)
    return found


def test_no_source_loads_through_pickle_or_executes_the_content_of_a_file():
    found = {p.relative_to(ROOT).as_posix(): unsafe(p.read_text(encoding="utf-8")) for p in SOURCES}
    found = {name: calls - ALLOWED.get(name, set()) for name, calls in found.items()}
    assert len(found) > 80 and not {name: calls for name, calls in found.items() if calls}


def test_the_scan_finds_what_it_looks_for():
    lines = ("import pickle", "from joblib import load", "np.load(f, allow_pickle=True)")
    text = "\n".join([*lines, "torch.load(f)", "yaml.load(f)", "eval(s)"])
    assert unsafe(text) == {"pickle", "joblib.load", "np.load", "torch.load", "yaml.load", "eval"}


def test_the_one_pickle_is_opened_with_weights_only():
    tree = ast.parse((ROOT / "segcore/models/base/pretrained.py").read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and _name(n.func) == "torch.load"]
    assert len(calls) == 1
    assert {k.arg: _name(k.value) for k in calls[0].keywords}["weights_only"] == "True"


def test_servers_listen_on_the_loopback_address_only(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for address, command in ui.commands(0, 0).values():
        assert re.match(r"http://127\.0\.0\.1:\d+$", address)
        assert command is not None and command[command.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_bundle_whose_files_are_not_the_ones_described_is_not_loaded(tmp_path, name):
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    facts = {"format": 2, "weights_sha256": "0" * 64, "architecture": "unet", "title": "U-Net"}
    facts |= {"in_channels": 3, "num_classes": 2, "settings": {}}
    (tmp_path / "model.json").write_text(json.dumps(facts))
    if name == "model.json":
        (tmp_path / name).write_text("{")
    with pytest.raises(ModelError, match=rf"{name}[\s\S]*"):
        load_bundle(tmp_path)


def test_params_yaml_and_examples_hold_no_secret():
    files = [ROOT / "params.yaml", *sorted((ROOT / "examples").glob("*.yaml"))]
    words = re.compile(r"(?i)\b(password|passwd|secret|token|api[_-]?key|access[_-]?key)\b\s*:")
    assert not [f.name for f in files if words.search(f.read_text(encoding="utf-8"))]
