"""A worktree: the code of a run once more, in a folder of its own, for as long as a block lasts.

The user's own checkout is not touched: git keeps a second working tree beside it, which is removed in whatever way the
block ends.
"""

import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard_tracking.errors import Refused

_PREFIX = "yard-"
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")  # a checkout for a moment is no event for the user's hooks


@contextmanager
def worktree(repository: Path, commit: str, patch: bytes) -> Iterator[Path]:
    """The commit with the patch applied.

    Args:
        repository: a folder inside the repository; the commit is in there.
        patch: for `git apply`; may be empty.

    Raises:
        Refused: git cannot make it, or the patch does not apply.
    """
    scratch = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
    folder = scratch / scratch.name  # git names its own record of the worktree after the folder: a name like no other
    try:
        with _sigterm_as_ctrl_c():
            add = ("worktree", "add", "--detach", "--quiet", str(folder), commit)
            _git(repository, "check out the commit", *_NO_HOOKS, *add)
            if patch:
                what = "apply what was changed since the commit"
                _git(folder, what, "apply", "--binary", "--whitespace=nowarn", "-", stdin=patch)
            yield folder
    finally:
        with _undisturbed():
            _remove(repository, folder)
            shutil.rmtree(scratch, ignore_errors=True)


def leftover_worktrees(repository: Path) -> list[Path]:
    """The worktrees of reproductions that git knows of; those that nobody works in were left by a `kill -9`."""
    listing = ["git", "-C", str(repository), "worktree", "list", "--porcelain", "-z"]
    done = subprocess.run(listing, capture_output=True, timeout=60, check=False)
    lines = done.stdout.decode(errors="replace").split("\0") if done.returncode == 0 else []
    folders = [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
    return [folder for folder in folders if folder.name.startswith(_PREFIX) and folder.name == folder.parent.name]


def remove_worktree(repository: Path, folder: Path) -> None:
    """Remove a reproduction's worktree, git's record of it, and the folder around it."""
    _remove(repository, folder)
    shutil.rmtree(folder.parent, ignore_errors=True)


def _remove(repository: Path, folder: Path) -> None:
    remove = ["git", "-C", str(repository), "worktree", "remove", "--force", "--force", str(folder)]
    if subprocess.run(remove, capture_output=True, timeout=300, check=False).returncode:
        # It was cut off while it was made. `git worktree prune` would also forget worktrees of other people's disks.
        common = _git(repository, "find its own folder", "rev-parse", "--path-format=absolute", "--git-common-dir")
        shutil.rmtree(Path(common.strip()) / "worktrees" / folder.name, ignore_errors=True)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM would end the process at once, and leave the worktree behind."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until the block is over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _git(folder: Path, what: str, *args: str, stdin: bytes = b"") -> str:
    done = subprocess.run(["git", "-C", str(folder), *args], input=stdin, capture_output=True, timeout=600, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Refused(f"git cannot {what}, so the run's code cannot be had again:\n{said[-1500:]}")
    return done.stdout.decode(errors="replace")
