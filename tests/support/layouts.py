"""Helpers for tests of layouts."""

import pytest

from segcore.errors import DataError
from segcore.ingest.problems import KINDS
from segcore.io import layouts
from tests.support.tiny import params_for


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def find(folder, **data):
    return layouts.find(params_for(folder, data=data).data, folder)


def by_name(folder, **data):
    return {item.image.name: item for item in find(folder, **data)}


def problem(folder, name, **data):
    found = by_name(folder, **data)[name].problem
    assert found is not None and found.kind in KINDS and found.remedy
    return found.kind, found.what


def fails(folder, **data):
    with pytest.raises(DataError) as caught:
        find(folder, **data)
    assert KINDS[caught.value.kind].outcome == "fails"
    return caught.value.kind, f"{caught.value.what} {caught.value.remedy}"
