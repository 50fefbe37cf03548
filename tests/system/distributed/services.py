"""A cluster on loopback: PostgreSQL, S3 (moto's server), Prefect's and MLflow's servers, and workers in clones."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import psycopg2

from flows.ui import HOST, free_port
from tests.support import workspaces

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
BUCKETS = ("data", "artifacts")
_START_SECONDS = 180


@dataclass(frozen=True)
class Cluster:
    """Addresses of the services, and the environment variables that point clients and workers to them."""

    folder: Path
    prefect: str
    mlflow: str
    s3: str
    variables: Mapping[str, str]

    def environment(self, clone: Path, **more: str) -> dict[str, str]:
        """Environment of a process in `clone`."""
        mine = workspaces.environment(clone, **QUIET, **self.variables, **more)
        # not set on a real worker
        del mine["PYTHONPATH"]
        return mine


def postgres_programs() -> Path:
    """Folder of initdb and postgres, which are not in PATH on Debian and Ubuntu."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        raise RuntimeError("PostgreSQL is not installed. Remedy: apt-get install postgresql")
    return folders[-1]


def wait_for(what: str, true: Callable[[], bool], seconds: float, log: Path | None = None) -> None:
    """Wait until `true()`, which may raise OSError before.

    Raises:
        TimeoutError: after `seconds`, with the end of the log.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.3)
    output = log.read_text(errors="replace")[-3000:] if log and log.exists() else ""
    raise TimeoutError(f"{what} did not happen within {seconds:.0f} s\n{output}")


def answers(port: int) -> Callable[[], bool]:
    """A function that returns whether a process listens on a port of this machine."""

    def check() -> bool:
        with socket.create_connection((HOST, port), timeout=2):
            return True

    return check


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all its descendants at once, like a power cut."""
    try:
        root = psutil.Process(pid)
        every = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    # stopped first, so that no process can react to the death of another
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in every:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
    psutil.wait_procs(every, timeout=10)


@contextmanager
def running(
    command: Sequence[str], folder: Path, env: Mapping[str, str], log: Path, user: str | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A service that ends with the block."""
    with log.open("a") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, user=user
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
        process.wait(10)


@contextmanager
def _postgres(log: Path) -> Iterator[str]:
    """`user:password@host:port` of a server with the databases prefect and mlflow; its files end with the block."""
    programs, port, password = postgres_programs(), free_port(0), secrets.token_hex(16)
    # PostgreSQL refuses to run as root
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="segflow-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user)
        init = [str(programs / "initdb"), "-D", f"{name}/data", "-U", "segflow", "-A", "scram-sha-256"]
        init += ["--pwfile", f"{name}/password", "-E", "UTF8", "--no-sync", "--no-locale"]
        subprocess.run(init, cwd=name, check=True, user=user, stdout=subprocess.DEVNULL)
        command = [str(programs / "postgres"), "-D", f"{name}/data", "-p", str(port), "-h", HOST]
        command += ["-k", "", "-c", "fsync=off", "-c", "max_connections=100"]
        with running(command, folder, os.environ, log, user):
            wait_for("PostgreSQL", answers(port), 60, log)
            address = f"segflow:{password}@{HOST}:{port}"
            connection = None
            for _ in range(40):
                try:
                    connection = psycopg2.connect(f"postgresql://{address}/postgres")
                    break
                except psycopg2.OperationalError:
                    # the port is open before connections are accepted
                    time.sleep(0.3)
            assert connection is not None, log.read_text()
            connection.autocommit = True
            with connection.cursor() as cursor:
                for database in ("prefect", "mlflow"):
                    cursor.execute(f"CREATE DATABASE {database}")
            connection.close()
            yield address


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """All services; their logs are in `folder`/logs."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    s3, prefect, mlflow = (free_port(0) for _ in range(3))
    keys = {name: secrets.token_hex(10) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    endpoint = f"http://{HOST}:{s3}"
    shared = {**keys, "AWS_DEFAULT_REGION": "us-east-1"}
    clients = {
        "PREFECT_API_URL": f"http://{HOST}:{prefect}/api",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{mlflow}",
    }
    found = Cluster(
        folder, clients["PREFECT_API_URL"], clients["MLFLOW_TRACKING_URI"], endpoint, {**shared, **clients}
    )
    python = [sys.executable, "-m"]
    with ExitStack() as stack:

        def serve(name: str, command: list[str], port: int, **env: str) -> None:
            whole = {**workspaces.environment(folder), **QUIET, **shared, **env}
            stack.enter_context(running([*python, *command], folder, whole, logs / name))
            wait_for(name, answers(port), _START_SECONDS, logs / name)

        database = stack.enter_context(_postgres(logs / "postgres"))
        serve("s3", ["moto.server", "-H", HOST, "-p", str(s3)], s3)
        bucket = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        )
        for name in BUCKETS:
            bucket.create_bucket(Bucket=name)
        where = ["--host", HOST, "--port"]
        serve(
            "prefect",
            ["prefect", "server", "start", *where, str(prefect)],
            prefect,
            PREFECT_API_DATABASE_CONNECTION_URL=f"postgresql+asyncpg://{database}/prefect",
        )
        serve(
            "mlflow",
            [
                "mlflow",
                "server",
                "--artifacts-destination",
                "s3://artifacts",
                "--workers",
                "1",
                *where,
                str(mlflow),
            ],
            mlflow,
            MLFLOW_BACKEND_STORE_URI=f"postgresql+psycopg2://{database}/mlflow",
            MLFLOW_S3_ENDPOINT_URL=endpoint,
            MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        )
        yield found


def deploy(cluster: Cluster, project: Path) -> None:
    """Create the work pool and the deployments of prefect.yaml."""
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for command in (
        ["work-pool", "create", "--type", "process", "segflow"],
        ["deploy", "--name", "segflow"],
    ):
        done = subprocess.run(
            [*prefect, *command],
            cwd=project,
            env=cluster.environment(project),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def worker(cluster: Cluster, clone: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process worker for one stage at a time, in its own clone."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "segflow", "--type", "process"]
    command += ["--limit", "1", "--name", clone.name]
    env = cluster.environment(clone, SEGFLOW_CLONE=str(clone), PREFECT_WORKER_QUERY_SECONDS="2")
    with running(command, clone.parent, env, cluster.folder / "logs" / clone.name) as process:
        try:
            yield process
        finally:
            kill_tree(process.pid)
