"""Paths and names in a project that more than one module uses.

Paths are relative to the project's folder. Import-light: standard library, segcore.errors, segcore.files and
segcore.names only.
"""

import os
from pathlib import Path

from segcore.errors import StageError
from segcore.files import digest, sha256
from segcore.names import ENSEMBLE, is_ensemble

# outputs of stages, tracked by DVC
INGESTED = Path("data/ingested")
PREPARED = Path("data/prepared")
SPLITS = Path("splits")
PLAN = Path("plan")
MODELS = Path("models")
EVALUATIONS = Path("evaluations")
ENSEMBLES = Path("ensembles")
COMPARISON = Path("comparison")
REPORTS = Path("reports")

# tracked by git, or the user's own
PARAMS = Path("params.yaml")
DVC_LOCK = Path("dvc.lock")
DECISIONS = Path("decisions")
START = Path("start")
PREDICTIONS = Path("predictions")
EXPORTS = Path("exports")

# local to this machine: measurements, checkpoints, caches and locks
WORK = Path("work")
COSTS = WORK / "costs"
GATE_COSTS = WORK / "gate-costs"
CHECKPOINTS = WORK / "checkpoints"
CHAMPIONS = WORK / "champion"
FETCHED = WORK / "predict"
REBUILT = WORK / "registry"
RECEIVED = WORK / "receive"
LR_RANGE = WORK / "lr-range"
PROMOTE_LOCK = WORK / "promote.lock"
RETRAIN_LOCK = WORK / "retrain.lock"
# of a comparison, or of a round of retraining as a whole
COMPARE_LOCK = WORK / "compare.lock"
SERVE_LOCK = WORK / "serve.lock"
STAGE_LOCK = WORK / "stage.lock"
# digests of the batches that fit their .dvc files
BATCH_STAMPS = WORK / "batch-stamps.json"
# last complete dvc.lock
LOCK_COPY = WORK / "dvc.lock.good"


def project_folder() -> Path:
    """The project's folder; of a stage in the temporary folder of a DVC experiment, that of the original project.

    DVC sets DVC_ROOT to it for every stage.
    """
    return Path(os.environ.get("DVC_ROOT", ""))


def enter_experiment() -> None:
    """In the temporary folder of a DVC experiment, let measurements of models be stored in the project's work/costs/.

    DVC removes that folder, and the report reads them after `dvc exp apply`. Checkpoints and caches stay apart, since
    several experiments may run the same stage at the same time.

    Raises:
        StageError: initial weights, which git ignores, were not copied: trainings would silently start without them.
    """
    project = project_folder().absolute()
    if project == Path().absolute():
        return
    if not COSTS.exists():
        (project / COSTS).mkdir(parents=True, exist_ok=True)
        WORK.mkdir(exist_ok=True)
        COSTS.symlink_to(project / COSTS)
    weights = [path.relative_to(project) for path in project.glob(f"{START}/*/model.json")]
    lacking = [str(path.parent) for path in weights if not path.exists()]
    if lacking:
        raise StageError(
            f"the experiment runs in a temporary folder without the initial weights in {', '.join(lacking)}",
            f"add {' '.join(f'`--copy-paths {path}`' for path in lacking)} to `dvc exp run`",
        )


def run_name(architecture: str, seed: int) -> str:
    """`unet-0`: the name of a training, of its model's folder and of its evaluation's folder.

    An ensemble has no seed: its name is all, such as `ensemble-unet`.
    """
    return architecture if is_ensemble(architecture) else f"{architecture}-{seed}"


def model_folder(run: str, root: Path = Path()) -> Path:
    """Folder of the bundle of a training or an ensemble, by its name."""
    return root / (ENSEMBLES / MODELS if is_ensemble(run) else MODELS) / run


def evaluation_folder(run: str, root: Path = Path()) -> Path:
    """Folder of the evaluation of a training or an ensemble, by its name."""
    return root / (ENSEMBLES / EVALUATIONS if is_ensemble(run) else EVALUATIONS) / run


def stage_name(kind: str, run: str) -> str:
    """`train@unet-0`: DVC's name of a matrix stage; one stage makes and evaluates all ensembles."""
    return ENSEMBLE if is_ensemble(run) else f"{kind}@{run}"


def split_file(dataset: str) -> Path:
    """Split assignment of all groups of a dataset."""
    return SPLITS / f"{dataset}.csv"


def report_folder(dataset: str) -> Path:
    """Folder of report, data card and scores of a dataset."""
    return REPORTS / dataset


def plan_file() -> Path:
    """JSON file with the values of settings that are `auto`."""
    return PLAN / "plan.json"


def comparison_file() -> Path:
    """JSON file with all results of the comparison."""
    return COMPARISON / "comparison.json"


def data_fingerprint(prepared: Path) -> str:
    """Hash of the prepared data: index, split, windows and statistics."""
    names = ("items.parquet", "regions.parquet", "windows.parquet", "statistics.json", "prepared.json")
    return digest(*(sha256(prepared / name) for name in names))
