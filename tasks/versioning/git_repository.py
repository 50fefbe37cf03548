"""The git repository around the current folder: where it is, and whether a commit can succeed.

Whether there is a repository is read from the file system: git answers "not a repository" for a damaged one as well.
"""

import errno
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from segcore.errors import StageError
from tasks.versioning import git_command, git_locks, git_rehearsal
from tasks.versioning.git_locks import Folders

# in the folder of a work tree while a command is unfinished: what it is, and how it is ended
_UNFINISHED = {
    "MERGE_HEAD": ("a merge", "git merge --abort"),
    "rebase-merge": ("a rebase", "git rebase --abort"),
    "rebase-apply/applying": ("`git am`", "git am --abort"),
    "rebase-apply": ("a rebase", "git rebase --abort"),
    "CHERRY_PICK_HEAD": ("a cherry-pick", "git cherry-pick --abort"),
    "REVERT_HEAD": ("a revert", "git revert --abort"),
    "sequencer": ("a cherry-pick or revert", "git cherry-pick --abort"),
    "BISECT_LOG": ("a bisection", "git bisect reset"),
}
# more than a commit needs
_WRITTEN_BYTES = 1 << 18


def find() -> Path | None:
    """Path of `.git` in this folder or the nearest parent that has one, as git searches; None without one."""
    named = os.environ.get("GIT_DIR")
    if named:
        return Path(named).absolute()
    folder = Path.cwd()
    ceilings = {
        Path(os.path.realpath(place))
        for place in os.environ.get("GIT_CEILING_DIRECTORIES", "").split(":")
        if place
    }
    crosses = os.environ.get("GIT_DISCOVERY_ACROSS_FILESYSTEM", "").lower() in ("1", "true", "yes", "on")
    device = folder.stat().st_dev
    for place in (folder, *folder.parents):
        if place != folder and (place in ceilings or not (crosses or place.stat().st_dev == device)):
            return None
        if os.path.lexists(place / ".git"):
            return place / ".git"
    return None


def require_readable() -> Folders | None:
    """Folders of the repository; None if there is no `.git`.

    Raises:
        StageError: there is one that git cannot use, such as that of another user or a damaged one.
    """
    found = find()
    if found is None:
        return None
    done = git_command.run("rev-parse", "--absolute-git-dir", "--is-inside-work-tree")
    # git skips a damaged .git and finds that of a parent folder
    answer = done.stdout.splitlines()
    is_other = bool(answer) and found.is_dir() and Path(answer[0]).resolve() != found.resolve()
    if done.returncode == 0 and not is_other:
        if answer[1:] == ["true"]:
            return git_command.folders()
        if git_command.run("config", "--type=bool", "core.bare").stdout.strip() == "true":
            raise StageError(f"{found}: it is a bare repository (core.bare)", "git config core.bare false")
        raise StageError(
            f"{found}: this folder is not in its work tree",
            "run in the project's folder, and unset GIT_DIR and GIT_WORK_TREE",
        )
    if is_other or "not a git repository" in done.stderr or "gitfile" in done.stderr:
        raise _damaged(found, done.stderr.strip())
    raise git_command.failure(f"{found}: git cannot use this repository", done.stderr)


def _damaged(found: Path, message: str) -> StageError:
    quoted, folder = shlex.quote(str(found)), shlex.quote(str(found.parent))
    if "GIT_DIR" in os.environ:
        return StageError(
            f"{found}: GIT_DIR names no repository ({message})", "unset GIT_DIR, then run again"
        )
    if found.is_file():
        return StageError(
            f"{found}: does not name a folder that git can use ({message or 'unreadable'})",
            f"in the clone to which this work tree belongs: git worktree repair {folder}",
        )
    for path in (found, found / "HEAD"):
        if path.exists() and not os.access(path, os.R_OK):
            return _not_permitted(path, "read", "")
    if not (found / "objects").is_dir():
        return StageError(
            f"{found}: has no folder `objects`, so there is no history in it",
            f"replace it by the .git of a new clone; for work without git: rm -r {quoted}",
        )
    if not (found / "refs").is_dir():
        return StageError(
            f"{found}: has no folder `refs`",
            f"make it, then restore branches that are missing from `git branch`: mkdir -p {quoted}/refs/heads",
        )
    head = found / "HEAD"
    content = head.read_bytes() if head.is_file() else None
    why = "is missing" if content is None else "is damaged" if content.strip(b"\0\n ") else "is empty"
    return _restore_head(head, why)


