"""A comparison in one process without DVC, Prefect and MLflow: only the work of its stages.

`python -m benchmarks._bare` in a project's folder prints seconds by stage as JSON. Imports are not counted.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segcore import params
from segcore.data.prepared import PreparedData
from tasks import compare, evaluate, ingest, prepare, project, report, train
from tasks.tracking import runs as tracking


class _Silent:
    """Stands for an MLflow run, and logs nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **keywords: None


@contextmanager
def _untracked(*arguments: Any, **keywords: Any) -> Iterator[_Silent]:
    yield _Silent()


def main() -> None:
    """Run all stages, one after the other."""
    tracking.training_run = _untracked  # type: ignore[assignment]
    tracking.log_evaluation = lambda *arguments, **keywords: None
    p, seconds = params.load(), {}

    def timed(name: str, stage: Callable[[], Any]) -> None:
        start = time.perf_counter()
        stage()
        seconds[name] = time.perf_counter() - start

    # stages import them when they start, which is not measured
    import segcore.evaluation.evaluate
    import segcore.training.loop  # noqa: F401

    timed("ingest", lambda: ingest.ingest(p.data, work=project.WORK))
    timed(
        "prepare", lambda: prepare.prepare(p, registry=Path(f"splits/{p.data.name}.csv"), work=project.WORK)
    )
    runs = [(architecture, seed) for architecture in p.architectures for seed in p.seeds]
    for architecture, seed in runs:
        timed(f"train {architecture} {seed}", lambda a=architecture, s=seed: train.train(p, a, s))  # type: ignore[misc]
    for architecture, seed in runs:
        timed(
            f"evaluate {architecture} {seed}",
            lambda a=architecture, s=seed: evaluate.run_evaluation(p, a, s),  # type: ignore[misc]
        )
    timed("compare", lambda: compare.write(compare.build(Path(), p), Path("comparison")))
    timed("report", lambda: report.report(Path(), p, PreparedData(project.PREPARED)))
    print("\n" + json.dumps(seconds))


if __name__ == "__main__":
    main()
