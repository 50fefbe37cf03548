"""What of Prefect's own log messages is printed."""

import logging

import pytest

from flows import command


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
