"""Signing: who has a model can tell whether it is the one that was built here, by a key and without a network.

Signatures are those of OpenSSF's model-signing, which others verify with its own command:
`model_signing verify key MODEL --signature FILE --public_key FILE`. Signing twice gives two signatures, as ECDSA does.
"""

import re
import stat
from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard_build.errors import Refused
from modelyard_serving.keys import write_secret

if TYPE_CHECKING:
    from model_signing import hashing

PRIVATE, PUBLIC = "model-signing.key", "model-signing.pub"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Files in PEM: the key that signs, which only its owner reads, and the one that everybody may have."""

    private: Path
    public: Path


def key_pair(folder: Path) -> KeyPair:
    """The key pair in `folder`, made on first use and never overwritten.

    Raises:
        Refused: the private key is missing beside its public one, is read by others, or is none that signs models.
    """
    pair = KeyPair(folder / PRIVATE, folder / PUBLIC)
    made = pair.public.exists()  # asked first: whoever else makes them now makes the private one first
    if not pair.private.exists():
        if made:
            raise Refused(
                f"{pair.public} has no {PRIVATE} beside it, and a new one would not fit the signatures made so far.\n"
                f"Bring the key back; or move the public key away, and keep it for what it signed."
            )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(pair.private, _pem(ec.generate_private_key(ec.SECP256R1())))
    public = _public(_private(pair.private))
    if not pair.public.exists():
        _write_public(pair.public, public)
    if pair.public.read_bytes() != public:
        raise Refused(f"{pair.public} is not the public half of {pair.private}: remove it, and it is made again.")
    return pair


def sign(model: Path, key: Path, signature: Path) -> None:
    """Sign every file of a model's folder, and write the signature, which must lie outside of it.

    Raises:
        Refused: the key, or the folder, is not fit for that.
    """
    from model_signing import signing  # takes most of a second, and few commands sign

    _private(key)
    if signature.resolve().is_relative_to(model.resolve()):
        raise Refused(f"{signature} lies in the model's folder, so it would have to sign itself: put it elsewhere.")
    if not model.is_dir():
        raise Refused(f"{model} is no folder, so there is no model to sign.")
    config = signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(_every_file())
    new = signature.with_name(f"{signature.name}.{uuid4().hex}")
    signature.parent.mkdir(parents=True, exist_ok=True)
    try:
        config.sign(model, new)
        new.replace(signature)
    except ValueError as error:
        raise Refused(f"{model} cannot be signed, since it must hold plain files only: {error}") from error
    finally:
        new.unlink(missing_ok=True)


def verify(model: Path, public_key: Path, signature: Path) -> None:
    """Stop unless the folder holds exactly what was signed with the key that belongs to this one.

    Raises:
        Refused: it does not; or a file is missing or is not what it should be.
    """
    from model_signing import verifying

    for file in (public_key, signature):
        if not file.is_file():
            raise Refused(f"{file} is missing, so nobody can tell whether {model} is the model that was built.")
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(_every_file()).verify(model, signature)
    except Exception as error:  # a file from elsewhere: the library raises whatever its parsers do
        remedy = "Do not use it. Build it again, or ask for the right key."
        raise Refused(f"{model} is not what {signature} signs: {_why(error)}.\n{remedy}") from error


def _every_file() -> "hashing.Config":
    """Without the library's exception for files of git: what may be added unsigned is an open door."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def _why(error: Exception) -> str:
    """The library's words, for people: which files differ, or that the signature itself is not good."""
    text = str(error)
    patterns = {
        "changed": r"Hash mismatch for \\?'([^'\\]*)",
        "missing": r"Missing files in model [^:]*: ([^\"'\]]*)",
        "added": r"Extra files found in model [^:]*: ([^\"'\]]*)",
    }
    found = [
        f"{what}: {', '.join(names)}" for what, pattern in patterns.items() if (names := re.findall(pattern, text))
    ]
    if found:
        return "; ".join(found)
    if isinstance(error, InvalidSignature) or "Key mismatch" in text:
        return "the signature was made with another key, or was changed"
    if isinstance(error, KeyError | TypeError | JSONDecodeError | UnicodeDecodeError):
        return f"that file is no signature ({type(error).__name__}: {text})"
    return text.partition("\n")[0].strip(" .")[:300]


def _private(file: Path) -> ec.EllipticCurvePrivateKey:
    if not file.is_file():
        raise Refused(f"{file} is missing, so nothing can be signed.")
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise Refused(f"{file} signs models, and others than its owner may read it:  chmod 600 {file}")
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise Refused(
            f"{file} is no PEM file with a key and no password. Move it away, and a new one is made."
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused(f"{file} does not hold an elliptic-curve key. Move it away, and a new one is made.")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def _write_public(file: Path, content: bytes) -> None:
    new = file.with_name(f"{file.name}.{uuid4().hex}")
    new.write_bytes(content)
    new.replace(file)
