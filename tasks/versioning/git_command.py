"""Running git: without prompts, with a time limit on the network, and with a remedy for each kind of failure."""

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from segcore.errors import StageError
from tasks.versioning import git_locks
from tasks.versioning.git_locks import Folders

# used where git has no name or address configured
AUTHOR = {"user.name": "segflow", "user.email": "segflow@localhost"}

_NETWORK = ("fetch", "ls-remote", "push")
_NETWORK_SECONDS = 300.0
# of a command that found a lock
_RETRIES = 5
_LINES = 20

# what git prints, and the remedy
_REMEDIES = (
    (
        r"dubious ownership in repository at '(.+?)'",
        "run as the owner of this folder, or allow this user to use it: "
        "git config --global --add safe.directory {}",
    ),
    (
        r"unexpected line in \S*packed-refs",
        "remove the damaged lines from .git/packed-refs and run `git fetch --tags`, or replace .git by that of a new "
        "clone",
    ),
    (r"bad shallow line", "fetch the whole history: rm .git/shallow && git fetch --refetch"),
    (
        r"(?:clean|smudge|process) filter|external filter",
        "install the program of that filter (for lfs: git-lfs), or remove its line from .gitattributes",
    ),
    (r"bad .*config .*in file ([^\n:]+)", "correct the named line or value of {}"),
    (
        r"git repo version|unknown repository extension",
        "install the version of git that made this clone, or newer",
    ),
    (r"No space left on device|Disk quota exceeded|disk full", "free disk space, then run again"),
    (
        r"insufficient permission|Permission denied|Read-only file system|Operation not permitted",
        "let the user that runs segflow read and write the named file (for .git: chown -R USER .git), then run again",
    ),
    (
        r"gpg failed to sign|failed to sign|[Ss]igning (?:failed|key)|user\.signingkey",
        "make the signing key usable without a prompt, or turn signing off in this clone: "
        "git config commit.gpgsign false",
    ),
    (
        r"identity unknown|tell me who you are|empty ident|auto-detect email",
        "set both: git config user.name NAME; git config user.email ADDRESS",
    ),
    (
        r"index file (?:corrupt|smaller)|bad signature|bad index|unknown index entry|index uses",
        "make the index anew; no file is changed: rm -f {index} && git reset",
    ),
    (
        r"unmerged|not concluded your merge|during a (?:merge|cherry-pick|rebase)",
        "finish it (git status tells how) or abort it, then run again",
    ),
    (
        r"object file|loose object|bad object|missing blob|invalid object|unable to read (?:tree|sha1)|"
        r"object directory|corrupt|inflate|unable to find all commit|could not parse|invalid sha1 pointer",
        "find .git/objects -type f -empty -delete && git fetch --refetch; if `git fsck` still reports errors, "
        "replace .git by that of a new clone",
    ),
)

# of commands that use the network
_NETWORK_REMEDIES = (
    (
        r"Permission denied \(|Authentication failed|could not read (?:Username|Password)|Host key verification",
        "make the credential usable without a prompt: for ssh a key without passphrase or an agent, and the host "
        "in known_hosts; for https a credential helper (git config credential.helper store, then one push by hand)",
    ),
    (
        # another clone has pushed a batch of this name: the same delivery on the same day
        r"\[rejected\] +(\S+) -> \S+ \(already exists\)",
        "use the remote's tag: git fetch --force {remote} tag {}",
    ),
    (r"\[rejected\]|non-fast-forward|fetch first", "git pull --rebase --autostash, then run again"),
    (r"shallow update not allowed", "fetch the whole history once: git fetch --unshallow"),
    (
        r"remote rejected|hook declined|protected branch",
        "allow this user to push to that branch on the server, or push another one: "
        "git switch --create NAME && git push --set-upstream origin NAME",
    ),
    (
        r"resolve host|unable to access|onnection (?:refused|timed out|reset)|No route|unreachable|"
        r"does not appear to be a git repository|Could not read from remote|unable to connect|not found",
        "check the remote's address (git remote -v) and the network, then run again",
    ),
)