def _restore_head(head: Path, why: str) -> StageError:
    return StageError(
        f"{head}: {why}, so git cannot use this repository",
        f"restore it: echo {shlex.quote(_last_head(head.parent))} > {shlex.quote(str(head))}",
    )


def _last_head(git_dir: Path) -> str:
    """What HEAD contained last, by its log: a branch, or the commit if it was detached."""
    log = git_dir / "logs/HEAD"
    text = log.read_text(errors="replace") if log.is_file() else ""
    moves = re.findall(r"\tcheckout: moving from \S+ to (\S+)$", text, re.MULTILINE)
    commits = re.findall(r"^[0-9a-f]{40,64} ([0-9a-f]{40,64}) ", text, re.MULTILINE)
    last = commits[-1] if commits else ""
    branches = _branches(git_dir)
    if moves:
        known = [name for name in moves[-1:] if name in branches]
    else:
        # of those at the last commit; the first is taken, main before others
        known = sorted(
            branches, key=lambda name: (branches[name] != last, name != "main", name != "master", name)
        )
    return f"ref: refs/heads/{known[0]}" if known else last or "ref: refs/heads/main"


def _branches(git_dir: Path) -> dict[str, str]:
    """Commit by branch, read without git."""
    packed, heads = git_dir / "packed-refs", git_dir / "refs/heads"
    text = packed.read_text(errors="replace") if packed.is_file() else ""
    rows = re.findall(r"^([0-9a-f]{40,64}) refs/heads/(.+)$", text, re.MULTILINE)
    loose = [path for path in heads.rglob("*") if path.is_file()]
    return {name: commit for commit, name in rows} | {
        path.relative_to(heads).as_posix(): path.read_text(errors="replace").strip() for path in loose
    }


def require_usable(read_only: bool = False, dataset: str = "") -> None:
    """Check before a round that a commit and a tag can succeed later; does nothing without a repository.

    Locks of ended processes are removed; on a detached HEAD a note is printed.

    Args:
        read_only: change nothing, and wait for no lock.
        dataset: whose batches will be tagged.

    Raises:
        StageError: git cannot use the repository, an unfinished merge or rebase, a file that cannot be written, a full
            disk, a damaged HEAD, index or object, a missing signing key or filter program, a tag whose name is that of
            a folder of tags, or a lock of a running process.
    """
    folders = require_readable()
    if folders is None:
        return
    _require_writable(folders, read_only)
    if read_only:
        git_locks.require_releasable(folders)
    else:
        git_locks.release(folders)
    _require_nothing_unfinished(folders)
    if not _require_head(folders):
        return
    git_rehearsal.rehearse(folders, read_only, dataset)
    if git_command.run("symbolic-ref", "--quiet", "HEAD").returncode != 0:
        print(
            f"{folders.work_tree}: HEAD is detached, so no branch will contain the commits of this round; "
            "to keep them: git switch --create NAME",
            flush=True,
        )


def _require_nothing_unfinished(folders: Folders) -> None:
    for name, (what, abort) in _UNFINISHED.items():
        if (folders.git_dir / name).exists():
            raise StageError(
                f"{folders.work_tree}: {what} is in progress, during which git makes no other commit",
                f"finish it (git status tells how) or undo it: {abort}",
            )
    unmerged = git_command.checked("ls-files", "--unmerged", "--full-name", "-z", "--", ":/").split("\0")
    names = sorted({entry.partition("\t")[2] for entry in unmerged if entry})
    if names:
        raise StageError(
            f"{folders.work_tree}: {len(names)} files have merge conflicts: {', '.join(names[:5])}",
            "resolve them and run `git add` on each, or discard the merge: git reset --merge",
        )


