"""Imported before prefect: Ctrl-C is one line, no usage data is sent, and a server may start slowly.

Raises:
    StageError: Prefect's settings are invalid; commands print it without traceback.
"""

import os

from segcore.errors import StageError
from tasks.interruption import report_in_one_line

# prefect is imported next
report_in_one_line()
for _name, _value in {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # a backup may hold the database for a while
    "PREFECT_SERVER_DATABASE_TIMEOUT": "30",
}.items():
    os.environ.setdefault(_name, _value)

try:
    import prefect.context  # noqa: F401
except ValueError as _error:
    # of a variable, a profile or a settings file; TOML and pydantic raise subclasses of it
    _lines = [line.strip() for line in str(_error).splitlines() if line.strip()]
    raise StageError(
        f"Prefect's settings are invalid ({'; '.join(_lines[1:3] or _lines)[:300]})",
        "correct the variables PREFECT_*, profiles.toml in PREFECT_HOME (~/.prefect), or prefect.toml and .env here",
    ) from _error
