"""A schedule that never runs, or that Prefect would refuse, is an error of params.yaml."""

from pathlib import Path

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule
from pydantic import ValidationError

from segcore import params as parameters
from segcore.errors import ParamsError
from segcore.params.operations import Schedule
from tests.support.tiny import values_for

VALID = (
    "0 2 * * *",
    "*/5 * * * *",
    "0-10/2 1-3 1,15 */2 *",
    "0 2 * * mon-fri",
    "0 2 * JAN,jul *",
    "0 2 * * 7",
    "0 2 * * 5#2",
    "0 2 L * *",
    "0 2 29 2 *",
    "0 2 30 2 1",
)
INVALID = (
    "0 25 * * *",
    "60 * * * *",
    "every night",
    "every night at two o'clock",
    "",
    "@daily",
    "0 0 2 * * *",
    "0 2 30 2 *",
    "0 2 31 4,6 *",
    "0 2 LW * *",
    "0 2 * * 5L",
    "0 2 * * L5",
    "R 2 * * *",
    "0 2 * 13 *",
    "0 2 * * 1,",
    "*/0 * * * *",
)


@pytest.mark.parametrize("cron", VALID)
def test_prefect_accepts_each_accepted_expression(cron: str) -> None:
    assert CronSchedule(cron=Schedule(cron=cron).cron).cron == cron


@pytest.mark.parametrize("cron", INVALID)
def test_an_expression_that_is_wrong_or_never_fires_is_refused(cron: str) -> None:
    with pytest.raises(ValidationError):
        Schedule(cron=cron)


@pytest.mark.parametrize(
    ("schedule", "named"),
    [
        ({"cron": "0 25 * * *"}, r"schedule\.cron.*bad hour"),
        ({"cron": "0 2 * *"}, r"schedule\.cron.*five fields"),
        ({"timezone": "Europe/Berln"}, r"schedule\.timezone.*did you mean Europe/Berlin\?"),
        ({"timezone": "berlin"}, r"schedule\.timezone.*did you mean Europe/Berlin\?"),
        ({"timezone": "../etc/passwd"}, r"schedule\.timezone.*unknown time zone"),
        ({"timezone": ""}, r"schedule\.timezone.*unknown time zone"),
        ({"interval_minutes": float("inf")}, r"schedule\.interval_minutes"),
        ({"watch_seconds": float("inf")}, r"schedule\.watch_seconds"),
    ],
)
def test_the_file_and_the_key_are_named_when_params_yaml_is_read(
    schedule: dict[str, object], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values_for("source", schedule=schedule)))
    with pytest.raises(ParamsError, match=named) as caught:
        parameters.load(path)
    assert str(path) in caught.value.what


def test_common_time_zones_are_accepted_by_prefect_too() -> None:
    for zone in ("UTC", "Europe/Berlin", "America/New_York", "Etc/GMT-2"):
        assert CronSchedule(cron="0 2 * * *", timezone=Schedule(timezone=zone).timezone).timezone == zone
