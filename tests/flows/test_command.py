"""What of Prefect's own log messages is printed, and how its failures in a flow are named."""

import logging

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows import command
from segcore.errors import StageError


def test_lost_events_are_not_printed_and_failures_of_other_services_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    command.shorten_logs()
    logger = logging.getLogger("prefect._internal.concurrency")
    for service in ("EventsWorker", "APILogWorker"):
        logger.error("Service %r failed with %s pending items.", service, 3)
    logger.error("Timed out")
    caplog.handler.flush()
    printed = [record.getMessage() for record in caplog.records]
    assert printed == ["Service 'APILogWorker' failed with 3 pending items.", "Timed out"]


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/api", None])
def test_a_server_that_is_lost_in_the_middle_of_a_flow_is_named(place: str | None) -> None:
    @command.with_sentences
    def ask() -> None:
        SyncPrefectClient("http://127.0.0.1:9/api").hello()

    with (
        temporary_settings({PREFECT_API_URL: place, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(StageError, match="Prefect's server does not answer any more") as caught,
    ):
        ask()
    assert caught.value.what.startswith(f"{place or 'this flow'}: ")
    assert "then run again" in caught.value.remedy if place else caught.value.remedy.startswith("run again")
