"""Git commits of unattended runs, and revisions for workers.

A commit contains only the given paths, so that other edits are left alone. A revision for workers contains the
working tree, edits included, and is on no branch.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from segcore.errors import StageError
from tasks.versioning import git_command, git_push, git_repository

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
# time for the hooks of a commit; with a limit, they have no terminal to ask questions in
_HOOK_SECONDS = 600.0
_WORKER = "segflow.worker"


def is_repository() -> bool:
    """Whether this folder or a parent has a `.git`.

    Raises:
        StageError: there is one that git cannot use.
    """
    return git_repository.require_readable() is not None


def require_usable(read_only: bool = False, dataset: str = "") -> None:
    """Check before a round that its commits can be made; nothing is checked without a repository.

    Locks of ended processes are removed; on a detached HEAD a note is printed.

    Args:
        read_only: change nothing, and wait for no lock.
        dataset: whose batches will be tagged.

    Raises:
        StageError: git cannot use the repository, or a commit or tag would fail; with reason and remedy.
    """
    git_repository.require_usable(read_only, dataset)


def state(root: Path = Path()) -> tuple[str | None, bool]:
    """(commit of HEAD, whether tracked files differ from it); (None, False) where git cannot tell."""
    try:
        head = git_command.run("-C", str(root), "rev-parse", "HEAD")
        changes = git_command.run("-C", str(root), "status", "--porcelain", "--untracked-files=no")
    except StageError:
        return None, False
    if head.returncode != 0 or changes.returncode != 0:
        return None, False
    return head.stdout.strip(), bool(changes.stdout.strip())


def uncommitted(folder: Path) -> set[str]:
    """Names of the files in a folder, without subfolders, that are new or differ from the last commit."""
    # without optional locks, git leaves the index as it is
    options = ("--porcelain", "-z", "--untracked-files=all", "--no-renames")
    shown = git_command.checked("status", *options, "--", str(folder), env={"GIT_OPTIONAL_LOCKS": "0"})
    return {Path(entry[3:]).name for entry in shown.split("\0") if entry}


def committed(folder: Path) -> set[str]:
    """Names of the files and subfolders that the last commit has in a folder; empty before the first commit."""
    shown = git_command.run("ls-tree", "-z", "--name-only", "HEAD", "--", f"{folder}/")
    return (
        {Path(entry).name for entry in shown.stdout.split("\0") if entry} if shown.returncode == 0 else set()
    )


def has_file(revision: str, path: Path) -> bool:
    """Whether a revision has a file."""
    return git_command.run("cat-file", "-e", f"{revision}:./{path}").returncode == 0


def tags(prefix: str) -> set[str]:
    """Names of the tags below a prefix that ends with `/`.

    Raises:
        StageError: git failed.
    """
    shown = git_command.checked("for-each-ref", "--format=%(refname)", f"refs/tags/{prefix}")
    return {line.removeprefix("refs/tags/") for line in shown.splitlines()}


def branch() -> str | None:
    """Name of the present branch; None on a detached HEAD."""
    return git_command.run("symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip() or None


def commit(paths: Sequence[Path], message: str, tag: str | None = None) -> bool:
    """Commit these paths and tag the result; False if nothing had changed and no tag was missing.

    Other paths, staged or edited, are left alone. A trailer in the message marks the commit as segflow's. After a
    kill, a repeated call completes the commit and the tag.

    Raises:
        StageError: git failed, for example because of a hook or a conflict.
    """
    names = [str(path) for path in paths if path.exists()]
    if names:
        git_command.checked("add", "--force", "--", *names)
    changed = bool(names) and git_command.run("diff", "--cached", "--quiet", "--", *names).returncode != 0
    if changed:
        text = f"{message}\n\n{git_push.TRAILER}"
        git_command.checked(
            *git_command.author(),
            *("commit", "--quiet", "--message", text, "--only", "--", *names),
            limit=_HOOK_SECONDS,
        )
    untagged = tag is not None and git_command.run("show-ref", "--quiet", f"refs/tags/{tag}").returncode != 0
    if tag is not None and untagged:
        # a signed tag would need a message, for which git opens an editor
        git_command.checked("tag", "--no-sign", tag)
    return changed or untagged


def push_target() -> str | None:
    """The remote's branch to which `push` pushes, such as origin/main; None without one.

    Raises:
        StageError: git's settings name no branch.
    """
    return git_push.target_name()


def require_own_commits() -> None:
    """Check that `push` would publish segflow's commits only, by what is known here of the remote.

    Raises:
        StageError: an unpublished commit is not segflow's.
    """
    git_push.require_own_commits()


def push(dataset: str) -> bool:
    """Push the current branch and the tags `data/<dataset>/*` of segflow's commits; False without upstream branch.

    Raises:
        StageError: a commit that would be pushed is not segflow's, or the remote cannot be reached or refuses.
    """
    return git_push.push(dataset)


def snapshot(remote: str = "origin") -> str:
    """Push the working tree, edits included, to the remote for workers; branch and index do not change.

    The same files on the same commit always give the same revision, so that several clients share it.

    Returns:
        The revision, 40 hexadecimal digits; on the remote it is the ref `refs/segflow/<revision>`.

    Raises:
        StageError: this is not a clone, or the remote is missing or rejects the revision.
    """
    if git_command.run("remote", "get-url", remote).returncode != 0:
        raise StageError(
            f"workers get the code through git, and this folder has no remote {remote!r}",
            f"add a remote that the workers can read: git remote add {remote} ADDRESS",
        )
    with tempfile.TemporaryDirectory() as folder:
        env = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git_command.checked("read-tree", "HEAD", env=env)
        git_command.checked("add", "--update", env=env)
        git_command.checked("add", "--", *(name for name in _CARRIED if Path(name).exists()), env=env)
        tree = git_command.checked("write-tree", env=env).strip()
    when = git_command.checked("show", "--no-patch", "--format=%cI", "HEAD").strip()
    identity = {
        "NAME": git_command.AUTHOR["user.name"],
        "EMAIL": git_command.AUTHOR["user.email"],
        "DATE": when,
    }
    # author and time are fixed, so that the revision depends only on the files and the commit
    fixed = {
        f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in identity.items()
    }
    revision = git_command.checked(
        "commit-tree", tree, "-p", "HEAD", "-m", "For segflow workers", env=fixed
    ).strip()
    git_command.network("push", "--quiet", remote, f"{revision}:{_REFS}{revision}")
    return revision


def check_out(revision: str, remote: str = "origin") -> None:
    """Check out a revision of `snapshot` in a worker's clone; edits of tracked files are discarded.

    Raises:
        StageError: the clone is not marked as a worker's, or the remote does not have the revision.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise StageError(f"{revision!r} is not a revision", "give 40 hexadecimal digits, see git rev-parse")
    if git_command.run("config", "--type=bool", _WORKER).stdout.strip() != "true":
        raise StageError(
            f"{Path.cwd()} is not marked as a worker's clone, in which edits may be discarded",
            f"point SEGFLOW_CLONE at a clone made for the worker, and there: git config {_WORKER} true",
        )
    if git_command.run("cat-file", "-e", f"{revision}^{{commit}}").returncode != 0:
        git_command.network("fetch", "--quiet", remote, f"{_REFS}{revision}")
    git_command.checked("checkout", "--quiet", "--force", "--detach", revision)
