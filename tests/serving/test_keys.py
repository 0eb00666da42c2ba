"""API keys."""

from pathlib import Path

import jwt
import pytest

from modelyard_serving.errors import NotFound, Refused
from modelyard_serving.keys import Keys, SigningKeys


@pytest.fixture
def keys(db, tmp_path: Path) -> Keys:
    return Keys(db, SigningKeys(tmp_path / "secrets"))


def test_a_key_is_a_token_that_the_public_half_verifies(keys: Keys, tmp_path: Path) -> None:
    key, token = keys.issue("alice", ["predict:tumor"], days=7)
    public = jwt.PyJWK(SigningKeys(tmp_path / "secrets").jwks()["keys"][0])
    claims = jwt.decode(token, public, algorithms=["ES256"], issuer="modelyard")
    assert (claims["sub"], claims["jti"], claims["scopes"]) == ("alice", key.id, ["predict:tumor"])
    assert claims["exp"] - claims["iat"] == 7 * 86_400


def test_the_token_is_not_kept(keys: Keys, db) -> None:
    _, token = keys.issue("alice", ["predict:tumor"])
    assert token not in str(list(db.api_keys.find()))


def test_a_revoked_key_is_listed_for_the_gateway_and_stays_revoked(keys: Keys) -> None:
    key, _ = keys.issue("alice", ["*:*"])
    assert keys.revoked() == []
    first = keys.revoke(key.id)
    assert keys.revoked() == [key.id]
    assert keys.revoke(key.id).revoked_at == first.revoked_at


def test_an_unknown_key_cannot_be_revoked(keys: Keys) -> None:
    with pytest.raises(NotFound, match="no key 'nope'"):
        keys.revoke("nope")


@pytest.mark.parametrize("scopes", [[], ["tumor"], ["write:tumor"], ["predict:"], ["predict:Tumor X"], ["predict:a:b"]])
def test_a_scope_that_means_nothing_is_refused(keys: Keys, scopes: list[str]) -> None:
    with pytest.raises(Refused, match="scopes are like"):
        keys.issue("alice", scopes)


@pytest.mark.parametrize("caller", ["", "a b", "a\nb", "x" * 101, "-a"])
def test_a_callers_name_is_plain_since_it_becomes_a_header(keys: Keys, caller: str) -> None:
    with pytest.raises(Refused, match="name has letters"):
        keys.issue(caller, ["predict:tumor"])


def test_the_signing_key_is_readable_by_its_owner_alone(keys: Keys, tmp_path: Path) -> None:
    keys.issue("alice", ["*:*"])
    assert (tmp_path / "secrets" / "jwt.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("rate", [0, -1, 1_000_001])
def test_a_rate_that_means_nothing_is_refused(keys: Keys, rate: int) -> None:
    with pytest.raises(Refused, match="a rate is between"):
        keys.issue("alice", ["*:*"], rate=rate)


def test_only_keys_with_a_rate_are_limited(keys: Keys) -> None:
    keys.issue("alice", ["*:*"])
    limited, _ = keys.issue("bob", ["*:*"], rate=5)
    assert keys.rates() == {limited.id: 5}


def test_a_new_signing_key_signs_and_the_old_one_verifies_until_it_is_retired(keys: Keys, tmp_path: Path) -> None:
    signing = SigningKeys(tmp_path / "secrets")
    old, old_token = keys.issue("alice", ["*:*"])
    assert signing.rotate() == "yard-2"
    new, new_token = keys.issue("alice", ["*:*"])
    assert (old.signed_by, new.signed_by) == ("yard-1", "yard-2")
    public = {jwk["kid"]: jwt.PyJWK(jwk) for jwk in signing.jwks()["keys"]}
    for token in (old_token, new_token):
        kid = jwt.get_unverified_header(token)["kid"]
        assert jwt.decode(token, public[kid], algorithms=["ES256"], issuer="modelyard")["sub"] == "alice"
    with pytest.raises(Refused, match="two signing keys already, yard-1 and yard-2"):
        signing.rotate()
    assert signing.retire_old() == ("yard-1",)
    assert [jwk["kid"] for jwk in signing.jwks()["keys"]] == ["yard-2"]
    assert signing.retire_old() == ()
    assert signing.rotate() == "yard-3", "no id is used twice"