def run(
    *arguments: str, env: Mapping[str, str] | None = None, limit: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git in the current folder.

    Args:
        arguments: command and arguments.
        env: environment variables, in addition to those of this process.
        limit: seconds after which the command and its children are killed; they have no terminal.

    Raises:
        StageError: git is not installed or cannot be started, or the time limit has passed.
    """
    # no prompt for a password, no editor, English messages
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": ":", "LANGUAGE": "en", **(env or {})}
    command = ["git", *arguments]
    try:
        # a new session has no terminal, in which ssh could prompt
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **quiet},
            start_new_session=limit is not None,
        )
    except OSError as error:
        raise StageError(
            f"git cannot be started ({error.strerror})",
            "install git, or add its folder to PATH, then run again",
        ) from error
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        name = _name(arguments)
        remedy = "check the remote's address (git remote -v) and the network, then run again"
        if name not in _NETWORK:
            remedy = "correct the hook that waits: `git rev-parse --git-path hooks` names its folder; then run again"
        raise StageError(f"git {name} did not end within {limit:.0f} s", remedy) from None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL) if limit is not None else process.kill()
            process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def checked(*arguments: str, env: Mapping[str, str] | None = None, limit: float | None = None) -> str:
    """Standard output of git; locks of other processes are waited for, those of ended ones are removed.

    Raises:
        StageError: it failed; with git's words and a remedy.
    """
    for attempt in range(_RETRIES + 1):
        done = run(*arguments, env=env, limit=limit)
        if done.returncode == 0:
            return done.stdout
        if ".lock" not in done.stderr or "File exists" not in done.stderr or attempt == _RETRIES:
            break
        git_locks.release(folders())
    name = _name(arguments)
    text = done.stderr or done.stdout
    if name == "commit" and "fatal:" not in text and (hooks := _hooks()):
        remedy = f"correct what the hook reports ({', '.join(hooks)}), then run again; nothing is lost"
        raise StageError(f"a hook refused the commit: {_last_lines(text)}", remedy)
    raise failure(f"git {name} failed", text, network=name in _NETWORK)


def _name(arguments: Sequence[str]) -> str:
    """The command in git's arguments: options of git itself stand before it."""
    return next((a for a in arguments if re.fullmatch(r"[a-z]+(?:-[a-z]+)*", a)), arguments[0])


def network(*arguments: str) -> str:
    """`checked` for a command that uses the network: it fails where it would prompt, and has a time limit."""
    program = os.environ.get("GIT_SSH_COMMAND") or run("config", "core.sshCommand").stdout.strip()
    if not program and "GIT_SSH" not in os.environ:
        program = "ssh"
    is_openssh = Path(program.split(" ")[0]).name == "ssh"
    env = {"GIT_SSH_COMMAND": f"{program} -o BatchMode=yes -o ConnectTimeout=30"} if is_openssh else {}
    return checked(*arguments, env=env, limit=_NETWORK_SECONDS)


def author() -> list[str]:
    """Options of git that name an author where the user configured none."""
    missing = [name for name in AUTHOR if not run("config", name).stdout.strip()]
    return [part for name in missing for part in ("-c", f"{name}={AUTHOR[name]}")]


def failure(what: str, output: str, network: bool = False) -> StageError:
    """The error for what git printed.

    Args:
        what: beginning of the sentence.
        output: standard error of git.
        network: whether the command used the network.
    """
    what = f"{what}: {_last_lines(output)}"
    for pattern, remedy in (*(_NETWORK_REMEDIES if network else ()), *_REMEDIES):
        found = re.search(pattern, output)
        if found:
            path = shlex.quote(found[1].strip()) if found.re.groups else ""
            return StageError(what, remedy.format(path, index=_index(), remote=_remote()))
    return StageError(what, "correct the cause above and run again; nothing is lost")


def folders() -> Folders:
    """Folders of the repository around the current folder.

    Raises:
        StageError: git cannot use it.
    """
    # the work tree is last: in a bare repository it is missing
    done = run("rev-parse", "--absolute-git-dir", "--git-common-dir", "--show-toplevel")
    if done.returncode != 0:
        raise failure(f"git cannot use the repository around {Path.cwd()}", done.stderr)
    git_dir, common_dir, work_tree = (Path(line).resolve() for line in done.stdout.splitlines())
    return Folders(work_tree, git_dir, common_dir)


def _remote() -> str:
    """Remote of the current branch."""
    branch = run("symbolic-ref", "--quiet", "--short", "HEAD").stdout.strip()
    return run("config", f"branch.{branch}.remote").stdout.strip() or "origin"


def _index() -> str:
    """Path of the index for a shell."""
    done = run("rev-parse", "--git-path", "index")
    return shlex.quote(done.stdout.strip() or ".git/index")


def _hooks() -> list[str]:
    """Hooks of this clone that a commit runs."""
    names = ("pre-commit", "prepare-commit-msg", "commit-msg")
    options = [part for name in names for part in ("--git-path", f"hooks/{name}")]
    return [path for path in run("rev-parse", *options).stdout.splitlines() if os.access(path, os.X_OK)]


def _last_lines(output: str) -> str:
    # `hint:` lines advise commands that may lose unattended commits
    own = output.partition("\nTo add an exception")[0]
    lines = [line for line in own.strip().splitlines() if not line.startswith("hint:")]
    return "\n".join(lines[-_LINES:])
