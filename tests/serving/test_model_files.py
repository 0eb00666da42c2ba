"""The digest of a folder of model files."""

import hashlib
import os
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


def _link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "link").symlink_to("/etc", target_is_directory=True)


def _link_in_place_of_a_file(folder: Path) -> None:
    same = folder.parent / "same"
    (folder / "a.bin").rename(same)
    (folder / "a.bin").symlink_to(same)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "link")


@pytest.mark.parametrize("change", [_link, _linked_folder, _link_in_place_of_a_file, _pipe])
@pytest.mark.parametrize("check", [verify, check_folder])
def test_links_and_devices_are_refused(folder: Path, change, check) -> None:
    digest = write_index(folder)
    change(folder)
    with pytest.raises(Exception, match="is a link or a device"):
        check(folder, digest)


@pytest.mark.parametrize("name", ["../outside", "/outside", "sub/../../outside"])
@pytest.mark.parametrize("check", [verify, check_folder])
def test_an_index_that_names_a_file_outside_is_refused(folder: Path, name: str, check) -> None:
    write_index(folder)
    (folder.parent / "outside").write_bytes(b"outside")
    index = folder / "SHA256SUMS"
    index.write_text(index.read_text() + f"{hashlib.sha256(b'outside').hexdigest()}  {name}\n")
    with pytest.raises(Exception, match="outside"):
        check(folder, hashlib.sha256(index.read_bytes()).hexdigest())


@pytest.mark.parametrize("name", ["two\nlines", "back\\slash"])
def test_a_file_that_no_index_can_name_is_not_kept(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(Exception, match="cannot be recorded"):
        write_index(folder)
