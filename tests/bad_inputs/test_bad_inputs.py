"""Each kind of bad input is found, named and mended by what the remedy says, and takes no other item with it."""

import pytest

from segcore.problems import KINDS
from tests.bad_inputs.case import Found, built
from tests.bad_inputs.cases import SETS

ALL = [(data_set.name, case) for data_set in SETS.values() for case in data_set.cases]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("bad-inputs")


def check_quarantined(found: Found, case) -> None:
    row, pair = found.row(case.name), found.pairs[case.name]
    assert (row["status"], row["kind"]) == ("quarantined", case.kind), (row["kind"], row["reason"])
    assert case.text in row["reason"] and row["remedy"].strip()
    name = pair.named(case.of)
    if case.kind != "bad-name":
        assert row["reason"].startswith(name), row["reason"]
    assert row["reason"].isprintable() and row["remedy"].isprintable()
    assert str(found.folder) not in row["reason"] + row["remedy"] and "Traceback" not in row["reason"]
    assert row["packed"] is None


@pytest.mark.parametrize(("data_set", "case"), ALL, ids=[case.name for _, case in ALL])
def test_each_case_is_found_for_what_it_is(data_set, case, root):
    found = built(data_set, root)
    if case.kind and KINDS[case.kind].outcome == "quarantined":
        check_quarantined(found, case)
        return
    row = found.row(case.name)
    assert row["status"] == "accepted", (row["kind"], row["reason"])
