"""Serve the MLflow and Prefect user interfaces of this project on this machine, until Ctrl-C.

python -m flows.ui
"""

import argparse
import os
import socket
import sys
import threading
import time

from flows import quiet  # noqa: F401  isort: skip  (before any server is started)

from segcore import params as parameters
from segcore.errors import SegflowError, StageError
from tasks import tracking_store
from tasks.processes import die_with_parent, end_groups, run_in_group

HOST = "127.0.0.1"
_START_SECONDS = 180
# one worker and no job runner: half a gigabyte instead of three
_LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def free_port(wanted: int) -> int:
    """`wanted`, or where that is taken any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StageError(f"no free port on {HOST}", "end a program that serves there")


def commands(mlflow_port: int, prefect_port: int) -> dict[str, tuple[str, list[str] | None]]:
    """Address and command by name; no command where params.yaml or PREFECT_API_URL names a server already."""
    store = tracking_store.uri(parameters.load())
    api = os.environ.get("PREFECT_API_URL")
    python = [sys.executable, "-m"]
    found: dict[str, tuple[str, list[str] | None]] = {}
    if store.startswith("http"):
        found["MLflow"] = (store, None)
    else:
        tracking_store.ensure_store(store)
        port = _port("MLflow", mlflow_port)
        serve = ["mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        found["MLflow"] = (f"http://{HOST}:{port}", [*python, *serve, "--host", HOST, "--port", str(port)])
    if api:
        found["Prefect"] = (api.removesuffix("/api"), None)
    else:
        port = _port("Prefect", prefect_port)
        serve = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
        found["Prefect"] = (f"http://{HOST}:{port}", [*python, *serve])
    return found


def _port(name: str, wanted: int) -> int:
    port = free_port(wanted)
    if port != wanted:
        print(f"{name}: port {wanted} is taken, using {port}")
    return port


def serve(servers: dict[str, tuple[str, list[str] | None]]) -> None:
    """Start the servers, say when each answers, and stay until one ends or this process is told to.

    Raises:
        StageError: a server ended by itself, or does not answer.
    """
    ended: dict[str, str] = {}

    def run(name: str, command: list[str]) -> None:
        ended[name] = run_in_group(command, {**os.environ, **_LIGHT})[2]

    try:
        for name, (_, command) in servers.items():
            if command:
                threading.Thread(target=run, args=(name, command), daemon=True).start()
        for name, (address, command) in servers.items():
            if command:
                _wait(address, name, ended)
            print(f"{name + ':':<9} {address}", flush=True)
        print("Ctrl-C ends them.", flush=True)
        while not ended:
            time.sleep(0.5)
        raise StageError(
            "\n".join(f"{n} ended:\n{tail}" for n, tail in ended.items()), "see its last lines above"
        )
    finally:
        end_groups(wait=True)


def _wait(address: str, name: str, ended: dict[str, str]) -> None:
    host, port = address.removeprefix("http://").split(":")
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and name not in ended:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.2)
    raise StageError(
        f"{name} does not answer on {address}\n{ended.get(name, '')}", "see its last lines above"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.ui", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mlflow-port", type=int, default=5000, help="default: %(default)s")
    parser.add_argument("--prefect-port", type=int, default=4200, help="default: %(default)s")
    arguments = parser.parse_args()
    die_with_parent()
    try:
        serve(commands(arguments.mlflow_port, arguments.prefect_port))
    except SegflowError as error:
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nEnded.")


if __name__ == "__main__":
    main()
