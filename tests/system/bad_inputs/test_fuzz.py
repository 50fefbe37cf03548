"""Randomly damaged files give a row or an error that names them, and never crash the parent process."""

import pytest

from tests.system.bad_inputs import fuzz

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


@pytest.mark.timeout(3600)
def test_damaged_files_of_every_format_give_a_row_or_an_error_that_names_them(tmp_path, capsys):
    search = fuzz.Search().run(tmp_path, fuzz.seconds(), fuzz.seed())
    with capsys.disabled():
        print(f"\n{search.table()}")
    assert search.escaped == [], "\n\n".join(search.escaped[:5])
    assert min(search.tried[name] for name in fuzz.SAMPLES) >= fuzz.BATCH
    # Every format had errors, so the damage has an effect.
    assert all(outcomes.keys() - {"accepted"} for outcomes in search.outcomes.values())
    assert search.bytes < 2 * 2**30


def test_the_samples_are_valid_before_they_are_damaged(tmp_path):
    from segcore.ingest import inspection
    from segcore.io import layouts
    from tests.system.bad_inputs.case import data_section

    for name, sample in fuzz.SAMPLES.items():
        folder = tmp_path / name.replace(" ", "-")
        sample.make(folder)
        data = data_section(folder, sample.data)
        assert list(folder.glob(sample.files)), name
        items = layouts.find(data, folder)
        assert items and not any(item.problem for item in items), name
        (folder / ".packed").mkdir()
        for item in items:
            inspection.inspect(item, folder, data, folder / ".packed", "")
