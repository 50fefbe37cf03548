"""Lay an example's settings over params.yaml, as `dvc exp run --set-param` would, with its comments kept.

`python -m tasks configure vessels` applies examples/vessels.yaml. Nothing happens where params.yaml is already about
that dataset, so that your own changes stay.
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
from tasks import console
from tasks.project import PARAMS, WORK

EXAMPLES = Path("examples")
# Sections that describe the dataset: the example and the defaults decide them. Others keep what params.yaml has.
_OF_DATASET: dict[str, type[BaseModel]] = {
    "data": params.Data,
    "split": params.Split,
    "report": params.Report,
}


def _lay_over(base: Any, over: dict[str, Any], merged: tuple[str, ...] = ("common", "augment")) -> None:
    """Replace keys one by one; a mapping such as `given` is replaced whole, so that no old key lingers."""
    for key, value in over.items():
        if key in merged and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _lay_section_over(document: Any, section: str, values: Any) -> None:
    if not isinstance(values, dict) or not isinstance(document.get(section), dict):
        document[section] = values
        return
    if section in _OF_DATASET:
        # what the example does not name gets its default, not the value of another dataset
        for key in [k for k in document[section] if k not in values]:
            if section == "data":
                del document[section][key]
            else:
                field = _OF_DATASET[section].model_fields[key]
                document[section][key] = field.get_default(call_default_factory=True)
    _lay_over(document[section], values)


def _read(example: Path, yaml: YAML) -> Any:
    """The example's values, with every section of _OF_DATASET and every required key in it.

    Raises:
        ParamsError: no YAML, an unknown section, or a required key is missing.
    """
    try:
        values = yaml.load(example.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise ParamsError(
            f"{example}: is no valid YAML: {error}", "correct the indentation or quoting"
        ) from error
    if not isinstance(values, dict):
        raise ParamsError(f"{example}: holds no sections", "copy another example and adapt it")
    unknown = sorted(set(map(str, values)) - set(params.Params.model_fields))
    if unknown:
        known = ", ".join(params.Params.model_fields)
        raise ParamsError(f"{example}: unknown section {unknown[0]!r}", f"choose among {known}")
    for section, model in _OF_DATASET.items():
        found = values.setdefault(section, {})
        for key, field in model.model_fields.items():
            if field.is_required() and not (isinstance(found, dict) and key in found):
                raise ParamsError(f"{example}: {section}.{key} is missing", f"add {key} to section {section}")
    return values


def _located(values: Any, source: str | None, example: Path) -> str:
    """Where the example's images are: as told, or with the environment variable in it filled in."""
    if source is not None:
        return source
    located = os.path.expandvars(values["data"]["source"])
    if "$" in located:
        variable = located.partition("/")[0]
        raise ParamsError(
            f"{example}: the folder of the images is {values['data']['source']}, and {variable} is not set",
            f"export {variable.lstrip('$')}=FOLDER, or name the folder itself: SOURCE=FOLDER with make, else --source",
        )
    return located


def _keep(path: Path, name: str) -> Path:
    """A copy of params.yaml in work/ that overwrites no earlier one of other content."""
    folder = path.parent / WORK
    folder.mkdir(exist_ok=True)
    numbered = (folder / f"params-{name}{f'-{i}' if i else ''}.yaml" for i in itertools.count())
    kept = next(k for k in numbered if not k.exists() or k.read_bytes() == path.read_bytes())
    shutil.copy(path, kept)
    return kept


def configure(name: str, path: Path = PARAMS, examples: Path = EXAMPLES, source: str | None = None) -> bool:
    """Whether params.yaml was changed to be about the example `name`; a copy of the former is kept in work/.

    Args:
        name: file of `examples` without its ending.
        path: params.yaml.
        examples: folder of the examples.
        source: folder of the images, in place of the one that the example names.

    Raises:
        ParamsError: no such example, a required key of its dataset is missing, its images' folder is not given, or the
            result would not be valid; params.yaml is then as it was.
    """
    example = examples / f"{name}.yaml"
    if not example.is_file():
        known = ", ".join(sorted(p.stem for p in examples.glob("*.yaml")))
        raise ParamsError(f"{name}: no such example", f"choose one of {known}")
    before = params.load(path).data
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    over = _read(example, yaml)
    if before.name == over["data"]["name"] and source in (None, before.source):
        return False
    located = _located(over, source, example)
    document = yaml.load(path.read_text(encoding="utf-8"))
    if before.name != over["data"]["name"]:  # else only the folder is another one
        for section, values in over.items():
            _lay_section_over(document, section, values)
    document["data"]["source"] = located
    kept = _keep(path, before.name)
    with atomic_write(path) as part:
        yaml.dump(document, part)
        try:
            params.load(part)
        except ParamsError as error:
            what = error.what.removeprefix(f"{part}: ")
            raise ParamsError(
                f"{example}: with it {path} would not be valid: {what}", f"correct {example}"
            ) from error
    print(
        f"params.yaml is now about {name} ({example}); what it was before is in {kept.name} under work/",
        flush=True,
    )
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks configure", description=__doc__)
    known = ", ".join(sorted(p.stem for p in EXAMPLES.glob("*.yaml")))
    parser.add_argument("name", help=f"a file of examples/: {known}")
    parser.add_argument("--source", help="folder of the images, in place of the one that the example names")
    console.run(lambda a: configure(a.name, source=a.source), parser)


console.refuse_as_script(__name__)
