"""What DVC has to do: the stages of dvc.yaml in order, and which of them are up to date.

`python -m tasks.versioning.status` prints both as JSON. `survey` asks such a process, so that who asks need not load
DVC and may load something else meanwhile.
"""

import argparse
import json
import sys
from typing import Any, NamedTuple

from segcore.errors import StageError
from tasks import console
from tasks.supervisor import run_in_group
from tasks.versioning.lock_repair import mend
from tasks.versioning.stages import Stage

_REMEDY = (
    "correct dvc.yaml or params.yaml, then run again; a dvc.lock that is damaged can be removed: "
    "results come back out of DVC's cache"
)


class Survey(NamedTuple):
    """The stages, every one after those it depends on, and the names of those that are up to date with all upstream."""

    graph: list[Stage]
    same: set[str]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage is up to date."""
        return len(self.same) == len(self.graph)


def survey() -> Survey:
    """Ask DVC about the project in the current folder.

    Raises:
        StageError: there is no DVC project here, dvc.yaml or params.yaml does not fit together, or DVC cannot tell.
    """
    status, output, tail = run_in_group([sys.executable, "-m", "tasks.versioning.status"])
    if status != 0:
        raise StageError(f"dvc status failed:\n{tail.strip()}", "mend the cause named above and run again")
    found = json.loads(output.splitlines()[-1])
    for sentence in found.get("mended", []):
        print(sentence, file=sys.stderr)
    if "error" in found:
        raise StageError(*found["error"])
    graph = [Stage(name, kind, tuple(upstream), *rest) for name, kind, upstream, *rest in found["graph"]]
    return Survey(graph, unchanged(graph, set(found["changed"])))


def unchanged(graph: list[Stage], changed: set[str]) -> set[str]:
    """Names of the stages that are up to date together with everything upstream of them."""
    same: set[str] = set()
    for stage in graph:
        if stage.name not in changed and same.issuperset(stage.upstream):
            same.add(stage.name)
    return same


def stages(repo: Any = None) -> list[Stage]:
    """The stages of dvc.yaml with params.yaml filled in, every one after those it depends on.

    Args:
        repo: DVC's, of the current folder; None: it is opened.

    Raises:
        StageError: there is no DVC project here, or dvc.yaml or params.yaml does not fit together.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import lexicographical_topological_sort

    try:
        with repo or Repo() as opened:
            graph = opened.index.graph
            order = {stage: number for number, stage in enumerate(opened.index.stages)}
            ordered = list(lexicographical_topological_sort(graph.reverse(), key=order.__getitem__))
            return [_stage(s.addressing, [u.addressing for u in graph.successors(s)]) for s in ordered]
    except DvcException as error:
        raise StageError(f"DVC: {error}", _REMEDY) from error


def _stage(name: str, upstream: list[str]) -> Stage:
    kind, _, item = name.partition("@")
    architecture, _, seed = item.rpartition("-")
    return Stage(
        name, kind, tuple(sorted(upstream)), architecture or None, int(seed) if seed.isdigit() else None
    )


def _print_here(_: argparse.Namespace) -> None:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(_wait_for_lock=True) as repo:
            found: dict[str, Any] = {"mended": mend(repo)}
            found |= {"graph": stages(repo), "changed": list(repo.status())}
    except StageError as error:
        found = {"error": [error.what, error.remedy]}
    except DvcException as error:
        found = {"error": [f"DVC: {error}", _REMEDY]}
    print(json.dumps(found))


def main() -> None:
    """Command line."""
    console.run(
        _print_here, argparse.ArgumentParser(prog="python -m tasks.versioning.status", description=__doc__)
    )


if __name__ == "__main__":
    main()
