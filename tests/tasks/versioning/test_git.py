"""Git before and during a round: damaged repositories, locks, and what is pushed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segcore.errors import StageError
from tasks.versioning import git, git_locks


def sh(folder: Path, command: str, check: bool = True) -> str:
    done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.strip()


def make(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a").write_text("1")
    identity = "git config user.name u && git config user.email u@e"
    sh(folder, f"git init -q -b main && {identity} && git add -A && git commit -qm one")
    sh(folder, "echo 2 > a && git commit -qam two")
    return folder


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make(tmp_path / "project")
    monkeypatch.chdir(folder)
    return folder


def test_without_git_folder_there_is_no_repository_even_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not git.is_repository()
    git.require_usable()
    (tmp_path / ".git").mkdir()
    with pytest.raises(StageError, match=r"git cannot be started(.|\n)*install git"):
        git.is_repository()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(StageError, match="git cannot be started"):
        git.is_repository()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert not git.is_repository()


def test_a_sound_repository_is_usable_within_a_fifth_of_a_second_and_unchanged(repo: Path) -> None:
    before = sorted(path for path in (repo / ".git").rglob("*"))
    start = time.perf_counter()
    git.require_usable()
    assert time.perf_counter() - start < 0.2
    assert git.is_repository() and sorted((repo / ".git").rglob("*")) == before


def test_a_repository_without_commit_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sh(tmp_path, "git init -q")
    git.require_usable()
    (tmp_path / "a").touch()
    assert git.commit([Path("a")], "first", "data/x/b1")
    assert sh(tmp_path, "git tag") == "data/x/b1"


def empty(name: str) -> Callable[[Path], object]:
    return lambda repo: (repo / ".git" / name).write_bytes(b"")


def zeros(name: str) -> Callable[[Path], object]:
    return lambda repo: (repo / ".git" / name).write_bytes(bytes(41))


def cut(name: str, length: int) -> Callable[[Path], object]:
    return lambda repo: (repo / ".git" / name).write_bytes((repo / ".git" / name).read_bytes()[:length])


def empty_object(revision: str) -> Callable[[Path], object]:
    def damage(repo: Path) -> None:
        sha = sh(repo, f"git rev-parse {revision}")
        path = repo / ".git/objects" / sha[:2] / sha[2:]
        path.chmod(0o644)
        path.write_bytes(b"")

    return damage


BRANCH = "refs/heads/main"
REPAIRABLE = {
    "HEAD empty": empty("HEAD"),
    "HEAD of zeros": zeros("HEAD"),
    "HEAD missing": lambda repo: (repo / ".git/HEAD").unlink(),
    "HEAD cut": cut("HEAD", 11),
    "HEAD cut in the branch's name": cut("HEAD", 18),
    "branch empty": empty(BRANCH),
    "branch of zeros": zeros(BRANCH),
    "branch cut": cut(BRANCH, 7),
    "branch missing": lambda repo: (repo / ".git" / BRANCH).unlink(),
    "last commit's object empty": empty_object("HEAD"),
    "index empty": empty("index"),
    "index of zeros": zeros("index"),
}


@pytest.mark.parametrize("kind", REPAIRABLE)
def test_a_damaged_repository_is_refused_and_the_remedy_repairs_it(repo: Path, kind: str) -> None:
    REPAIRABLE[kind](repo)
    with pytest.raises(StageError) as caught:
        git.require_usable()
    assert str(repo / ".git") in caught.value.what or "index" in caught.value.what
    sh(repo, caught.value.remedy.partition(": ")[2])
    git.require_usable()
    assert sh(repo, "git log -1 --format=%s main") == ("one" if "object" in kind else "two")
    assert (repo / "a").read_text() == "2\n"


def test_head_is_restored_to_the_branch_that_was_checked_out(repo: Path) -> None:
    sh(repo, "git switch -qc feature/x && git switch -q main && git switch -q feature/x")
    (repo / ".git/HEAD").write_text("")
    with pytest.raises(StageError, match=r"HEAD: is empty(.|\n)*ref: refs/heads/feature/x"):
        git.is_repository()


def test_a_detached_head_is_restored_to_its_commit(repo: Path) -> None:
    sh(repo, "git checkout -q --detach HEAD~")
    commit = sh(repo, "git rev-parse HEAD")
    (repo / ".git/HEAD").write_text("")
    with pytest.raises(StageError) as caught:
        git.is_repository()
    sh(repo, caught.value.remedy.partition(": ")[2])
    assert sh(repo, "git rev-parse HEAD") == commit and sh(repo, "git status --short") == ""


def damaged_config(repo: Path) -> None:
    (repo / ".git/config").write_text("[core\nx")


REFUSED = {
    "config": (damaged_config, r"bad config line 1(.|\n)*correct"),
    "tree": (empty_object("HEAD^{tree}"), r"is empty(.|\n)*git fetch --refetch"),
    "objects": (lambda repo: sh(repo, "rm -r .git/objects"), r"no folder `objects`"),
    "empty .git": (lambda repo: sh(repo, "rm -r .git && mkdir .git"), r"no folder `objects`"),
    "newer format": (lambda repo: sh(repo, "git config core.repositoryformatversion 9"), "found 9"),
    "merge": (
        lambda repo: (repo / ".git/MERGE_HEAD").write_text(sh(repo, "git rev-parse HEAD")),
        "a merge is",
    ),
    "rebase": (lambda repo: (repo / ".git/rebase-merge").mkdir(), "a rebase is in progress(.|\n)*--abort"),
    "am": (
        lambda repo: sh(repo, "mkdir .git/rebase-apply && touch .git/rebase-apply/applying"),
        "`git am` is in progress(.|\n)*git am --abort",
    ),
    "bare": (lambda repo: sh(repo, "git config core.bare true"), "bare repository(.|\n)*core.bare false"),
    "shallow": (
        lambda repo: (repo / ".git/shallow").write_text("zz\n"),
        "bad shallow line(.|\n)*rm .git/shallow",
    ),
    "packed refs": (
        lambda repo: sh(repo, "git pack-refs --all && echo zz >> .git/packed-refs"),
        "unexpected line in .git/packed-refs: zz(.|\n)*remove the damaged lines",
    ),
    "filter": (
        lambda repo: sh(
            repo,
            "git config filter.lfs.clean absent-program && git config filter.lfs.required true && "
            "echo '*.csv filter=lfs' > .gitattributes",
        ),
        "absent-program(.|\n)*install the program",
    ),
    "tag": (
        lambda repo: sh(repo, "git tag data"),
        "a tag data(.|\n)*git tag old-data data && git tag -d data",
    ),
    "tag of the data set": (lambda repo: sh(repo, "git tag data/x"), "a tag data/x(.|\n)*git tag -d data/x"),
    "bisection": (lambda repo: sh(repo, "git bisect start"), "a bisection(.|\n)*bisect reset"),
    "conflict": (
        lambda repo: sh(repo, "echo 5 > a; git stash; echo 6 > a; git commit -qam six; git stash pop", False),
        r"1 files have merge conflicts: a\n",
    ),
    "signing": (
        lambda repo: sh(repo, "git config commit.gpgsign true && git config gpg.program false"),
        "sign(.|\n)*commit.gpgsign false",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_would_make_a_commit_fail_is_refused_before(repo: Path, kind: str) -> None:
    damage, text = REFUSED[kind]
    damage(repo)
    with pytest.raises(StageError, match=text):
        git.require_usable(dataset="x")


def test_a_damaged_repository_inside_another_one_is_refused(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = make(repo / "inner")
    (inner / ".git/HEAD").write_text("")
    monkeypatch.chdir(inner)
    with pytest.raises(StageError, match=r"inner/\.git/HEAD"):
        git.is_repository()


def test_a_linked_work_tree_is_usable_until_its_clone_moves(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    linked = tmp_path / "linked"
    sh(repo, f"git worktree add -q {linked}")
    monkeypatch.chdir(linked)
    git.require_usable()
    repo.rename(tmp_path / "moved")
    with pytest.raises(StageError, match="worktree repair") as caught:
        git.is_repository()
    sh(tmp_path / "moved", caught.value.remedy.partition(": ")[2])
    git.require_usable()


def as_other_user(config: Path) -> str:
    """What `require_usable` raises for user 65534 with this file as git's configuration."""
    reader, writer = os.pipe()
    # a new interpreter could not be started where only root may read it
    child = os.fork()
    if child == 0:
        os.environ |= {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_SYSTEM": os.devnull}
        os.environ.pop("SUDO_UID", None)
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            git.require_usable()
        except Exception as error:  # noqa: BLE001
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        return stream.read()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process of another user")
def test_a_repository_of_another_user_is_refused_with_the_commands_that_allow_it(
    repo: Path, tmp_path: Path
) -> None:
    config = tmp_path / "gitconfig"
    config.touch()
    for place in (repo, *repo.parents):
        if place.is_relative_to(tmp_path.parent) or place.name.startswith("pytest-"):
            place.chmod(0o755)
    text = as_other_user(config)
    command = f"git config --global --add safe.directory {repo}"
    assert "dubious ownership" in text and command in text
    sh(repo, f"GIT_CONFIG_GLOBAL={config} {command}")
    text = as_other_user(config)
    assert "must not write it" in text and f"chown -R 65534 {repo}/.git" in text
    sh(repo, f"chown -R 65534 {repo}/.git")
    assert as_other_user(config) == ""
    sh(repo, "chmod -R a-w .git")
    assert f"Remedy: chmod -R u+rwX {repo}/.git" in as_other_user(config)
    sh(repo, "chmod -R u+rwX .git")
    assert as_other_user(config) == ""
    # a commit of root leaves a folder of objects that others cannot write
    sh(repo, f"chown 0 {next((repo / '.git/objects').glob('??'))}")
    assert "must not write it" in as_other_user(config)
    sh(repo, f"chown -R 65534 {repo}/.git && chown 0 .git/HEAD && chmod 600 .git/HEAD")
    assert "must not read it" in as_other_user(config)


def test_a_detached_head_is_noted(repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    git.require_usable()
    assert capfd.readouterr() == ("", "")
    sh(repo, "git checkout -q --detach")
    git.require_usable()
    assert "no branch will contain the commits" in capfd.readouterr().out
    assert not git.push("x")


LOCKS = (
    "index.lock",
    "HEAD.lock",
    "config.lock",
    "packed-refs.lock",
    "refs/heads/main.lock",
    "refs/tags/data/x/b1.lock",
)


def lock(repo: Path, name: str, age: float = 60) -> Path:
    path = repo / ".git" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_of_an_ended_process_is_removed_with_a_note(
    repo: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lock(repo, name)
    git.require_usable()
    assert not path.exists() and f"{path}: removed" in capfd.readouterr().err
    # and where it is found by one of the commands of a commit
    lock(repo, name)
    (repo / "b").touch()
    assert git.commit([Path("b")], "three", "data/x/b1")
    assert sh(repo, "git tag --points-at HEAD") == "data/x/b1"


def test_a_young_lock_is_waited_for(repo: Path) -> None:
    path = lock(repo, "index.lock", age=0)
    start = time.monotonic()
    git.require_usable()
    assert not path.exists() and 1 < time.monotonic() - start < 5


def test_a_read_only_check_changes_nothing_and_waits_for_nothing(
    repo: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = lock(repo, "index.lock")
    before = {p: p.stat().st_mtime_ns for p in (repo / ".git").rglob("*")}
    git.require_usable(read_only=True)
    assert {p: p.stat().st_mtime_ns for p in (repo / ".git").rglob("*")} == before
    assert f"{path}: would be removed" in capfd.readouterr().out
    with path.open() as held:
        code = "import sys, time; print(); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=held, stdout=subprocess.PIPE)
        os.utime(path, (time.time() + 1,) * 2)
    try:
        start = time.monotonic()
        with pytest.raises(StageError, match=f"process {process.pid}"):
            git.require_usable(read_only=True)
        assert time.monotonic() - start < 2
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kind", ["has the lock open", "is git in this work tree"])
def test_a_lock_of_a_running_process_is_waited_for_and_then_the_process_named(
    repo: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repo / ".git/index.lock"
    if kind == "has the lock open":
        code = f"import time; f = open({str(path)!r}, 'w'); print(); time.sleep(60)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
    else:
        # holds the lock while its editor is open
        (repo / "a").write_text("3")
        editor = {**os.environ, "GIT_EDITOR": f"{sys.executable} -c 'import time; time.sleep(60)'"}
        process = subprocess.Popen(["git", "commit", "-a"], env=editor, stdout=subprocess.DEVNULL)
        while not path.exists():
            time.sleep(0.02)
    try:
        os.utime(path, (time.time() + 0.1,) * 2)
        monkeypatch.setattr(git_locks, "WAIT_SECONDS", 2.5)
        with pytest.raises(StageError, match=rf"index\.lock: (.|\n)*process {process.pid} \("):
            git.require_usable()
        assert path.exists()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    git.require_usable()
    assert not path.exists()


def test_a_failing_hook_is_named(repo: Path) -> None:
    hook = repo / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\necho 'ruff: 3 errors: command not found'; exit 1\n")
    hook.chmod(0o755)
    (repo / "b").touch()
    with pytest.raises(StageError, match=r"hook refused the commit: ruff: 3 errors(.|\n)*hooks/pre-commit"):
        git.commit([Path("b")], "three")
    hook.unlink()
    assert git.commit([Path("b")], "three")


def test_a_commit_is_made_without_identity_and_where_tags_are_signed(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sh(repo, "git config --unset user.name && git config user.email '' && git config tag.gpgsign true")
    sh(repo, "git config tag.forceSignAnnotated true && git config core.editor 'sleep 100'")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    (repo / "b").touch()
    git.require_usable()
    assert git.commit([Path("b")], "three\n\nbody", "data/x/b1")
    assert (
        sh(repo, "git log -1 --format='%an|%s|%(trailers:key=Segflow,valueonly)'") == "segflow|three|retrain"
    )
    assert not git.commit([Path("b")], "three", "data/x/b1")


@pytest.fixture
def shared(repo: Path, tmp_path: Path) -> Path:
    """The remote of `repo`."""
    sh(tmp_path, "git clone -q --bare project origin.git")
    sh(repo, f"git remote add origin {tmp_path / 'origin.git'}")
    sh(repo, "git fetch -q && git branch -q -u origin/main")
    return tmp_path / "origin.git"


def batch(repo: Path, name: str) -> None:
    (repo / name).touch()
    git.commit([Path(name)], f"Data of x: batch {name}, 2 items", f"data/x/{name}")


def test_without_upstream_nothing_is_pushed(repo: Path) -> None:
    batch(repo, "b1")
    assert not git.push("x")


def test_only_own_commits_and_the_tags_of_this_data_set_are_pushed(repo: Path, shared: Path) -> None:
    sh(repo, "git tag private && git tag data/x/mine && git tag -a -m note annotated")
    sh(repo, "git branch other && git push -q origin other && git switch -q other")
    sh(repo, "git config push.followTags true && git config push.default matching")
    sh(repo, "git commit -q --allow-empty -m 'my work' && git switch -q main")
    batch(repo, "b1")
    git.commit([Path("b1")], "other data set", "data/y/b1")
    assert git.push("x")
    assert sh(shared, "git log -1 --format=%s main") == "Data of x: batch b1, 2 items"
    assert sh(shared, "git tag") == "data/x/b1"
    assert sh(shared, "git log -1 --format=%s other") == "two"
    assert git.push("x"), "again"
    # commits of earlier versions of segflow have no trailer
    sh(repo, "touch c && git add c && git commit -qm 'Retraining of x on batch b1' && git tag data/x/old")
    assert git.push("x") and sh(shared, "git tag").split() == ["data/x/b1", "data/x/old"]


def test_a_commit_of_the_user_stops_the_push_and_is_named(repo: Path, shared: Path) -> None:
    sh(repo, "git commit -q --allow-empty -m 'my work'")
    batch(repo, "b1")
    with pytest.raises(StageError, match=r"of u <u@e> \(my work\) is not segflow's") as caught:
        git.push("x")
    with pytest.raises(StageError, match="my work"):
        git.require_own_commits()
    assert git.push_target() == "origin/main" and git.branch() == "main"
    assert sh(shared, "git log -1 --format=%s main") == "two" and sh(shared, "git tag") == ""
    sh(repo, caught.value.remedy.partition("yourself: ")[2].partition(";")[0])
    assert git.push("x") and sh(shared, "git tag") == "data/x/b1"
    git.require_own_commits()


def test_a_commit_that_another_clone_published_does_not_stop_the_push(
    repo: Path, shared: Path, tmp_path: Path
) -> None:
    sh(repo, "git commit -q --allow-empty -m 'my work' && git push -q " + str(shared) + " main")
    sh(repo, "git update-ref refs/remotes/origin/main HEAD~")
    batch(repo, "b1")
    assert git.push("x")
    assert sh(shared, "git log -1 --format=%s main") == "Data of x: batch b1, 2 items"


def test_after_a_refused_push_the_remedy_lets_the_next_one_succeed(
    repo: Path, shared: Path, tmp_path: Path
) -> None:
    sh(tmp_path, f"git clone -q {shared} colleague")
    sh(tmp_path / "colleague", "git -c user.name=c -c user.email=c@e commit -q --allow-empty -m theirs")
    sh(tmp_path / "colleague", "git push -q")
    batch(repo, "b1")
    (repo / "a").write_text("an edit of the user")
    with pytest.raises(StageError, match=r"rejected(.|\n)*git pull --rebase") as caught:
        git.push("x")
    assert sh(shared, "git tag") == "", "no tag of a commit that is not there"
    sh(repo, caught.value.remedy.partition(",")[0])
    assert git.push("x")
    assert sh(shared, "git log --format=%s main").splitlines()[:2] == [
        "Data of x: batch b1, 2 items",
        "theirs",
    ]
    assert sh(shared, "git tag") == "data/x/b1"
    assert (repo / "a").read_text() == "an edit of the user"


def test_after_another_clone_pushed_a_batch_of_this_name_the_remedy_lets_the_push_succeed(
    repo: Path, shared: Path, tmp_path: Path
) -> None:
    sh(
        tmp_path,
        f"git clone -q {shared} twin && git -C twin tag data/x/b1 && git -C twin push -q origin data/x/b1",
    )
    sh(repo, "git remote rename origin server")
    batch(repo, "b1")
    with pytest.raises(StageError, match="already exists") as caught:
        git.push("x")
    sh(repo, caught.value.remedy.partition(": ")[2])
    assert git.push("x")
    assert sh(repo, "git rev-parse data/x/b1") == sh(shared, "git rev-parse data/x/b1")


def test_a_tag_off_the_branch_that_would_publish_foreign_commits_is_not_pushed(
    repo: Path, shared: Path
) -> None:
    sh(repo, "git switch -qc side && git commit -q --allow-empty -m 'my work'")
    batch(repo, "b1")
    sh(repo, "git switch -q main")
    batch(repo, "b2")
    assert git.push("x") and sh(shared, "git tag") == "data/x/b2"


def test_a_remote_that_is_gone_refuses_or_wants_a_password_is_an_error(
    repo: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch(repo, "b1")
    hook = shared / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(StageError, match=r"protected(.|\n)*allow this user to push"):
        git.push("x")
    shared.rename(tmp_path / "away")
    with pytest.raises(StageError, match=r"git push failed(.|\n)*git remote -v"):
        git.push("x")
    prompt = tmp_path / "ssh"
    prompt.write_text(
        '#!/bin/sh\ncase "$*" in *BatchMode=yes*) echo "Permission denied (publickey)." >&2;; esac\nexit 255\n'
    )
    prompt.chmod(0o755)
    sh(repo, f"git remote set-url origin ssh://nobody@localhost/x && git config core.sshCommand {prompt}")
    with pytest.raises(StageError, match=r"Permission denied \(publickey\)(.|\n)*without a prompt"):
        git.push("x")


def test_a_hook_that_waits_has_no_terminal_and_is_ended(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "_HOOK_SECONDS", 1.0)
    hook = repo / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\ntest -t 0 || ( : < /dev/tty ) 2> /dev/null && exit 3\nsleep 60\n")
    hook.chmod(0o755)
    (repo / "a").write_text("3")
    start = time.monotonic()
    with pytest.raises(StageError, match=r"git commit did not end within 1 s(.|\n)*the hook that waits"):
        git.commit([Path("a")], "three")
    assert time.monotonic() - start < 20
    hook.unlink()
    assert git.commit([Path("a")], "three")
