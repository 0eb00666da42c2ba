"""Where a request or an approval can be cut off, for a process that kills itself there."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from modelyard_tracking.approval import Approvals  # noqa: E402
from modelyard_tracking.evidence import Evidence  # noqa: E402
from modelyard_tracking.registry import Registry  # noqa: E402
from modelyard_tracking.store import ArtifactStore, Home  # noqa: E402


def _around(owner: Any, name: str, after: bool, only: str = "") -> Callable[[Callable[[], object]], None]:
    """Die before or after a call; of a method of all collections, on the one that is named."""

    def cut(die: Callable[[], object]) -> None:
        real = getattr(owner, name)

        def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            if only and self.name != only:
                return real(self, *args, **kwargs)
            if not after:
                die()
            result = real(self, *args, **kwargs)
            die()
            return result

        setattr(owner, name, called)

    return cut


def _points() -> dict[str, Callable[[Callable[[], object]], None]]:
    from pymongo.collection import Collection

    return {
        "before the answer": _around(Collection, "insert_one", after=False, only="answers"),
        "after the answer": _around(Collection, "insert_one", after=True, only="answers"),
        "before the state": _around(Registry, "tag", after=False),
        "after the state": _around(Registry, "tag", after=True),
        "before the alias": _around(Registry, "set_alias", after=False),
        "after the alias": _around(Registry, "set_alias", after=True),
        "before the row": _around(Registry, "add", after=False),
        "after the row": _around(Registry, "add", after=True),
        "before the evidence": _around(Collection, "insert_one", after=False, only="approvals"),
        "after the evidence": _around(Collection, "insert_one", after=True, only="approvals"),
        "before the entry": _around(Collection, "insert_one", after=False, only="ledger"),
        "after the entry": _around(Collection, "insert_one", after=True, only="ledger"),
    }


CUTS = _points()


def approvals(url: str, database: str, artifacts: str, registry: str) -> Approvals:
    home = Home(url, database, Path(artifacts), Path(artifacts) / "spool")
    return Approvals(home.connect(), Registry(registry), home.files)


def evidence_of(model: str, artifacts: Path) -> Evidence:
    """Evidence about a small model that is kept in the store."""
    files = ArtifactStore(artifacts)
    with files.new_model() as folder:
        (folder / "mlflow").mkdir()
        (folder / "mlflow" / "model.skops").write_bytes(b"weights")
        digest = files.keep_model(folder)
    lock = artifacts / "requirements.lock"
    lock.write_text("numpy==2.0.0\n")
    bound = {"model_sha256": digest, "commit": "c" * 40, "lock_sha256": files.keep_lock(lock), "data": {}}
    return Evidence({"model": model, "run_id": 1, **bound}, ())
