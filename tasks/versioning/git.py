"""What git records of an unattended run, chosen paths alone, so that whatever else is being edited stays as it is;
and revisions for workers, which get the project as it lies here without a commit on anybody's branch.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from segcore.errors import StageError

# where git knows no other
_AUTHOR = {"user.name": "segflow", "user.email": "segflow@localhost"}


# What a training may depend on besides tracked files: it goes along even if nobody has added it to git yet.
_CARRIED = (
    "data/batches",
    "dvc.lock",
    "dvc.yaml",
    "flows",
    "params.yaml",
    "samples",
    "segcore",
    "splits",
    "tasks",
)
_REFS = "refs/segflow/"
_WORKER = "segflow.worker"


def _git(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **(env or {})}
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=whole)


def _must(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    done = _git(*arguments, env=env)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise StageError(
            f"git {arguments[0]} failed:\n{said}", "mend the cause named above and run again; nothing is lost"
        )
    return done.stdout


def is_repository() -> bool:
    """Whether this folder is in a git work tree, and git is there."""
    try:
        return _git("rev-parse", "--is-inside-work-tree").stdout.strip() == "true"
    except FileNotFoundError:
        return False


def state(root: Path = Path()) -> tuple[str | None, bool]:
    """(commit of HEAD, whether tracked files differ from it); (None, False) outside a git clone."""
    try:
        head = _git("-C", str(root), "rev-parse", "HEAD")
        changes = _git("-C", str(root), "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        return None, False
    if head.returncode != 0 or changes.returncode != 0:
        return None, False
    return head.stdout.strip(), bool(changes.stdout.strip())


def commit(paths: Sequence[Path], message: str, tag: str | None = None) -> bool:
    """Commit these paths as they are, and tag the result; False where nothing had changed and no tag was missing.

    What is staged or edited elsewhere is left alone. Killed half-way, a repeated call does the rest.

    Raises:
        StageError: git refuses, for a hook or a conflict, say.
    """
    names = [str(path) for path in paths if path.exists()]
    if names:
        _must("add", "--force", "--", *names)
    changed = bool(names) and _git("diff", "--cached", "--quiet", "--", *names).returncode != 0
    if changed:
        unknown = [name for name in _AUTHOR if not _git("config", name).stdout.strip()]
        author = [part for name in unknown for part in ("-c", f"{name}={_AUTHOR[name]}")]
        _must(*author, "commit", "--quiet", "--message", message, "--only", "--", *names)
    missing = tag is not None and _git("rev-parse", "--quiet", "--verify", f"refs/tags/{tag}").returncode != 0
    if tag is not None and missing:
        _must("tag", tag)
    return changed or missing


def push() -> bool:
    """Send the present branch and its tags to its remote; False where it has none.

    Raises:
        StageError: the remote refuses.
    """
    upstream = _git("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    if upstream.returncode != 0:
        return False
    _must("push", "--quiet", "--follow-tags")
    _must("push", "--quiet", "--tags")
    return True


def snapshot(remote: str = "origin") -> str:
    """Put the project as it lies here, edits included, on the remote for workers; branch and index stay as they are.

    The same files on the same commit always make the same revision, so that two orchestrators share it.

    Returns:
        The revision, 40 hexadecimal digits; on the remote it is the ref `refs/segflow/<revision>`.

    Raises:
        StageError: this is no clone, the remote is missing or refuses.
    """
    if _git("remote", "get-url", remote).returncode != 0:
        raise StageError(
            f"workers get the code through git, and this folder has no remote {remote!r}",
            f"add one that the workers can read: git remote add {remote} ADDRESS",
        )
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _must("read-tree", "HEAD", env=env)
        _must("add", "--update", env=env)
        _must("add", "--", *(name for name in _CARRIED if Path(name).exists()), env=env)
        tree = _must("write-tree", env=env).strip()
    when = _must("show", "--no-patch", "--format=%cI", "HEAD").strip()
    identity = {"NAME": _AUTHOR["user.name"], "EMAIL": _AUTHOR["user.email"], "DATE": when}
    by = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in identity.items()}
    revision = _must("commit-tree", tree, "-p", "HEAD", "-m", "For segflow workers", env=by).strip()
    _must("push", "--quiet", remote, f"{revision}:{_REFS}{revision}")
    return revision


def check_out(revision: str, remote: str = "origin") -> None:
    """Make this clone, a worker's own, be at `revision` of `snapshot`; edits of tracked files are thrown away.

    Raises:
        StageError: the clone is not marked as a worker's, or the remote does not have the revision.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise StageError(f"{revision!r} is no revision", "give 40 hexadecimal digits, see git rev-parse")
    if _git("config", "--type=bool", _WORKER).stdout.strip() != "true":
        raise StageError(
            f"{Path.cwd()} is not marked as a worker's clone, whose edits may be thrown away",
            f"point SEGFLOW_CLONE at a clone made for the worker, and there: git config {_WORKER} true",
        )
    if _git("cat-file", "-e", f"{revision}^{{commit}}").returncode != 0:
        _must("fetch", "--quiet", remote, f"{_REFS}{revision}")
    _must("checkout", "--quiet", "--force", "--detach", revision)
