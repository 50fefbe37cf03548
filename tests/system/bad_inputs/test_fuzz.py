"""Files that were damaged at random end as a row or an error with a name, and never take the parent with them."""

import pytest

from tests.system.bad_inputs import fuzz

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


@pytest.mark.timeout(3600)
def test_damaged_files_of_every_format_give_a_row_or_an_error_that_names_them(tmp_path, capsys):
    found = fuzz.Search().run(tmp_path, fuzz.seconds(), fuzz.seed())
    with capsys.disabled():
        print(f"\n{found.table()}")
    assert found.escaped == [], "\n\n".join(found.escaped[:5])
    assert min(found.tried[name] for name in fuzz.SAMPLES) >= fuzz.BATCH
    assert all(outcomes.keys() - {"accepted"} for outcomes in found.outcomes.values())  # the damage is real
    assert found.bytes < 2 * 2**30


def test_the_samples_are_sound_before_they_are_damaged(tmp_path):
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
