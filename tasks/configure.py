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

from ruamel.yaml import YAML

from segcore import params
from segcore.errors import ParamsError
from segcore.files import atomic_write
from tasks import console

EXAMPLES = Path("examples")


def _lay_over(base: Any, over: dict[str, Any], merged: tuple[str, ...] = ("common", "augment")) -> None:
    """Replace keys one by one; a mapping such as `given` is replaced whole, so that no old key lingers."""
    for key, value in over.items():
        if key in merged and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _lay_section_over(document: Any, section: str, values: Any) -> None:
    if not isinstance(values, dict):
        document[section] = values
        return
    # what the example does not name gets its default, not the value of another dataset
    for key in [k for k in document[section] if k not in values]:
        if section == "data":
            del document[section][key]
        elif section == "split":
            document[section][key] = params.Split.model_fields[key].get_default(call_default_factory=True)
    _lay_over(document[section], values)


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
    folder = path.parent / "work"
    folder.mkdir(exist_ok=True)
    numbered = (folder / f"params-{name}{f'-{i}' if i else ''}.yaml" for i in itertools.count())
    kept = next(k for k in numbered if not k.exists() or k.read_bytes() == path.read_bytes())
    shutil.copy(path, kept)
    return kept


def configure(
    name: str, path: Path = Path("params.yaml"), examples: Path = EXAMPLES, source: str | None = None
) -> bool:
    """Whether params.yaml was changed to be about the example `name`; a copy of the former is kept in work/.

    Args:
        name: file of `examples` without its ending.
        path: params.yaml.
        examples: folder of the examples.
        source: folder of the images, in place of the one that the example names.

    Raises:
        ParamsError: no such example, its images' folder is not given, or the result would not be valid;
            params.yaml is then as it was.
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
    over = yaml.load(example.read_text(encoding="utf-8"))
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
        params.load(part)
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
