"""Signatures of models, on real keys; the library's own command verifies them, too."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from modelyard_build.errors import Refused
from modelyard_build.supply.signing import KeyPair, key_pair, sign, verify


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "golden").mkdir(parents=True)
    (folder / "model.skops").write_bytes(b"weights")
    (folder / "golden" / "rows.json").write_text("[1]")
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return key_pair(tmp_path / "keys")


@pytest.fixture
def signature(model: Path, keys: KeyPair, tmp_path: Path) -> Path:
    file = tmp_path / "model.sig"
    sign(model, keys.private, file)
    return file


def test_what_was_signed_is_verified_and_moved_elsewhere_too(model: Path, keys: KeyPair, signature: Path) -> None:
    verify(model, keys.public, signature)
    verify(model.rename(model.with_name("elsewhere")), keys.public, signature)


def test_the_librarys_own_command_verifies_it(model: Path, keys: KeyPair, signature: Path) -> None:
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(model)]
    command += ["--signature", str(signature), "--public_key", str(keys.public)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (model / "model.skops").write_bytes(b"other weights")
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0


def test_any_change_is_refused_and_the_file_is_named(model: Path, keys: KeyPair, signature: Path) -> None:
    for name in ("extra", ".gitignore"):
        (model / name).write_text("x")
        with pytest.raises(Refused, match=f"added: {name}"):
            verify(model, keys.public, signature)
        (model / name).unlink()
    (model / "golden" / "rows.json").write_text("[2]")
    with pytest.raises(Refused, match=r"changed: golden/rows\.json"):
        verify(model, keys.public, signature)
    (model / "golden" / "rows.json").unlink()
    with pytest.raises(Refused, match=r"missing: golden/rows\.json"):
        verify(model, keys.public, signature)


def test_a_signature_by_another_key_is_refused(model: Path, signature: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="made with another key, or was changed"):
        verify(model, key_pair(tmp_path / "other").public, signature)


def test_a_signature_that_was_changed_is_refused(model: Path, keys: KeyPair, signature: Path) -> None:
    good = signature.read_bytes()
    payload = good.index(b'"payload"') + 30
    bad = [b"", b"{", b"[]", b"{}", b"\xff", good[:200], good[:payload] + b"AAAA" + good[payload + 4 :]]
    for content in bad:
        signature.write_bytes(content)
        with pytest.raises(Refused, match="is not what"):
            verify(model, keys.public, signature)
    signature.unlink()
    with pytest.raises(Refused, match="is missing"):
        verify(model, keys.public, signature)


def test_only_the_owner_reads_the_key_and_it_is_made_once(tmp_path: Path) -> None:
    first = key_pair(tmp_path / "keys")
    content = first.private.read_bytes()
    assert first.private.stat().st_mode & 0o777 == 0o600
    assert key_pair(tmp_path / "keys").private.read_bytes() == content


def test_many_who_make_the_first_key_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        pairs = list(pool.map(lambda _: key_pair(tmp_path / "keys"), range(16)))
    assert len({pair.public.read_bytes() for pair in pairs}) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["model-signing.key", "model-signing.pub"]


def test_who_finds_no_key_while_another_makes_it_gets_that_one(tmp_path: Path, monkeypatch) -> None:
    others: list[KeyPair] = []
    exists = Path.exists

    def late(path: Path) -> bool:
        found = exists(path)
        if path.name == "model-signing.key" and not others:
            others.append(KeyPair(path, path.with_suffix(".pub")))
            key_pair(path.parent)
        return found

    monkeypatch.setattr(Path, "exists", late)
    assert [key_pair(tmp_path)] == others


def test_a_lost_private_key_is_not_silently_replaced(keys: KeyPair) -> None:
    keys.private.unlink()
    with pytest.raises(Refused, match="would not fit the signatures made so far"):
        key_pair(keys.private.parent)


def test_a_key_that_others_may_read_signs_nothing(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    keys.private.chmod(0o640)
    with pytest.raises(Refused, match="chmod 600"):
        sign(model, keys.private, tmp_path / "model.sig")
    assert not (tmp_path / "model.sig").exists()


def test_a_file_that_is_no_such_key_is_refused(model: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content, why in ((b"nonsense", "no PEM file"), (other, "elliptic-curve")):
        keys.private.write_bytes(content)
        with pytest.raises(Refused, match=why):
            sign(model, keys.private, tmp_path / "model.sig")


def test_a_signature_lies_outside_of_what_it_signs_and_a_link_is_not_followed(
    model: Path, keys: KeyPair, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="put it elsewhere"):
        sign(model, keys.private, model / "model.sig")
    (model / "link").symlink_to("/etc/hostname")
    with pytest.raises(Refused, match="symlink"):
        sign(model, keys.private, tmp_path / "model.sig")
    assert list(tmp_path.glob("model.sig*")) == []
