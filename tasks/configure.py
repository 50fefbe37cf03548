"""Merge an example's settings into params.yaml, as `dvc exp run --set-param` would; comments are kept.

`python -m tasks configure vessels` applies examples/vessels.yaml. If params.yaml already describes that dataset, it is
not changed, so that your own settings are kept.
"""

import argparse
import itertools
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML, YAMLError

from segcore import params
from segcore.errors import ParamsError
from segcore.files import atomic_write
from segcore.params.planned import AUTO, PLANNED
from tasks import console
from tasks.project import PARAMS, WORK

EXAMPLES = Path("examples")
# Sections that describe the dataset: their values come from the example, else from the defaults. In all other
# sections, keys that the example omits keep their value in params.yaml.
_OF_DATASET: dict[str, type[BaseModel]] = {
    "data": params.Data,
    "split": params.Split,
    "report": params.Report,
}


def _merge(base: Any, over: dict[str, Any], merged: tuple[str, ...] = ("common", "augment")) -> None:
    """Replace values key by key; mappings other than `merged` (such as `given`) are replaced whole."""
    for key, value in over.items():
        if key in merged and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _merge_section(document: Any, section: str, values: Any) -> None:
    if not isinstance(values, dict) or not isinstance(document.get(section), dict):
        document[section] = values
        return
    if section in _OF_DATASET:
        # keys that the example omits are planned or get their default, not the value of another dataset
        for key in [k for k in document[section] if k not in values]:
            if section == "data":
                del document[section][key]
            elif f"{section}.{key}" in PLANNED:
                document[section][key] = AUTO
            else:
                field = _OF_DATASET[section].model_fields[key]
                document[section][key] = field.get_default(call_default_factory=True)
    _merge(document[section], values)


def _add_sections(document: Any) -> None:
    """Add the section of each architecture, which its stages depend on: older files lack those of newer ones."""
    names, train = document.get("architectures"), document.get("train")
    if isinstance(names, list) and isinstance(train, dict):
        for name in names:
            if isinstance(name, str):
                train.setdefault(name, {"model": {}})


def _read(example: Path, yaml: YAML) -> Any:
    """Values of the example; every section of _OF_DATASET is present and has all required keys.

    Raises:
        ParamsError: invalid YAML, an unknown section, or a required key is missing.
    """
    try:
        values = yaml.load(example.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ParamsError(
            f"{example}: invalid YAML: {error}", "correct the indentation or quoting"
        ) from error
    if not isinstance(values, dict):
        raise ParamsError(f"{example}: has no sections", "copy another example and adapt it")
    unknown = sorted(set(map(str, values)) - set(params.Params.model_fields))
    if unknown:
        sections = ", ".join(params.Params.model_fields)
        raise ParamsError(f"{example}: unknown section {unknown[0]!r}", f"choose one of {sections}")
    for section, model in _OF_DATASET.items():
        given = values.setdefault(section, {})
        for key, field in model.model_fields.items():
            if field.is_required() and not (isinstance(given, dict) and key in given):
                raise ParamsError(f"{example}: {section}.{key} is missing", f"add {key} to section {section}")
    return values


def _located(values: Any, source: str | None, example: Path) -> str:
    """Folder of the example's images: `source`, or else the example's own with environment variables expanded."""
    if source is not None:
        return source
    located = os.path.expandvars(values["data"]["source"])
    if "$" in located:
        variable = located.partition("/")[0]
        raise ParamsError(
            f"{example}: its images are in {values['data']['source']}, but {variable} is not set",
            f"export {variable.lstrip('$')}=FOLDER, or name the folder of the images: SOURCE=FOLDER (make) or --source",
        )
    return located


def keep(path: Path, name: str) -> Path:
    """Copy params.yaml to work/ without overwriting an earlier copy that differs; returns the copy's path."""
    folder = path.parent / WORK
    folder.mkdir(exist_ok=True)
    numbered = (folder / f"params-{name}{f'-{i}' if i else ''}.yaml" for i in itertools.count())
    kept = next(k for k in numbered if not k.exists() or k.read_bytes() == path.read_bytes())
    shutil.copy(path, kept)
    return kept


def round_trip() -> YAML:
    """Reader and writer that keep comments and quotes, and write None as `null`."""
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml


def configure(name: str, path: Path = PARAMS, examples: Path = EXAMPLES, source: str | None = None) -> bool:
    """Merge the example `name` into params.yaml, and keep a copy of the previous params.yaml in work/.

    Args:
        name: file in `examples`, without file extension.
        path: params.yaml.
        examples: folder of the examples.
        source: folder of the images; None: as in the example.

    Returns:
        Whether params.yaml was changed.

    Raises:
        ParamsError: no such example, a required key of its dataset is missing, the folder of its images is not given,
            or the result would be invalid; params.yaml is then unchanged.
    """
    example = examples / f"{name}.yaml"
    if not example.is_file():
        names = ", ".join(sorted(p.stem for p in examples.glob("*.yaml")))
        raise ParamsError(f"{name}: no such example", f"choose one of {names}")
    before = params.load(path).data
    yaml = round_trip()
    over = _read(example, yaml)
    if before.name == over["data"]["name"] and source in (None, before.source):
        return False
    located = _located(over, source, example)
    document = yaml.load(path.read_text(encoding="utf-8"))
    # for the same dataset only the folder of the images changes
    if before.name != over["data"]["name"]:
        for section, values in over.items():
            _merge_section(document, section, values)
        _add_sections(document)
    document["data"]["source"] = located
    kept = keep(path, before.name)
    with atomic_write(path) as part:
        yaml.dump(document, part)
        try:
            params.load(part)
        except ParamsError as error:
            what = error.what.removeprefix(f"{part}: ")
            raise ParamsError(
                f"{example}: merged into {path}, it gives invalid parameters: {what}", f"correct {example}"
            ) from error
    print(
        f"params.yaml now describes {name} ({example}); the previous version is in work/{kept.name}",
        flush=True,
    )
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks configure", description=__doc__)
    names = ", ".join(sorted(p.stem for p in EXAMPLES.glob("*.yaml")))
    parser.add_argument("name", help=f"an example: {names}")
    parser.add_argument("--source", help="folder of the images (default: as in the example)")
    console.run(lambda a: configure(a.name, source=a.source), parser)


console.refuse_as_script(__name__)
