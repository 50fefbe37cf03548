"""Whether the networks of params.yaml can be built: checked before the first stage, not hours later by the training.

`python -m tasks complete` and `plan` check in their own process; flows, in which torch is not imported, let `complete`
do it.
"""

import os
import sys
from collections.abc import Mapping

from segcore.errors import ParamsError, SegflowError
from segcore.params import Params, TrainSettings
from tasks import failures
from tasks.supervisor import run_in_group


def require_networks(p: Params) -> None:
    """Build each network without values, as far as settings decide whether it can be built. Imports torch.

    Raises:
        ParamsError: some cannot be built; the message names the keys in params.yaml.
    """
    from segcore.training.build import check_network

    problems: dict[str, str] = {}
    for name in p.architectures:
        try:
            check_network(name, p.for_architecture(name), len(p.data.classes), p.data.foreground)
        except SegflowError as error:
            place = _place(p, name, getattr(error, "key", None))
            # one of train.common is of several networks
            problems.setdefault(f"params.yaml: {place}: {error.what}", error.remedy)
    if problems:
        raise ParamsError("\n".join(problems), "; ".join(dict.fromkeys(problems.values())))


def require_networks_in_process(env: Mapping[str, str] | None = None) -> None:
    """As `require_networks` for params.yaml of the current folder, in another process.

    Args:
        env: environment variables of that process, in addition to those of this process.

    Raises:
        ParamsError: some networks cannot be built.
    """
    command = [sys.executable, "-m", "tasks", "complete"]
    status, _, tail = run_in_group(command, {**os.environ, **(env or {})})
    if status != 0:
        what, remedy = failures.sentence_in(tail) or (
            f"the networks of params.yaml could not be checked (status {status}):\n{tail.strip()}",
            "correct the cause above and run again",
        )
        raise ParamsError(what, remedy)


def _place(p: Params, architecture: str, key: str | None) -> str:
    """The dotted key in params.yaml of a keyword of an architecture; of none the architecture's section."""
    if key is None:
        return f"train.{architecture}"
    is_of_network = key not in TrainSettings.model_fields or key in p.for_architecture(architecture).model
    if not is_of_network:
        return f"{p.section_of(architecture, (key,))}.{key}"
    in_common = key in p.train.get("common", {}).get("model", {})
    section = p.section_of(architecture, ("model", key)) if in_common else f"train.{architecture}"
    return f"{section}.model.{key}"
