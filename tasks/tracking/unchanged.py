"""Whether MLflow has all that there is to say of a comparison already, told without loading MLflow.

Where neither results, nor the clone's commit, nor the store's file have changed since a comparison was logged, nothing
is logged, tagged or closed: an unchanged rerun need not wait for MLflow's import. A server is always asked.
"""

import json
from pathlib import Path
from typing import Any

from segcore.files import atomic_write, sha256
from segcore.params import Params
from tasks.tracking import store as tracking_store
from tasks.versioning import stages

STAMP = Path("work/tracked.json")


def is_settled(params: Params) -> bool:
    """Whether nothing has changed since `settle`."""
    present = _state(params)
    return present is not None and STAMP.is_file() and json.loads(STAMP.read_text()) == present


def settle(params: Params) -> None:
    """Note the present state, unless a run is still under way, whose end will have to be looked after."""
    state = _state(params)
    if state is None or tracking_store.any_running(params):
        STAMP.unlink(missing_ok=True)
        return
    with atomic_write(STAMP) as part:
        part.write_text(json.dumps(state))


def _state(params: Params) -> dict[str, Any] | None:
    """Of results, commit, store and what is compared; None where the store is no file, or there is no result."""
    store, lock = tracking_store.file(params), Path("dvc.lock")
    if store is None or not store.is_file() or not lock.is_file():
        return None
    facts = store.stat()
    return {
        "store": [str(store), facts.st_ino, facts.st_size, facts.st_mtime_ns],
        "results": sha256(lock),
        "commit": list(stages.git_state()),
        "compared": [params.data.name, params.architectures, params.seeds],
    }
