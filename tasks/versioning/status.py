"""State of the pipeline: the stages of dvc.yaml in order, and which of them are up to date.

`python -m tasks.versioning.status` prints both as JSON, after repairs of DVC's files; with `--read-only` it changes no
file. `survey` runs it as a subprocess, so that the caller does not import DVC.
"""

import argparse
import json
import sys
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from segcore.errors import StageError
from tasks import console
from tasks.failures import sentence_in
from tasks.supervisor import run_in_group
from tasks.versioning.dvc_command import reason
from tasks.versioning.lock_repair import repair
from tasks.versioning.stages import Stage

_REMEDY = (
    "correct dvc.yaml or params.yaml, then run again; a damaged dvc.lock can be removed: "
    "DVC restores results from its cache"
)


class Survey(NamedTuple):
    """State of the pipeline.

    Attributes:
        graph: all stages, each after those it depends on.
        unchanged: names of the stages that are up to date together with everything upstream.
    """

    graph: list[Stage]
    unchanged: set[str]

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage is up to date."""
        return len(self.unchanged) == len(self.graph)


def survey(read_only: bool = False) -> Survey:
    """State of the project in the current folder, after repairs of DVC's files.

    Args:
        read_only: repair nothing, and leave DVC's lock files as they are.

    Raises:
        StageError: there is no DVC project here, dvc.yaml and params.yaml do not match, or DVC failed.
    """
    option = ["--read-only"] if read_only else []
    status, output, tail = run_in_group([sys.executable, "-m", "tasks.versioning.status", *option])
    if status != 0:
        sentence = sentence_in(tail)
        what, remedy = sentence or (reason(tail), "correct the cause above and run again")
        raise StageError(f"dvc status failed: {what}", remedy)
    answer = json.loads(output.splitlines()[-1])
    for sentence in answer.get("repairs", []):
        print(sentence, file=sys.stderr)
    if "error" in answer:
        raise StageError(*answer["error"])
    graph = [Stage(name, kind, tuple(upstream), *rest) for name, kind, upstream, *rest in answer["graph"]]
    return Survey(graph, unchanged(graph, set(answer["changed"])))


def unchanged(graph: list[Stage], changed: set[str]) -> set[str]:
    """Names of the stages that are up to date together with everything upstream of them."""
    names: set[str] = set()
    for stage in graph:
        if stage.name not in changed and names.issuperset(stage.upstream):
            names.add(stage.name)
    return names


def stages(repo: Any = None) -> list[Stage]:
    """The stages of dvc.yaml with values of params.yaml, each after those it depends on.

    Args:
        repo: dvc.repo.Repo of the current folder; None: it is opened.

    Raises:
        StageError: there is no DVC project here, or dvc.yaml and params.yaml do not match.
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


def _print_here(arguments: argparse.Namespace) -> None:
    from dvc.exceptions import DvcException
    from dvc.lock import LockNoop
    from dvc.repo import Repo

    try:
        with Repo(_wait_for_lock=True) as repo, TemporaryDirectory() as scratch:
            if arguments.read_only:
                # DVC writes its locks even if it only reads
                repo.lock, repo.tmp_dir = LockNoop(), scratch
            answer: dict[str, Any] = {"repairs": [] if arguments.read_only else repair(repo)}
            with repo.lock:
                graph = stages(repo)
            answer |= {"graph": graph, "changed": list(repo.status())}
    except StageError as error:
        answer = {"error": [error.what, error.remedy]}
    except DvcException as error:
        answer = {"error": [f"DVC: {error}", _REMEDY]}
    print(json.dumps(answer))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tasks.versioning.status", description=__doc__)
    parser.add_argument("--read-only", action="store_true", help="change no file")
    console.run(_print_here, parser)


if __name__ == "__main__":
    main()
