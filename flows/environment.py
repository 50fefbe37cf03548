"""Imported before prefect: Ctrl-C is one line, no usage data is sent, and a server may start slowly."""

import os

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
