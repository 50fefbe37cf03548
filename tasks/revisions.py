"""What git records of an unattended run: chosen paths alone, so that whatever else is being edited stays as it is."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from segcore.errors import StageError

_AUTHOR = {"user.name": "segflow", "user.email": "segflow@localhost"}  # where git knows no other


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)


def _must(*arguments: str) -> str:
    done = _git(*arguments)
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