def _require_writable(folders: Folders, read_only: bool) -> None:
    """Check the folders in which a commit and a tag make files."""
    objects = folders.common_dir / "objects"
    places = {folders.git_dir, folders.common_dir, folders.common_dir / "refs", objects}
    for folder in () if read_only else places:
        # permission bits do not show a full disk, nor root's limits
        try:
            # git removes such a file if a kill leaves it
            with tempfile.NamedTemporaryFile(dir=folder, prefix="tmp_obj_") as stream:
                if folder == objects:
                    stream.write(os.urandom(_WRITTEN_BYTES))
                    stream.flush()
                    os.fsync(stream.fileno())
        except OSError as error:
            raise _not_writable(folder, error) from error
    for path in (*places, *_written_by_commits(folders)):
        if not os.access(path, os.W_OK):
            raise _not_writable(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _written_by_commits(folders: Folders) -> Iterator[Path]:
    yield from (path for path in (folders.common_dir / "objects").glob("[0-9a-f][0-9a-f]"))
    for top in {folders.git_dir / "logs", folders.common_dir / "logs"}:
        yield from top.rglob("*")
    for folder, _, _ in os.walk(folders.common_dir / "refs"):
        yield Path(folder)


def _not_writable(path: Path, error: OSError) -> StageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StageError(f"{path}: the disk is full ({error.strerror})", "free disk space, then run again")
    what = f"{path}: cannot be written ({error.strerror}), so git can make no commit"
    if error.errno == errno.EROFS:
        return StageError(what, "mount this file system with write permission, then run again")
    if error.errno == errno.EPERM:
        return StageError(what, f"remove the attributes that forbid it: chattr -R -i -a {_top(path)}")
    if error.errno != errno.EACCES:
        return StageError(what, "correct the cause, then run again")
    return _not_permitted(path, "write", ", so git can make no commit")


def _not_permitted(path: Path, what: str, consequence: str) -> StageError:
    user = os.geteuid()
    owner = path.stat().st_uid if os.access(path.parent, os.X_OK) else None
    text = f"{path}: this user ({user}) must not {what} it; its owner is {'another user' if owner is None else owner}"
    if owner == user:
        return StageError(text + consequence, f"chmod -R u+rwX {_top(path)}")
    return StageError(
        text + consequence,
        f"run as the owner of {path.parent}, or let root give it to this user: chown -R {user} {_top(path)}",
    )


def _top(path: Path) -> str:
    """The folder `.git` of a path in it, for a shell."""
    return shlex.quote(str(next((place for place in (path, *path.parents) if place.name == ".git"), path)))


def _require_head(folders: Folders) -> bool:
    """Check that HEAD names a commit; False in a repository without a commit."""
    done = git_command.run("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    if done.returncode == 0:
        return True
    if "packed-refs" in done.stderr or "shallow" in done.stderr:
        raise git_command.failure(f"{folders.common_dir}: git cannot use this repository", done.stderr)
    # git does not print the name of a damaged branch
    head = (folders.git_dir / "HEAD").read_text(errors="replace")
    name = head.removeprefix("ref:").strip() if head.startswith("ref:") else ""
    ref, log = folders.common_dir / name, folders.common_dir / "logs" / name
    # git logs each branch from its first commit on, and removes the log of a deleted one
    if name and not ref.exists() and not (log.is_file() and log.stat().st_size):
        if not (head.endswith("\n") and name.startswith("refs/heads/")):
            raise _restore_head(folders.git_dir / "HEAD", f"is cut ({head.strip()})")
        return False
    what = f"{ref if name else folders.git_dir / 'HEAD'}: names no commit that git can read"
    last = _last_commit(log if name else folders.git_dir / "logs/HEAD")
    if name and last:
        raise StageError(
            what, f"restore the branch at its last readable commit: echo {last} > {shlex.quote(str(ref))}"
        )
    if last:
        raise StageError(what, f"check out the last commit again: git checkout --force {last}")
    raise StageError(what, "git fetch --refetch; if that does not help, replace .git by that of a new clone")


def _last_commit(log: Path) -> str | None:
    """The newest commit of a log that exists."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    for line in reversed(lines[-50:]):
        commit = [*line.split(" "), ""][1]
        if git_command.run("rev-parse", "--quiet", "--verify", f"{commit}^{{tree}}").returncode == 0:
            return commit
    return None
