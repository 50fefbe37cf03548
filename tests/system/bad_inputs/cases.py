"""All cases of bad input.

`python -m tests.system.bad_inputs.cases > docs/guide/bad-input.md` writes the table of kinds with an example of each.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from segcore.ingest.problems import KINDS, table
from tests.support.tiny import make_pairs
from tests.system.bad_inputs import places as _places  # noqa: F401 (adds its cases to PICTURES)
from tests.system.bad_inputs import unprivileged
from tests.system.bad_inputs.annotations import COCO, COLOURS, LISTED, POLYGONS
from tests.system.bad_inputs.case import Case, Ingested
from tests.system.bad_inputs.drawn import BRUSHED, DRAWN
from tests.system.bad_inputs.failures import (
    FAILURES,
    changed_while_read,
    error_of,
    relabelled,
    set_aside,
    slow_and_crashed,
    stray_mask,
    unmatched_files,
    unused_key,
)
from tests.system.bad_inputs.numbered import FILES, NUMBERED, TOUCHING
from tests.system.bad_inputs.pictures import PICTURES
from tests.system.bad_inputs.scenes import CELLS, FLOATS, INFRARED, SCENES
from tests.system.bad_inputs.series import SERIES
from tests.system.bad_inputs.several import NNUNET, OTHERS, SEVERAL
from tests.system.bad_inputs.volumes import ARRAYS, VOLUMES

SETS = {
    s.name: s
    for s in (
        *(
            PICTURES,
            SEVERAL,
            OTHERS,
            NNUNET,
            COLOURS,
            LISTED,
            COCO,
            BRUSHED,
            DRAWN,
            SCENES,
            INFRARED,
            CELLS,
            FLOATS,
            POLYGONS,
        ),
        *(VOLUMES, ARRAYS),
        SERIES,
        *(NUMBERED, FILES, TOUCHING),
    )
}

HEAD = """# Bad input

`make check-data` finds all of this before training. A *quarantined* item is left out and reported with its reason in
the data card (and, after `make run`, in `data/ingested/quarantine.csv`); the other items are used. Correct a
quarantined item, and the next run uses it. A *noted* item is used, and reported in the data card. Input that *fails*
stops the ingest, because no single item is the cause.

The examples are real messages: the code in `tests/system/bad_inputs` produces each kind, and
`python -m tests.system.bad_inputs.cases > docs/guide/bad-input.md` writes this page.
"""


def no_permission(folder: Path, what: str = "images/a2.png") -> list[list[str]]:
    """Image, kind, reason and remedy of each quarantined item when a file or folder may not be read."""
    make_pairs(folder, 4)
    (folder / what).chmod(0)
    done = subprocess.run(
        [sys.executable, "-m", "tests.system.bad_inputs.unprivileged", str(folder)],
        preexec_fn=unprivileged.drop,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    (folder / what).chmod(0o700)
    return [line.split("\t") for line in done.stdout.splitlines()]


def texts(ingested: Ingested, case: Case) -> list[tuple[str, str, str]]:
    """Kind, text and remedy of all messages about a case: its reason, notes and links."""
    row = ingested.row(case.name)
    links = ingested.links[(ingested.links["a"] == row["id"]) | (ingested.links["b"] == row["id"])]
    messages = [(row["kind"], row["reason"], row["remedy"])] if row["kind"] else []
    messages += [(kind, f"{row['id']}: {text}", "") for kind, text in json.loads(row["notes"])]
    return messages + [(k, f"{a} and {b}: {t}", "") for a, b, k, t in links.itertuples(index=False)]


def examples(root: Path) -> dict[str, tuple[str, str]]:
    """An example per kind: kind -> text and remedy."""
    example_of: dict[str, tuple[str, str]] = {}
    for case in FAILURES:
        folder = root / case.name / "photos"
        error = error_of(case, folder)
        text = error.what.replace(str(folder), "photos").replace("\n", " ")
        example_of.setdefault(case.kind, (text[:300] + ("..." if len(text) > 300 else ""), error.remedy))
    for data_set in SETS.values():
        ingested = data_set.build(root)
        for case in data_set.cases:
            for kind, text, remedy in texts(ingested, case):
                if kind == case.kind:
                    example_of.setdefault(kind, (text, remedy))
    changed, *others = changed_while_read(root / "changed"), *slow_and_crashed().values()
    example_of |= {error.kind: (error.what, error.remedy) for error in (changed, *others)}
    ((_, kind, reason, remedy),) = no_permission(root / "permission")
    example_of[kind] = reason, remedy
    refused = relabelled(root / "relabelled")
    example_of[refused.kind] = refused.what, refused.remedy
    example_of["set-aside"] = set_aside(), ""
    example_of["mask-without-image"] = stray_mask(root / "stray"), ""
    for kind, (path, text) in unmatched_files(root / "unmatched").items():
        example_of[kind] = f"{path}: {text}", ""
    example_of["unused-key"] = unused_key(root / "unused"), ""
    return example_of


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        example_of = examples(Path(folder))
    missing = set(KINDS) - set(example_of)
    assert not missing, f"no case has the kinds {missing}"
    print(f"{HEAD}\n{table(example_of)}")


if __name__ == "__main__":
    main()
