"""What the tests of the store share: an address, a model, a line that is cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from modelyard_tracking.store import ArtifactStore
from modelyard_tracking.storing.objects import Address
from own_ceph import Ceph


def address_of(ceph: Ceph, url: str | None = None, secret: str | None = None, bucket: str | None = None) -> Address:
    where = f"s3://{bucket or ceph.bucket()}/some/prefix"
    return Address(where, url or ceph.url, key=ceph.key, secret=secret or ceph.secret)


def keep_model(store: ArtifactStore, **files: bytes) -> str:
    """A model with these files, and one in a folder below."""
    with store.new_model() as folder:
        (folder / "mlflow").mkdir()
        for name, content in {"weights": b"w" * 1000, **files}.items():
            (folder / "mlflow" / name).write_bytes(content)
        (folder / "schema.json").write_bytes(b"{}")
        return store.keep_model(folder)


def bring_all(store: ArtifactStore) -> None:
    for waiting in store.pending():
        store.bring(waiting)


@contextmanager
def cut_line(port: int, after: int) -> Iterator[int]:
    """A way to `port` that is cut, in both directions, once `after` bytes went there; gives its own port."""
    passed = 0
    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source: socket.socket, sink: socket.socket, counted: bool) -> None:
            nonlocal passed
            with suppress(OSError):
                while block := source.recv(65536):
                    if counted and passed + len(block) > after:
                        sink.sendall(block[: max(0, after - passed)])
                        passed = after
                        break
                    passed += len(block) if counted else 0
                    sink.sendall(block)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    near, _ = server.accept()
                    ends.append(near)
                    far = socket.create_connection(("127.0.0.1", port))
                    ends.append(far)
                    for pair in ((near, far, True), (far, near, False)):
                        threading.Thread(target=pump, args=pair, daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
    for end in ends:
        end.close()
