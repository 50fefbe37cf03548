"""Rehearsal of a commit and a tag before a round, which would fail at its end otherwise."""

import os
import tempfile

from segcore.errors import StageError
from tasks.versioning import git_command
from tasks.versioning.git_locks import Folders


def rehearse(folders: Folders, read_only: bool, dataset: str) -> None:
    """Check that a commit and a tag can be made; branches, tags and index stay as they are.

    Args:
        folders: of the repository.
        read_only: make no file in the repository.
        dataset: whose batches will be tagged; "": only what all data sets share.

    Raises:
        StageError: git refuses.
    """
    _build_tree(folders, read_only)
    _run_filters(dataset)
    _require_free_tag_names(dataset)


def _build_tree(folders: Folders, read_only: bool) -> None:
    """Build the tree of a commit, and sign one if commits are signed, in a temporary folder."""
    objects = folders.common_dir / "objects"
    # git removes such a folder if a kill leaves it
    place = None if read_only else objects
    with tempfile.TemporaryDirectory(dir=place, prefix="tmp_objdir-") as folder:
        others = [str(objects), *filter(None, [os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")])]
        env = {
            "GIT_INDEX_FILE": f"{folder}/index",
            "GIT_OBJECT_DIRECTORY": folder,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": ":".join(others),
        }
        git_command.checked("read-tree", "HEAD", env=env)
        tree = git_command.checked("write-tree", env=env).strip()
        if git_command.run("config", "--type=bool", "commit.gpgSign").stdout.strip() == "true":
            signed = ("commit-tree", "-S", "-p", "HEAD", "-m", "rehearsal", tree)
            git_command.checked(*git_command.author(), *signed, env=env)


def _run_filters(dataset: str) -> None:
    """Run the programs that .gitattributes names for the files of a round, such as git-lfs."""
    name = dataset or "x"
    files = (
        *("params.yaml", "dvc.lock", f"splits/{name}.csv", f"reports/{name}/scores.md"),
        *(f"decisions/{name}/history.json", f"data/batches/{name}/batch.dvc"),
    )
    fields = git_command.checked("check-attr", "-z", "filter", "--", *files).split("\0")
    for file, value in zip(fields[0::3], fields[2::3], strict=False):
        if value not in ("unspecified", "unset"):
            # of no content; nothing is written
            git_command.checked("hash-object", "--stdin", "--path", file)


def _require_free_tag_names(dataset: str) -> None:
    """Check that no tag is called like a folder of the tags data/<dataset>/<batch>."""
    folders = ["data", *([f"data/{dataset}"] if dataset else [])]
    options = ("--format=%(refname:strip=2)", *(f"refs/tags/{name}" for name in folders))
    tags = git_command.checked("for-each-ref", *options).split()
    if taken := [tag for tag in tags if tag in folders]:
        raise StageError(
            f"git has a tag {taken[0]}, so it can make no tags {taken[0]}/... for batches",
            f"rename that tag: git tag old-{taken[0].replace('/', '-')} {taken[0]} && git tag -d {taken[0]}",
        )
