"""A program that is killed at its steps, one after the other: a file opened, renamed, a block sent.

    python killed_everywhere.py WORK ROOT SHARE-AS-JSON

After each kill the store is looked at: what is in its place is whole, everything else is found by the sweeper. Then the
work is done again, and must give the same. Prints how many kills there were, as JSON.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from modelyard_tracking.digests import check_folder
from modelyard_tracking.store import ArtifactStore
from modelyard_tracking.storing import sweeper
from modelyard_tracking.storing.frames import read_frame
from modelyard_tracking.storing.objects import Address
from modelyard_tracking.storing.share import Share

STEPS = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.utime",
    "shutil.copyfile",
    "http.client.send",
    "socket.connect",
)
FRAME = pd.DataFrame({"x": range(100)})


def keep_model(store: ArtifactStore) -> str:
    with store.new_model() as folder:
        (folder / "below").mkdir()
        (folder / "below" / "weights").write_bytes(bytes(range(256)) * 2**15)  # 8 MiB: more than one part
        (folder / "schema.json").write_bytes(b"{}")
        return store.keep_model(folder)


def keep_frame(store: ArtifactStore) -> str:
    return store.keep_frame(FRAME)


def bring(store: ArtifactStore) -> str:
    digest = keep_model(store)
    for waiting in store.pending():
        store.bring(waiting)
    return digest


def remove(store: ArtifactStore) -> str:
    digest = bring(store)
    for item in (*sweeper.items_here(store.root), *(sweeper.items_there(store.share) if store.share else ())):
        item.remove()
    return digest


def fetch(store: ArtifactStore) -> str:
    other = ArtifactStore(store.root.with_name("other"), store.share)
    digest = bring(other)
    check_folder(store.model(digest), digest)
    return digest


def killed_at(step: int, work: Callable[[ArtifactStore], str], store: ArtifactStore) -> bool:
    """Do the work in a child that dies at its step'th step; False if it came to its end before."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, _: object) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            work(store)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def look(store: ArtifactStore) -> None:
    """Stop if something is in its place and not whole, or lies where no sweeper looks."""
    listed = list(sweeper.items_here(store.root))
    for item in listed:
        if item.leftover:
            continue
        if item.kind == "model":
            check_folder(store.path("model", item.name), item.name)
        elif item.kind == "frame":
            read_frame(store.path("frame", item.name), item.name)
    places = {"models", "data", "incoming", "pending", "owners"}
    assert {path.name for path in store.root.glob("*")} <= places, list(store.root.glob("*"))
    shown = len([path for name in ("models", "data", "incoming") for path in (store.root / name).glob("*")])
    assert shown == len(listed), (shown, listed)
    if store.share is not None:
        there = ArtifactStore(store.root.with_name("look"), store.share)
        for item in sweeper.items_there(store.share):
            if item.kind == "model" and not item.leftover:
                check_folder(there.model(item.name), item.name)
        shutil.rmtree(there.root, ignore_errors=True)


def clear(store: ArtifactStore) -> None:
    for item in (*sweeper.items_here(store.root), *(sweeper.items_there(store.share) if store.share else ())):
        item.remove()
    shutil.rmtree(store.root, ignore_errors=True)
    shutil.rmtree(store.root.with_name("other"), ignore_errors=True)


def main() -> None:
    name, root, shared = sys.argv[1:]
    work = {"keep_model": keep_model, "keep_frame": keep_frame, "bring": bring, "remove": remove, "fetch": fetch}[name]
    address = Address(**json.loads(shared)) if shared != "null" else None
    if address is not None and address.url.startswith("s3"):
        from modelyard_tracking.storing import s3

        s3.PART_BYTES = 5 * 2**20
    store = ArtifactStore(Path(root), Share(address) if address else None, "runs-1")
    expected, kills = work(store), 0
    clear(store)
    step = 1
    while killed_at(step, work, store):
        kills += 1
        step += 1 + step // 8  # every one of the first, and then some of the thousand blocks that are sent
        look(store)
        again = work(store)
        assert again == expected, (kills, again, expected)
        look(store)
        clear(store)
        assert not store.share or list(sweeper.items_there(store.share)) == []
    print(json.dumps({"kills": kills}))


if __name__ == "__main__":
    main()
