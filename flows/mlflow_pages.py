"""Addresses of pages in MLflow's UI."""

from segcore.errors import masked
from segcore.params import Params
from tasks.tracking import store
from tasks.tracking.tracker import Tracker

# of `make ui`, for stores in this folder
OWN_UI = "http://127.0.0.1:5000"
# MLflow otherwise opens in its view of language models
_VIEW = "?workflowType=machine_learning"


def is_served(params: Params) -> bool:
    """Whether the store is a server, which has the UI; if not, `make ui` serves it."""
    return store.uri(params).startswith("http")


def page(params: Params, server: str = OWN_UI, run: str | None = None) -> str:
    """Address of the data set's experiment or of a run in it; before the first run, that of the UI.

    Args:
        params: all of params.yaml.
        server: address of the UI of a store in this folder.
        run: id of the run.

    Raises:
        StageError: the store cannot be reached or used.
    """
    address = store.uri(params) if is_served(params) else server
    experiment = Tracker.open(params).experiment_if_any()
    of_run = f"/runs/{run}" if run else ""
    place = f"/#/experiments/{experiment}{of_run}{_VIEW}" if experiment else ""
    return masked(address).rstrip("/") + place
