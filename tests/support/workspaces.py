"""Copies of the project in temporary folders, for tests that run its commands as a user does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from mlflow import MlflowClient
from mlflow.entities import Run

ROOT = Path(__file__).parents[2]
CODE = (
    "flows",
    "tasks",
    "segcore",
    "samples",
    "start",
    "data/batches/.gitkeep",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
)

# Stages with the names, outputs and graph of the real ones that compute nothing: seconds instead of minutes.
TOY = """\
stages:
  prepare:
    cmd: python toy.py prepare
    params: [data.name]
    outs: [data/prepared, plan]
  train:
    matrix: {architecture: "${architectures}", seed: "${seeds}"}
    cmd: python toy.py train ${item.architecture} ${item.seed}
    deps: [data/prepared]
    params: [train.common, "train.${item.architecture}"]
    outs: ["models/${item.architecture}-${item.seed}"]
  evaluate:
    matrix: {architecture: "${architectures}", seed: "${seeds}"}
    cmd: python toy.py evaluate ${item.architecture} ${item.seed}
    deps: ["models/${item.architecture}-${item.seed}"]
    outs: ["evaluations/${item.architecture}-${item.seed}"]
  compare:
    cmd: python toy.py compare
    deps: [evaluations]
    params: [compare, architectures, seeds]
    outs: [comparison]
  report:
    cmd: python toy.py report
    deps: [comparison]
    params: [report]
    outs: [reports/toy/scores.md: {cache: false}]
"""

TOY_SCRIPT = """\
import json, sys, time
from pathlib import Path
from segcore.params import load
from tasks.tracking import runs as tracking
from tasks.tracking.tracker import Tracker

kind, *item = sys.argv[1:]
params = load()

def write(path, text):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)

if kind == "prepare":
    write("data/prepared/data", params.data.name)
    write("plan/plan.md", "# toy")
elif kind == "train":
    architecture, seed = item[0], int(item[1])
    with tracking.training_run(Tracker.open(params), params, architecture, seed, title=architecture) as run:
        Path(f"started-{architecture}-{seed}").touch()
        while Path(f"wait-{architecture}").exists():
            time.sleep(0.05)
        steps = params.for_architecture(architecture).steps
        if steps == 13:
            raise ValueError("thirteen steps bring bad luck")
        for step in range(3):
            run.log_step({"train/loss": 1 / (step + 1)}, step)
        write(f"models/{architecture}-{seed}/model", str(steps))
elif kind == "evaluate":
    name = "-".join(item)
    write(f"evaluations/{name}/score", Path(f"models/{name}/model").read_text())
    tracking.log_evaluation(Tracker.open(params), item[0], int(item[1]), {"iou/dataset/foreground_mean": 0.5})
elif kind == "compare":
    key = "iou/dataset/foreground_mean"
    score = {"estimate": 0.5, "low": 0.4, "high": 0.6, "seed_std": None}
    rows = [{"architecture": a, "title": a, "kind": "model", "rank": i, "seeds": 1, "scores": {key: score},
             "summary": None} for i, a in enumerate(params.architectures, 1)]
    data = params.data
    comparison = {"dataset": data.name, "metric": "iou", "headline": key, "verdict": "no difference shown",
                  "leaderboard": rows, "tests": [], "notes": [], "classes": data.classes, "confidence": 0.95,
                  "seeds": params.seeds, "test_images": 1, "clusters": 1, "cluster_kind": "block",
                  "differences": {}, "empty_policy": "", "bootstrap": 10, "colors": []}
    write("comparison/comparison.json", json.dumps(comparison))
else:
    for name in ("scores.md", "report.md", "index.html"):
        write(f"reports/{params.data.name}/{name}", "# toy")
"""

TOY_PARAMS = """\
architectures: [fcn, unet]
seeds: [0]
data:
  {name: toy, source: x, classes: [background, thing], colors: [[0, 0, 0], [9, 9, 9]], label_values: {0: 0}}
split: {fractions: {train: 0.6, validation: 0.2, test: 0.2}}
prepare: {window: 64, stride: 32}
train:
  common: {steps: 3, batch: 2, crop: 32, validate_every: 3}
  fcn: {}
  unet: {}
compare: {seed: 0}
report: {title: toy}
machine: {slots: 2}
"""


def repository(folder: Path) -> None:
    """Put a folder under git and DVC, with one commit of what git does not ignore."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(command, check=True, cwd=folder)
    commit = ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start"]
    subprocess.run(commit, check=True, cwd=folder)


def copy_code(folder: Path) -> Path:
    """A copy of the project's code without data, in git like a fresh clone."""
    folder.mkdir(parents=True)
    for name in CODE:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    commit(folder, "start")
    return folder


def commit(folder: Path, message: str) -> None:
    """Commit all changes that git does not ignore."""
    for command in (["add", "-A"], ["commit", "-qm", message]):
        identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        subprocess.run(["git", *identity, *command], cwd=folder, check=True)


def remove_preload(folder: Path) -> None:
    """Let the fork server of a copy of the code load nothing, so that it starts at once."""
    server = folder / "tasks/forkserver/server.py"
    text, call = server.read_text(), "        preload()\n"
    assert text.count(call) == 1
    server.write_text(text.replace(call, ""))


def toy(folder: Path) -> Path:
    """A copy of the code with the toy pipeline, of which no stage runs in the fork server."""
    copy_code(folder)
    remove_preload(folder)
    (folder / "dvc.yaml").write_text(TOY)
    (folder / "toy.py").write_text(TOY_SCRIPT)
    (folder / "params.yaml").write_text(TOY_PARAMS)
    return folder


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Environment without the user's settings: no server, and Prefect's state inside the folder."""
    prefixes = ("PREFECT", "MLFLOW", "DVC", "SEGFLOW")
    mine = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}
    path = os.pathsep.join([str(Path(sys.executable).parent), mine.get("PATH", os.defpath)])
    own = {
        "PATH": path,
        "PREFECT_HOME": str(folder / ".prefect"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(folder),
    }
    return {**mine, **own, **more}


def dvc(folder: Path, *arguments: str) -> str:
    """Output of a DVC command in a project, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(folder: Path, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start `python -m flows.compare`."""
    command = [sys.executable, "-m", "flows.compare", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, cwd=folder, env=environment(folder, **env), text=True, **pipes)


def flow(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """(exit status, output) of `python -m flows.compare`."""
    process = start(folder, *arguments, **env)
    try:
        output, _ = process.communicate(timeout=200)
    except BaseException:
        process.send_signal(signal.SIGKILL)
        raise
    return process.returncode, output


def processes_in(folder: Path) -> list[str]:
    """Command lines of the processes whose working folder is `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def runs(folder: Path, kind: str) -> list[Run]:
    """MLflow runs of a workspace's embedded store, latest first."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.kind = '{kind}'", order_by=["start_time DESC"]))


def models(folder: Path, run: Run) -> list[str]:
    """Folders of a run's logged models, relative to a workspace where they are in its store."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    assert run.outputs is not None
    return [client.get_logged_model(one.model_id).artifact_location for one in run.outputs.model_outputs]
