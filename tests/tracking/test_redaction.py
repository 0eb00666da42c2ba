"""Secrets are taken out of a run before anything is stored."""

import pytest

from modelyard_tracking.recording.redaction import REDACTED, Redactor


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "PASSWORD", "passwd", "api_token", "token", "hf_token", "secret", "client_secret",
     "pwd", "api_key", "apikey", "private_key", "aws_secret_access_key", "credentials", "passphrase"],
)  # fmt: skip
def test_a_text_under_a_secrets_name_is_redacted(name: str) -> None:
    assert Redactor().config({name: "hunter22"}) == {name: REDACTED}


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 512), ("passes", 3), ("n_passes", 3), ("tokenizer", "bert"), ("tokenization", "bpe"),
     ("passengers", "x"), ("token", None), ("use_token", True), ("lr", 0.1), ("password", "")],
)  # fmt: skip
def test_what_is_no_secret_stays(name: str, value: object) -> None:
    assert Redactor().config({name: value}) == {name: value}


def test_a_number_is_a_secret_under_a_name_that_is_exactly_one() -> None:
    assert Redactor().config({"password": 123456, "db": {"pin": 1234}}) == {
        "password": REDACTED,
        "db": {"pin": REDACTED},
    }


def test_a_password_inside_an_address_is_taken_out_and_the_rest_stays() -> None:
    assert Redactor().config({"url": "mongodb://me:hunter2@h:1/x"}) == {"url": f"mongodb://me:{REDACTED}@h:1/x"}


def test_the_redactor_names_the_entries_by_their_dotted_path() -> None:
    redactor = Redactor()
    redactor.config({"db": {"password": "x", "host": "h"}, "urls": ["http://a:b@c"]})
    assert redactor.names == {"db.password", "urls.0"}


def test_a_secret_is_redacted_wherever_else_it_turns_up() -> None:
    redactor = Redactor()
    redactor.config({"password": "hunter22"})
    assert redactor.everywhere({"trace": ["login as me:hunter22 failed"]}) == {
        "trace": [f"login as me:{REDACTED} failed"]
    }


def test_command_line_updates_are_redacted() -> None:
    assert Redactor().updates(["with", "password=x", "lr=0.1"]) == ["with", f"password={REDACTED}", "lr=0.1"]
