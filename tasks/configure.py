"""Lay a sample's settings over params.yaml, as `dvc exp run --set-param` would, with its comments kept.

`python -m tasks.configure vessels` applies examples/vessels.yaml. Nothing happens where params.yaml is already about
that dataset, so that your own changes stay.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from segcore import params
from segcore.errors import ParamsError
from segcore.files import atomic_write
from tasks import console

EXAMPLES = Path("examples")


def _lay_over(
    base: Any, over: dict[str, Any], merged: tuple[str, ...] = ("train", "common", "augment")
) -> None:
    """Replace keys section by section; a mapping such as `given` is replaced whole, so that no old key lingers."""
    for key, value in over.items():
        if key in merged and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def configure(name: str, path: Path = Path("params.yaml"), examples: Path = EXAMPLES) -> bool:
    """Whether params.yaml was changed to be about the example `name`; a copy of the former is kept in work/.

    Raises:
        ParamsError: no such example, or the result would not be valid; params.yaml is then as it was.
    """
    source = examples / f"{name}.yaml"
    if not source.is_file():
        known = ", ".join(sorted(p.stem for p in examples.glob("*.yaml")))
        raise ParamsError(f"{name}: no such example", f"choose one of {known}")
    before = params.load(path).data.name
    if before == name:
        return False
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 120
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = yaml.load(path.read_text(encoding="utf-8"))
    for section, values in yaml.load(source.read_text(encoding="utf-8")).items():
        if isinstance(values, dict):
            _lay_over(document[section], values)
        else:
            document[section] = values
    kept = path.parent / "work" / f"params-{before}.yaml"
    kept.parent.mkdir(exist_ok=True)
    shutil.copy(path, kept)
    with atomic_write(path) as part:
        yaml.dump(document, part)
        params.load(part)
    print(
        f"params.yaml is now about {name} ({source}); what it was before is in {kept.name} under work/",
        flush=True,
    )
    return True


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.configure", description=__doc__)
    known = ", ".join(sorted(p.stem for p in EXAMPLES.glob("*.yaml")))
    parser.add_argument("name", help=f"a file of examples/: {known}")
    console.run(lambda a: configure(a.name), parser)


if __name__ == "__main__":
    main()
