"""Several rounds a day, contradicting deliveries and kills: every batch is received, ingested and judged once."""

from pathlib import Path

import pytest

from tests.system.crash import nights


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_accounts_agree_after_a_night_of_killed_rounds(
    after_first_round: Path, tmp_path: Path, server: str
) -> None:
    project = nights.run(after_first_round, tmp_path / "project", server, nights=1, rounds=2, kills=2)
    assert sum(project.killed.values()) == 2
    print(project.summary())
