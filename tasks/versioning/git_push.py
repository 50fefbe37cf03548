"""Pushing what segflow committed, and nothing else."""

import re
from typing import NamedTuple

from segcore.errors import StageError
from tasks.versioning import git_command

# trailer of the commits of unattended rounds; earlier versions of segflow made commits without it
TRAILER = "Segflow: retrain"
_OWN = re.compile(rf"\A(?:Data of .+: batch \S|Retraining of .+ on batch \S)|^{TRAILER}$", re.MULTILINE)


class _Target(NamedTuple):
    """Where the current branch is pushed to.

    Attributes:
        branch: its local name.
        remote: name of the remote.
        ref: branch of the remote, such as `refs/heads/main`.
        known: local copy of that branch; empty before the first push.
    """

    branch: str
    remote: str
    ref: str
    known: str


class _Commit(NamedTuple):
    sha: str
    author: str
    subject: str
    is_own: bool


def push(dataset: str) -> bool:
    """Push the current branch and the tags of own commits to the branch's remote; False if it has none.

    Args:
        dataset: `data.name`; tags other than `data/<dataset>/*` are not pushed.

    Raises:
        StageError: an unpublished commit is not segflow's, or the remote cannot be reached or refuses.
    """
    target = _target()
    if target is None:
        return False
    unpublished = _commits("HEAD", *_published(target))
    if not all(commit.is_own for commit in unpublished):
        # the local copy of the remote's branch may be old
        git_command.network("fetch", "--quiet", "--no-tags", target.remote)
        unpublished = _commits("HEAD", *_published(target))
    _require_own(unpublished, target)
    if unpublished or not target.known:
        git_command.network("push", "--quiet", "--no-follow-tags", target.remote, f"HEAD:{target.ref}")
    tags = _own_tags(dataset, target)
    if tags:
        git_command.network(
            "push", "--quiet", "--no-follow-tags", target.remote, *(f"{tag}:{tag}" for tag in tags)
        )
    return True


def target_name() -> str | None:
    """Remote and branch to which `push` pushes, such as origin/main; None without one.

    Raises:
        StageError: git's settings name no branch to push to.
    """
    target = _target()
    return None if target is None else f"{target.remote}/{target.ref.removeprefix('refs/heads/')}"


def require_own_commits() -> None:
    """Check that `push` would publish segflow's commits only, by the local copy of the remote's branch.

    Raises:
        StageError: an unpublished commit is not segflow's.
    """
    target = _target()
    if target is not None:
        _require_own(_commits("HEAD", *_published(target)), target)


def _target() -> _Target | None:
    """Where `git push` would push the branch; None on a detached HEAD or without upstream.

    Raises:
        StageError: git's settings name no branch to push to.
    """
    branch = git_command.run("symbolic-ref", "--quiet", "HEAD").stdout.strip()
    fields = ("upstream:remotename", "push", "push:remotename", "push:remoteref")
    form = "%00".join(f"%({field})" for field in fields)
    answer = git_command.checked("for-each-ref", f"--format={form}", branch).rstrip("\n") if branch else ""
    upstream, known, remote, ref = answer.split("\0") if answer else ("", "", "", "")
    # "." is this repository itself
    if not upstream or remote == ".":
        return None
    prefix = f"refs/remotes/{remote}/"
    if not ref and known.startswith(prefix):
        # git prints the remote's name of the branch only where a refspec sets it
        ref = "refs/heads/" + known.removeprefix(prefix)
    if not ref:
        name = branch.removeprefix("refs/heads/")
        raise StageError(
            f"git's settings name no branch of a remote to which {name} is pushed",
            f"git config push.default simple && git push --set-upstream {upstream} {name}",
        )
    exists = known and git_command.run("rev-parse", "--quiet", "--verify", known).returncode == 0
    return _Target(branch.removeprefix("refs/heads/"), remote, ref, known if exists else "")


def _published(target: _Target) -> list[str]:
    return ["--not", target.known or f"--remotes={target.remote}"]


def _commits(*revisions: str) -> list[_Commit]:
    text = git_command.checked("log", "--format=%H%x00%an <%ae>%x00%B%x01", *revisions, "--")
    commits = []
    for entry in text.split("\x01")[:-1]:
        sha, author, message = entry.strip("\n").split("\0")
        subject = message.partition("\n")[0]
        commits.append(_Commit(sha, author, subject, bool(_OWN.search(message))))
    return commits


def _require_own(unpublished: list[_Commit], target: _Target) -> None:
    others = [commit for commit in unpublished if not commit.is_own]
    if others:
        # the oldest
        first = others[-1]
        more = f", and {len(others) - 1} more" if len(others) > 1 else ""
        raise StageError(
            f"branch {target.branch}: commit {first.sha[:10]} of {first.author} ({first.subject}){more} is not "
            "segflow's and is not on the remote, so nothing is pushed",
            f"publish it yourself: git push {target.remote} HEAD:{target.ref.removeprefix('refs/heads/')}; "
            "or move it to another branch",
        )


def _own_tags(dataset: str, target: _Target) -> list[str]:
    """Tags of the data set on own commits; everything that a tag would publish must be segflow's own."""
    place = f"refs/tags/data/{dataset}/"
    listed = git_command.checked(
        "for-each-ref", "--format=%(refname)%00%(objectname)%00%(*objectname)", place
    )
    commit_of = {}
    for line in listed.splitlines():
        name, pointed, peeled = line.split("\0")
        commit_of[name] = peeled or pointed
    own = {c.sha for c in _commits("--no-walk", *set(commit_of.values())) if c.is_own} if commit_of else set()
    # a rebase leaves tags at commits that are on no branch
    off_branch = set(
        git_command.checked("for-each-ref", "--format=%(refname)", "--no-merged=HEAD", place).splitlines()
    )
    return [
        name
        for name, sha in commit_of.items()
        if sha in own
        and (name not in off_branch or all(c.is_own for c in _commits(sha, "^HEAD", *_published(target))))
    ]
