"""A shared store of each kind, and two machines that use it."""

from pathlib import Path

import pytest

from modelyard_tracking.store import ArtifactStore
from modelyard_tracking.storing.objects import Address
from modelyard_tracking.storing.share import Share
from store_tools import address_of


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.ceph)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """A new, empty shared store: a folder, or a bucket in a real Ceph."""
    if request.param == "s3":
        return address_of(request.getfixturevalue("ceph"))
    (tmp_path / "share").mkdir()
    return Address(f"file://{tmp_path}/share")


@pytest.fixture
def here(address: Address, tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "here", Share(address), "runs-1")


@pytest.fixture
def there(address: Address, tmp_path: Path) -> ArtifactStore:
    """Another machine with the same shared store."""
    return ArtifactStore(tmp_path / "there", Share(address), "runs-1")
