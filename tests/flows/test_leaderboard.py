"""Prefect's table of the leaderboard, on a real server."""

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import artifacts
from segcore.comparison import leaderboard as board
from segcore.comparison.results import read_comparison
from tests.tasks.test_one_place import OLD


def test_a_new_column_appears_in_prefects_table(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    column = board.Column("toy", "toy", "", "sizes", lambda row, _: f"toy of {row.architecture}")
    monkeypatch.setattr(board, "COLUMNS", [*board.COLUMNS, column])
    comparison = read_comparison(OLD / "comparison.json")
    with temporary_settings({PREFECT_API_URL: server}):
        flow(validate_parameters=False)(artifacts.publish_leaderboard)(comparison)
        with get_client(sync_client=True) as client:
            key = ArtifactFilterKey(any_=[f"leaderboard-{comparison.dataset}"])
            (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=key))
    assert "toy of unet" in str(artifact.data) and "iou/dataset/foreground_mean" in str(artifact.data)
