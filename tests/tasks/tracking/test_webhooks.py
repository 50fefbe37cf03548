"""Webhooks of MLflow's registry, as docs/guide/mlflow.md sets them up: a real server, and a receiver on loopback."""

import base64
import hashlib
import hmac
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import requests

from flows.ui import free_port
from tests.support.promotions import promoted, registry_of
from tests.support.tiny import params_for

pytestmark = pytest.mark.slow
SECRET = "known to both sides"
# 32 bytes, as `cryptography.fernet.Fernet.generate_key()` makes them
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()
Received = queue.Queue[tuple[dict[str, str], bytes]]


@pytest.fixture
def receiver() -> Iterator[tuple[str, Received]]:
    """Address of an HTTP server, and headers and bodies of the requests that it received."""
    received: Received = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.put((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/promoted", received
        server.shutdown()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    port = free_port(0)
    command = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--workers", "1"]
    env = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": KEY,
        # without these two, MLflow sends to public addresses by https alone
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
        env={**os.environ, **env},
        cwd=tmp_path,
    )
    try:
        for _ in range(300):
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=1).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_a_promotion_calls_the_webhook_of_the_registry_and_prints_no_address(
    tmp_path: Path,
    mlflow_server: str,
    receiver: tuple[str, Received],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    params, (address, received) = params_for("source"), receiver
    client = registry_of(params).tracker.client
    events = ["model_version.created", "model_version_alias.created"]
    webhook = client.create_webhook("promotions", address, events, secret=SECRET)
    assert client.test_webhook(webhook.webhook_id).success
    received.get(timeout=30)
    capsys.readouterr()
    promoted(params, tmp_path, 1, None)
    # those of MLflow
    assert "http://" not in "".join(capsys.readouterr())
    bodies = {}
    for _ in events:
        headers, body = received.get(timeout=60)
        signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{body.decode()}"
        digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
        assert headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"
        message = json.loads(body)
        bodies[f"{message['entity']}.{message['action']}"] = message["data"]
    assert bodies["model_version.created"]["name"] == "tiny"
    assert bodies["model_version_alias.created"] == {"name": "tiny", "alias": "champion", "version": "1"}
