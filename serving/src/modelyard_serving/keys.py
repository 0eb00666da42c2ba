"""API keys: signed JWTs. The gateway holds only the public key; a key is known by its id (`jti`).

A key carries scopes, `verb:object`, such as `predict:tumor` or `feedback:*`. Revoking one puts its id on
the list that the gateway reads. Signing keys are rotated: two may be live, and a key says which one signed it.
"""

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from pymongo.database import Database

from modelyard_serving.errors import NotFound, Refused

ISSUER = "modelyard"
_SCOPE = re.compile(r"(predict|feedback|read|\*):([a-z0-9][a-z0-9._-]*|\*)")


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept about a key; the token itself is shown once and not kept."""

    id: str
    caller: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None
    rate: int | None = None  # requests per second; None: as many as there is room for
    signed_by: str = "yard-1"  # id of the signing key


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The private keys that sign: `jwt.pem` in a folder, then `jwt-2.pem`, and so on. The newest signs, all verify.

    So a key can be replaced without a caller who is refused: `rotate`, issue new API keys, `retire_old`.
    """

    folder: Path

    @property
    def current(self) -> str:
        """The id of the one that signs; the first is made on first use."""
        return max(self._files(), key=_number)

    def sign(self, claims: dict[str, Any]) -> str:
        kid = self.current
        return jwt.encode(claims, _private_key(self._files()[kid]), algorithm="ES256", headers={"kid": kid})

    def jwks(self) -> dict[str, Any]:
        """The public halves, as a JSON Web Key Set."""
        found = []
        for kid, file in self._files().items():
            public = ECAlgorithm.to_jwk(_private_key(file).public_key(), as_dict=True)
            found.append({**public, "kid": kid, "alg": "ES256", "use": "sig"})
        return {"keys": found}

    def live(self) -> tuple[str, ...]:
        """The ids of all that verify, the one that signs last."""
        return tuple(self._files())

    def rotate(self) -> str:
        """Make a new key that signs from now on; gives its id.

        Raises:
            Refused: there are two already.
        """
        if len(self._files()) > 1:
            raise Refused(
                f"There are two signing keys already, {' and '.join(self.live())}.\n"
                "End the old one first; what it signed is refused then:  yard keys rotate --retire-old"
            )
        number = _number(self.current) + 1
        _private_key(self.folder / f"jwt-{number}.pem")
        return f"yard-{number}"

    def retire_old(self) -> tuple[str, ...]:
        """End all but the key that signs; gives their ids. What they signed is refused from then on."""
        *old, _ = self._files().items()
        for _, file in old:
            file.unlink()
        return tuple(kid for kid, _ in old)

    def _files(self) -> dict[str, Path]:
        found = {int(file.stem.partition("-")[2] or 1): file for file in self.folder.glob("jwt*.pem")}
        if not found:
            _private_key(first := self.folder / "jwt.pem")
            found = {1: first}
        return {f"yard-{number}": found[number] for number in sorted(found)}


class Keys:
    """Issues, lists and revokes keys."""

    def __init__(self, db: "Database[dict[str, Any]]", signing: SigningKeys) -> None:
        self._db = db
        self._signing = signing

    def issue(self, caller: str, scopes: Sequence[str], days: int = 90, rate: int | None = None) -> tuple[Key, str]:
        """A new key and its token.

        Raises:
            Refused: a scope is not of the form verb:object, or the caller's name is not plain.
        """
        wrong = [scope for scope in scopes if not _SCOPE.fullmatch(scope)]
        if wrong or not scopes:
            raise Refused(f"scopes are like predict:tumor, feedback:* or read:tumor; got {', '.join(wrong) or 'none'}.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9@._-]{0,99}", caller):
            raise Refused(f"a caller's name has letters, digits and @ . _ - only, got {caller!r}.")
        if not 1 <= days <= 3650:
            raise Refused(f"a key lives between 1 and 3650 days, not {days}.")
        if rate is not None and not 1 <= rate <= 1_000_000:
            raise Refused(f"a rate is between 1 and 1,000,000 requests per second, not {rate}.")
        now, kid = datetime.now(UTC).replace(microsecond=0), self._signing.current
        key = Key(
            secrets.token_hex(8), caller, tuple(scopes), now, now + timedelta(days=days), rate=rate, signed_by=kid
        )
        claims = {
            "iss": ISSUER,
            "sub": caller,
            "jti": key.id,
            "scopes": list(scopes),
            "iat": now,
            "exp": key.expires_at,
        }
        token = self._signing.sign(claims)
        self._db.api_keys.insert_one(
            {
                "_id": key.id,
                "caller": caller,
                "scopes": list(scopes),
                "created_at": now,
                "expires_at": key.expires_at,
                "revoked_at": None,
                "rate": rate,
                "signed_by": kid,
            }
        )
        return key, token

    def all(self) -> list[Key]:
        return [_key(document) for document in self._db.api_keys.find().sort("created_at", 1)]

    def revoke(self, key_id: str) -> Key:
        """Mark a key as revoked; the gateway refuses it once its configuration is rendered again."""
        found = self._db.api_keys.find_one_and_update(
            {"_id": key_id}, [{"$set": {"revoked_at": {"$ifNull": ["$revoked_at", "$$NOW"]}}}], return_document=True
        )
        if found is None:
            raise NotFound(f"There is no key {key_id!r}. See which there are:  yard keys list")
        return _key(found)

    def revoked(self) -> list[str]:
        return revoked(self._db)

    def rates(self) -> dict[str, int]:
        return rates(self._db)


def revoked(db: "Database[dict[str, Any]]") -> list[str]:
    """Ids of keys that were revoked and have not expired."""
    query = {"revoked_at": {"$ne": None}, "expires_at": {"$gt": datetime.now(UTC)}}
    return [document["_id"] for document in db.api_keys.find(query, {"_id": 1}).sort("_id", 1)]


def rates(db: "Database[dict[str, Any]]") -> dict[str, int]:
    """Requests per second, by the id of each key that has a limit and has not expired."""
    query = {"rate": {"$ne": None}, "expires_at": {"$gt": datetime.now(UTC)}}
    return {document["_id"]: document["rate"] for document in db.api_keys.find(query, {"rate": 1}).sort("_id", 1)}


def _number(kid: str) -> int:
    return int(kid.removeprefix("yard-"))


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The signing key in `path`, made on first use and readable by its owner alone."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_secret(path, pem)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused(f"{path} does not hold an elliptic-curve key. Move it away and a new one is made.")
    return key


def kept_secret(path: Path, n_bytes: int = 32) -> str:
    """The secret in `path`, in hexadecimal; made on first use."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(path, secrets.token_hex(n_bytes).encode())
    return path.read_text().strip()


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner reads; one that is already there is kept (two starters, one secret)."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _key(document: dict[str, Any]) -> Key:
    return Key(
        document["_id"],
        document["caller"],
        tuple(document["scopes"]),
        document["created_at"],
        document["expires_at"],
        document["revoked_at"],
        document.get("rate"),
        document.get("signed_by", "yard-1"),
    )
