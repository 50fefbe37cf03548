"""Serve the MLflow and Prefect user interfaces of this project on this machine, until Ctrl-C.

python -m flows.ui
"""

import argparse
import os
import socket
import sys
import threading
import time

from flows import environment  # noqa: F401  isort: skip  (before any server is started)

from prefect.settings import PREFECT_API_URL

from flows import mlflow_pages, server
from segcore import params as parameters
from segcore.errors import StageError, masked
from tasks.failures import reported
from tasks.supervisor import die_with_parent, end_groups, run_in_group
from tasks.tracking import store as tracking_store

HOST = "127.0.0.1"
_START_SECONDS = 180
# without the job runner, and with one worker, the MLflow server needs 0.5 GB of memory, not 3 GB
_LIGHT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def port_number(text: str) -> int:
    """A port on the command line.

    Raises:
        ArgumentTypeError: there is no such port.
    """
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 (any) to 65535")
    return int(text)


def free_port(wanted: int) -> int:
    """`wanted`, or any free port if that is in use.

    Raises:
        StageError: no port is free.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StageError(f"no free port on {HOST}", "end a program that uses one")


# by name: address, and command; no command for a server that is already running
Servers = dict[str, tuple[str, list[str] | None]]


def commands(mlflow_port: int, prefect_port: int) -> Servers:
    """Servers of both interfaces; those in params.yaml and PREFECT_API_URL are already running."""
    store = tracking_store.uri(parameters.load())
    python = [sys.executable, "-m"]
    servers: Servers = {}
    if store.startswith("http"):
        servers["MLflow"] = (store, None)
    else:
        tracking_store.ensure_store(store)
        port = _port("MLflow", mlflow_port)
        command = ["mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
        command += ["--host", HOST, "--port", str(port)]
        servers["MLflow"] = (f"http://{HOST}:{port}", [*python, *command])
    return servers | prefect_server(prefect_port)


def prefect_server(wanted: int) -> Servers:
    """Prefect's server: the one at PREFECT_API_URL, else a new one, on the wanted port if that is free."""
    api = PREFECT_API_URL.value()
    if api:
        return {"Prefect": (api.removesuffix("/api"), None)}
    port = _port("Prefect", wanted)
    command = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return {"Prefect": (f"http://{HOST}:{port}", [sys.executable, "-m", *command])}


def _port(name: str, wanted: int) -> int:
    port = free_port(wanted)
    if port != wanted:
        print(f"{name}: port {wanted} is in use, using {port}")
    return port


def start(servers: Servers) -> dict[str, str]:
    """Start the servers, and print the address of each when it answers.

    Returns:
        The last lines of output of each server that has ended, by name; filled while the servers run.

    Raises:
        StageError: a server ended or does not answer.
    """
    ended: dict[str, str] = {}

    # Prefect's pages would ask port 4200
    pages = {"PREFECT_UI_API_URL": f"{servers['Prefect'][0]}/api"} if "Prefect" in servers else {}

    def run(name: str, command: list[str]) -> None:
        ended[name] = run_in_group(command, {**pages, **os.environ, **_LIGHT})[2]

    for name, (_, command) in servers.items():
        if command:
            threading.Thread(target=run, args=(name, command), daemon=True).start()
    for name, (address, command) in servers.items():
        if command:
            _wait(address, name, ended)
        shown = mlflow_pages.page(parameters.load(), address) if name == "MLflow" else masked(address)
        print(f"{name + ':':<9} {shown}", flush=True)
    return ended


def serve(servers: Servers) -> None:
    """Start the servers, and wait until one ends or this process is interrupted.

    Raises:
        StageError: a server ended or does not answer.
    """
    try:
        ended = start(servers)
        print("Press Ctrl-C to end them.", flush=True)
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
    parser.add_argument("--mlflow-port", type=port_number, default=5000, help="default: %(default)s")
    parser.add_argument("--prefect-port", type=port_number, default=4200, help="default: %(default)s")
    arguments = parser.parse_args()
    die_with_parent()
    with reported("Ended.", at_sigterm=True):
        server.check()
        serve(commands(arguments.mlflow_port, arguments.prefect_port))


if __name__ == "__main__":
    main()
