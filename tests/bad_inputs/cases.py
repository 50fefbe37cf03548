"""All cases of bad input.

`python -m tests.bad_inputs.cases > docs/bad-input.md` writes the table of kinds with an example of each.
"""

from tests.bad_inputs.pictures import PICTURES
from tests.bad_inputs.scenes import FLOATS, SCENES
from tests.bad_inputs.volumes import SERIES, VOLUMES

SETS = {s.name: s for s in (PICTURES, SCENES, FLOATS, VOLUMES, SERIES)}
