"""The digest of a folder of model files."""

import subprocess
from pathlib import Path

import pytest

from modelyard_serving.errors import Refused
from modelyard_serving.model_files import digest_of, verify
from modelyard_tracking.digests import check_folder, write_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    (tmp_path / "sub" / "ü.txt").write_text("text")
    return tmp_path


def test_tracking_and_serving_and_coreutils_agree_on_the_index(folder: Path) -> None:
    digest = write_index(folder)
    verify(folder, digest)
    check_folder(folder, digest)
    assert digest == digest_of(folder)
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def _flip(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"\x01" + bytes(range(1, 256)))


def _add(folder: Path) -> None:
    (folder / "sub" / "new.py").write_text("import os")


def _remove(folder: Path) -> None:
    (folder / "sub" / "ü.txt").unlink()


@pytest.mark.parametrize(("change", "named"), [(_flip, "a.bin"), (_add, "sub/new.py"), (_remove, "sub/ü.txt")])
@pytest.mark.parametrize("check", [verify, check_folder])
def test_a_changed_added_or_removed_file_is_refused_by_name(folder: Path, change, named, check) -> None:
    digest = write_index(folder)
    change(folder)
    with pytest.raises(Exception, match=named):
        check(folder, digest)


def test_a_consistent_folder_with_another_digest_is_refused(folder: Path) -> None:
    digest = write_index(folder)
    _flip(folder)
    write_index(folder)
    with pytest.raises(Refused, match="approved digest"):
        verify(folder, digest)


def test_links_are_refused(folder: Path) -> None:
    digest = write_index(folder)
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="is a link"):
        verify(folder, digest)
