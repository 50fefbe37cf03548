"""Git commits of unattended runs, and revisions for workers.

A commit contains only the given paths, so that other edits are left alone. A revision for workers contains the
working tree, edits included, and is on no branch.
"""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from segcore.errors import StageError

# used where git has no name or address configured
_AUTHOR = {"user.name": "segflow", "user.email": "segflow@localhost"}


# paths that a training may depend on: they are part of a revision even if they are not yet added to git
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
    environment = {**os.environ, **(env or {})}
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, env=environment)


def _checked_git(*arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Standard output of git; a StageError where it fails."""
    done = _git(*arguments, env=env)
    if done.returncode != 0:
        message = (done.stderr or done.stdout).strip()
        raise StageError(
            f"git {arguments[0]} failed:\n{message}", "correct the cause above and run again; nothing is lost"
        )
    return done.stdout


def is_repository() -> bool:
    """Whether git is installed and this folder is in a git work tree."""
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
    """Commit these paths and tag the result; False if nothing had changed and no tag was missing.

    Other paths, staged or edited, are left alone. After a kill, a repeated call completes the commit and the tag.

    Raises:
        StageError: git failed, for example because of a hook or a conflict.
    """
    names = [str(path) for path in paths if path.exists()]
    if names:
        _checked_git("add", "--force", "--", *names)
    changed = bool(names) and _git("diff", "--cached", "--quiet", "--", *names).returncode != 0
    if changed:
        missing_options = [name for name in _AUTHOR if not _git("config", name).stdout.strip()]
        author = [part for name in missing_options for part in ("-c", f"{name}={_AUTHOR[name]}")]
        _checked_git(*author, "commit", "--quiet", "--message", message, "--only", "--", *names)
    untagged = (
        tag is not None and _git("rev-parse", "--quiet", "--verify", f"refs/tags/{tag}").returncode != 0
    )
    if tag is not None and untagged:
        _checked_git("tag", tag)
    return changed or untagged


def push() -> bool:
    """Push the current branch and all tags to its remote; False if the branch has none.

    Raises:
        StageError: the remote rejects them or cannot be reached.
    """
    upstream = _git("rev-parse", "--abbrev-ref", "--symbolic-full-name", "@{upstream}")
    if upstream.returncode != 0:
        return False
    _checked_git("push", "--quiet", "--follow-tags")
    _checked_git("push", "--quiet", "--tags")
    return True


def snapshot(remote: str = "origin") -> str:
    """Push the working tree, edits included, to the remote for workers; branch and index do not change.

    The same files on the same commit always give the same revision, so that several clients share it.

    Returns:
        The revision, 40 hexadecimal digits; on the remote it is the ref `refs/segflow/<revision>`.

    Raises:
        StageError: this is not a clone, or the remote is missing or rejects the revision.
    """
    if _git("remote", "get-url", remote).returncode != 0:
        raise StageError(
            f"workers get the code through git, and this folder has no remote {remote!r}",
            f"add a remote that the workers can read: git remote add {remote} ADDRESS",
        )
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _checked_git("read-tree", "HEAD", env=env)
        _checked_git("add", "--update", env=env)
        _checked_git("add", "--", *(name for name in _CARRIED if Path(name).exists()), env=env)
        tree = _checked_git("write-tree", env=env).strip()
    when = _checked_git("show", "--no-patch", "--format=%cI", "HEAD").strip()
    identity = {"NAME": _AUTHOR["user.name"], "EMAIL": _AUTHOR["user.email"], "DATE": when}
    # author and time are fixed, so that the revision depends only on the files and the commit
    fixed = {
        f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()
    }
    revision = _checked_git("commit-tree", tree, "-p", "HEAD", "-m", "For segflow workers", env=fixed).strip()
    _checked_git("push", "--quiet", remote, f"{revision}:{_REFS}{revision}")
    return revision


def check_out(revision: str, remote: str = "origin") -> None:
    """Check out a revision of `snapshot` in a worker's clone; edits of tracked files are discarded.

    Raises:
        StageError: the clone is not marked as a worker's, or the remote does not have the revision.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise StageError(f"{revision!r} is not a revision", "give 40 hexadecimal digits, see git rev-parse")
    if _git("config", "--type=bool", _WORKER).stdout.strip() != "true":
        raise StageError(
            f"{Path.cwd()} is not marked as a worker's clone, in which edits may be discarded",
            f"point SEGFLOW_CLONE at a clone made for the worker, and there: git config {_WORKER} true",
        )
    if _git("cat-file", "-e", f"{revision}^{{commit}}").returncode != 0:
        _checked_git("fetch", "--quiet", remote, f"{_REFS}{revision}")
    _checked_git("checkout", "--quiet", "--force", "--detach", revision)
