"""Disks, links, networks and environments in which commands fail, in addition to damaged files."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from tests.system.damage.damages import MLFLOW, Damage, Harm, nothing

# run in a mount namespace of its own, in the project's folder: {0} becomes a disk that is full or cannot be written
_DISKS = {
    "full": (
        "cp -a {0} {0}.kept && mount -t tmpfs -o size=$(($(du -sk {0}.kept | cut -f1) + 64))k none {0} && "
        "cp -a {0}.kept/. {0} && rm -r {0}.kept && (dd if=/dev/zero of={0}/.fill bs=1k 2>/dev/null || true)"
    ),
    "read-only": "mount --bind {0} {0} && mount -o remount,ro,bind {0}",
}
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


def can_mount() -> bool:
    """Whether this user can mount disks in a namespace."""
    return (
        bool(which("unshare"))
        and subprocess.run([*IN_NAMESPACE, "true"], capture_output=True).returncode == 0
    )


def command_line(command: Sequence[str], mount: tuple[str, str] | None) -> list[str]:
    """A command as it is started; with `mount`, where that disk is full or read-only."""
    if mount is None:
        return list(command)
    place, state = mount
    return [*IN_NAMESPACE, "sh", "-c", f"{_DISKS[state].format(place)} && exec {shlex.join(command)}"]


def _linked(name: str, exists: bool = True) -> Harm:
    """Move a folder to another place, and leave a link to it, which may lead nowhere."""

    def harm(folder: Path) -> None:
        target = folder.with_name(f"{name}-elsewhere")
        (folder / name).rename(target)
        (folder / name).symlink_to(target if exists else target / "gone")

    return harm


_NO_HOME = {"HOME": "/proc/1", "XDG_CACHE_HOME": "/proc/1", "XDG_CONFIG_HOME": "/proc/1"}
_PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
_WRITTEN = ("cannot be written", "could not be written", "Read-only", "cannot be packed", "cannot be opened")
_LARGE = (*_WRITTEN, MLFLOW, "git", "database", "too large", "Prefect")

ENVIRONMENTS: dict[str, Damage] = {
    "data behind a link": Damage(_linked("data"), ("data: is a link",), "ingest"),
    "models behind a link": Damage(_linked("models"), ("models: is a link",), "flows.compare"),
    "work link lost": Damage(_linked("work", exists=False), ("leads nowhere",), "prepare"),
    "reports full": Damage(nothing, ("reports",), "report", mount=("reports", "full")),
    "work full": Damage(nothing, ("work", *_WRITTEN), "ingest", mount=("work", "full")),
    "data full": Damage(nothing, ("data",), "prepare", mount=("data", "full")),
    "models full": Damage(nothing, ("models",), "train", mount=("models", "full")),
    "reports read-only": Damage(nothing, ("reports",), "report", mount=("reports", "read-only")),
    "work read-only": Damage(nothing, ("work",), "evaluate", mount=("work", "read-only")),
    "data read-only": Damage(nothing, ("data",), "ingest", mount=("data", "read-only")),
    "git read-only": Damage(nothing, ("git",), "receive", mount=(".git", "read-only")),
    "project read-only": Damage(nothing, (*_WRITTEN, "git"), "promote", mount=(".", "read-only")),
    "files too large": Damage(nothing, _LARGE, "predict", largest_file=20_000),
    "output closed": Damage(nothing, ("standard output",), "prepare", is_output_cut=True),
    "no programs": Damage(nothing, ("git",), "receive", {"PATH": "/nowhere"}),
    "temporary folder gone": Damage(nothing, ("temporary",), "predict", {"TMPDIR": "/nowhere"}),
    "home not writable": Damage(nothing, ("home",), "report", _NO_HOME),
    "plain locale": Damage(nothing, ("locale",), "report", _PLAIN),
    "prefect home away": Damage(
        nothing, ("prefect.db",), "flows.notify", {"PREFECT_HOME": "/proc/1/x"}, own_server=True
    ),
    "prefect setting": Damage(
        nothing, ("Prefect's settings",), "flows.notify", {"PREFECT_API_REQUEST_TIMEOUT": "soon"}
    ),
    "mlflow elsewhere": Damage(
        nothing, ("nothing://",), "rollback", {"MLFLOW_TRACKING_URI": "nothing://here"}
    ),
}
