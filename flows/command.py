"""What the commands of all flows have in common: exit codes, one sentence per failure, and a quiet end when stopped."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from flows import environment  # noqa: F401  isort: skip  (before prefect is imported)
from prefect import tags
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows import run_state, server
from tasks.failures import explained, reported, translated
from tasks.supervisor import GRACE_SECONDS, TERMINATED, end_groups, exit_on_sigterm

# log messages of Prefect's engine: the end of a failed run, and of an attempt
_ENDINGS = tuple(f"Finished in state {name}(" for name in ("Failed", "NotReady", "Crashed", "AwaitingRetry"))
_RETRY = "Task run failed with exception: "
# from the stop of a flow to the end of its process: the stages' own time, and some for Prefect
_STOP_SECONDS = GRACE_SECONDS + 7
# of the running command: printed when it is stopped
_messages: list[str] = []

P = ParamSpec("P")
R = TypeVar("R")


def _shortened(record: logging.LogRecord) -> bool:
    """Log filter of Prefect's engine: each failure is printed once, without traceback where it has a remedy.

    The sentence is printed by `as_command`; where no command waits for the flow, as in `flows.serve`, by the flow run.
    """
    message = record.getMessage()
    if message.startswith(_ENDINGS):
        return False
    if message.startswith(_RETRY):
        record.msg, record.args = message.partition(r"\n")[0].removeprefix(_RETRY), ()
        record.msg = f"is started again after: {record.msg[:300]}"
    known = explained(record.exc_info[1]) if record.exc_info and record.exc_info[1] else None
    if known is not None:
        is_printed_later = bool(_messages) or record.name == "prefect.task_runs"
        text = "failed; the cause is printed at the end" if is_printed_later else str(known)
        record.msg, record.args, record.exc_info, record.exc_text = text, (), None, None
    return True


def _is_of_runs(record: logging.LogRecord) -> bool:
    """Log filter of Prefect's services: not the loss of events, which happens on a busy machine and changes no run."""
    is_of_events = isinstance(record.args, tuple) and record.args[:1] == ("EventsWorker",)
    return not (is_of_events and record.levelno == logging.ERROR)


@contextmanager
def as_command(interrupted: str) -> Iterator[None]:
    """Common part of the commands of flows: Prefect's server, the process tag, and the exit codes.

    Heartbeats are off unless the user's environment sets them: only those of the workers' stages are used, and the
    end of the thread that sends them takes a second in every flow.

    Args:
        interrupted: message printed at Ctrl-C or SIGTERM, before exit code 130 or 143.
    """
    exit_on_sigterm()
    with reported(interrupted, at_sigterm=True):
        _messages[:] = [interrupted]
        shorten_logs()
        server.provide()
        is_set = PREFECT_FLOWS_HEARTBEAT_FREQUENCY.name in os.environ
        with (
            tags(run_state.process_tag()),
            temporary_settings({} if is_set else {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
            server.named(),
        ):
            yield


def with_sentences(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator below @flow or @task: known failures of other packages are raised as SegflowError.

    The state of the run then has the sentence, without secrets. If the run is stopped, `stop_quietly` is called.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        shorten_logs()
        try:
            with translated(), server.named():
                return function(*args, **kwargs)
        except Exception:
            raise
        except BaseException:
            stop_quietly()
            raise

    return run


def stop_quietly() -> None:
    """End the stages after Ctrl-C, SIGTERM or a cancellation; what they and Prefect report from now on is not printed.

    The process is ended later if Prefect, whose server may be gone, does not; the next flow sets this run to Crashed.
    """
    logging.disable(logging.CRITICAL)
    # it ignores the line above
    logging.getLogger("prefect._internal.concurrency").disabled = True
    end_groups()
    if _messages:
        threading.Thread(target=_end_soon, args=(_messages.pop(),), daemon=True).start()


def _end_soon(message: str) -> None:
    time.sleep(_STOP_SECONDS)
    print(f"\n{message}", file=sys.stderr, flush=True)
    os._exit(TERMINATED)


def shorten_logs() -> None:
    """Shorten what Prefect's engine logs on failures."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_shortened)
    logging.getLogger("prefect._internal.concurrency").addFilter(_is_of_runs)
