"""Notifications of a retraining's outcome: a webhook on loopback receives the selected outcomes and no others."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Failed, Paused, State

from flows.notify import remove
from tests.support import workspaces

# seconds for a message to arrive
SECONDS = 30
# seconds without a message; expected messages arrive within one second
SILENCE = 3


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Address of a small HTTP server, and the messages that were posted to it."""
    messages: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/ops", messages
    server.shutdown()
    server.server_close()


@pytest.fixture
def messages(webhook: tuple[str, list[dict[str, str]]], server: str) -> list[dict[str, str]]:
    """Messages received from now on, through the block custom-webhook/ops of Prefect's server."""
    address, received = webhook
    received.clear()
    with temporary_settings({PREFECT_API_URL: server}):
        block = CustomWebhookNotificationBlock(
            name="ops", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        block.save("ops", overwrite=True, _sync=True)
    return received


@pytest.fixture
def notify(server: str, tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs `python -m flows.notify`: (exit status, output). Afterwards notifications are off."""

    def command(*arguments: str) -> tuple[int, str]:
        env = workspaces.environment(tmp_path, PREFECT_API_URL=server, PYTHONPATH=str(workspaces.ROOT))
        done = subprocess.run(
            [sys.executable, "-m", "flows.notify", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    yield command
    with temporary_settings({PREFECT_API_URL: server}):
        remove()


def end(server: str, state: State, name: str = "retrain") -> None:
    """Create a run of a flow of this name on the server and set its final state."""

    @flow(name=name)
    def any_flow() -> None:
        pass

    with SyncPrefectClient(server) as client:
        run = client.create_flow_run(any_flow)
        client.set_flow_run_state(run.id, state, force=True)


def wait_for(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long; received {what()}"
        time.sleep(0.1)


def test_only_the_selected_outcomes_are_sent(
    notify: Callable[..., tuple[int, str]], messages: list[dict[str, str]], server: str
) -> None:
    status, output = notify("custom-webhook/ops", "--on", "promoted", "failed")
    assert status == 0 and "promoted, failed go to custom-webhook/ops" in output, output
    end(server, Completed(name="Kept", message="U-Net stays champion"))
    end(server, Failed(message="another flow"), name="compare")
    end(server, Completed(name="Promoted", message="3 accepted. U-Net becomes champion: it is better"))
    end(server, Failed(message="receiving failed"))
    wait_for(lambda: len(messages) >= 2, lambda: messages)
    time.sleep(SILENCE)
    by_subject = {message["subject"]: message["body"] for message in messages}
    assert len(messages) == 2 and set(by_subject) == {"segflow: Promoted", "segflow: Failed"}
    assert "3 accepted. U-Net becomes champion: it is better" in by_subject["segflow: Promoted"]
    assert "receiving failed" in by_subject["segflow: Failed"]


def test_the_pause_for_a_person_and_a_waiting_round_are_outcomes(
    notify: Callable[..., tuple[int, str]], messages: list[dict[str, str]], server: str
) -> None:
    assert notify("custom-webhook/ops", "--on", "approval", "unchanged")[0] == 0
    end(server, Paused(timeout_seconds=60))
    end(server, Completed(name="Waiting", message="The next round may begin at 20:00"))
    end(server, Completed(name="Kept", message="U-Net stays champion"))
    wait_for(lambda: len(messages) >= 2, lambda: messages)
    time.sleep(SILENCE)
    assert sorted(m["subject"] for m in messages) == ["segflow: Paused", "segflow: Waiting"]


def test_a_second_call_replaces_the_first_and_off_stops_notifications(
    notify: Callable[..., tuple[int, str]], messages: list[dict[str, str]], server: str
) -> None:
    assert notify("custom-webhook/ops", "--on", "failed")[0] == 0
    # default: promoted, kept, failed
    assert notify("custom-webhook/ops")[0] == 0
    end(server, Completed(name="Unchanged", message="Nothing new"))
    end(server, Completed(name="Kept", message="U-Net stays champion"))
    end(server, Failed(message="receiving failed"))
    wait_for(lambda: len(messages) >= 2, lambda: messages)
    status, output = notify("--off")
    assert status == 0 and "notify: off" in output
    end(server, Failed(message="not sent"))
    time.sleep(SILENCE)
    assert sorted(message["subject"] for message in messages) == ["segflow: Failed", "segflow: Kept"], (
        "each once, though notifications were set twice"
    )
    status, output = notify("--off")
    assert status == 0 and "was off already" in output


def test_a_block_that_does_not_exist_is_an_error_with_a_remedy(
    notify: Callable[..., tuple[int, str]],
) -> None:
    for block in ("slack-webhook/nobody", "ops"):
        status, output = notify(block)
        assert status == 1 and "Prefect has no such block" in output and "Remedy:" in output, output
        assert "Traceback" not in output
