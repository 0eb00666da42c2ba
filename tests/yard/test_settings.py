"""Settings and where they come from."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard.settings import SettingsError, mongo_password_file, read_settings
from modelyard_tracking.recording.redaction import masked


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "projects" / "deep").mkdir(parents=True)
    (tmp_path / "projects" / "deep" / "project.toml").touch()
    return tmp_path


def test_flag_beats_environment_beats_file_beats_default(root: Path) -> None:
    (root / "yard.toml").write_text("gateway_port = 1001\nconsole_port = 1002\nmongo_port = 1003\n")
    env = {"YARD_GATEWAY_PORT": "2001", "YARD_CONSOLE_PORT": "2002"}
    settings = read_settings(env, root, {"gateway_port": "3001"})
    assert (settings.gateway_port, settings.console_port, settings.mongo_port) == (3001, 2002, 1003)
    assert settings.mlflow_port == 7403
    assert [settings.sources[n] for n in ("gateway_port", "console_port", "mongo_port", "mlflow_port")] == [
        "--gateway-port", "YARD_CONSOLE_PORT", "yard.toml", "default",
    ]  # fmt: skip


def test_the_root_is_the_nearest_folder_above_with_projects(root: Path) -> None:
    assert read_settings({}, root / "projects" / "deep").root == root
    assert read_settings({}, root / "projects" / "deep").home == root / ".yard"


def test_a_mongodb_of_ones_own_switches_the_embedded_one_off(root: Path) -> None:
    assert read_settings({}, root).embedded_mongo
    assert not read_settings({"YARD_MONGO_URL": "mongodb://db"}, root).embedded_mongo


def test_the_embedded_mongodbs_password_is_found_as_soon_as_there_is_one(root: Path) -> None:
    settings = read_settings({}, root)
    assert settings.mongo_url.startswith("mongodb://127.0.0.1:7402/")
    file = mongo_password_file(settings.home)
    assert not file.parent.exists()  # reading settings makes nothing
    file.parent.mkdir(parents=True)
    file.write_text("s3cret")
    assert settings.mongo_url.startswith("mongodb://yard:s3cret@127.0.0.1:7402/?authSource=admin&")
    assert "s3cret" not in repr(settings)


def test_settings_travel_by_environment(root: Path, tmp_path: Path) -> None:
    for env in ({}, {"YARD_MONGO_URL": "mongodb://db", "YARD_DATABASE": "other", "YARD_GATEWAY_PORT": "81"}):
        settings = read_settings(env, root)
        elsewhere = read_settings(settings.environment, tmp_path / "elsewhere")
        assert replace(elsewhere, root=settings.root, sources={}) == replace(settings, sources={})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("mongodb://me:pa:ss@w@host:1,b:2/db?x=y@z", "mongodb://me:...@z"),
        ("mongodb://me:p@host/db", "mongodb://me:...@host/db"),
        ("mongodb://host:27017/db", "mongodb://host:27017/db"),
        ("/a/folder", "/a/folder"),
    ],
)
def test_a_password_is_masked_rather_too_widely_than_not(value: str, shown: str) -> None:
    assert masked(value) == shown


@pytest.mark.parametrize("value", ["x", "0", "65536", "", "7400.5"])
def test_a_port_that_is_none_is_refused_with_its_source(root: Path, value: str) -> None:
    with pytest.raises(SettingsError, match=r"gateway_port must be a port .* YARD_GATEWAY_PORT gives"):
        read_settings({"YARD_GATEWAY_PORT": value}, root)


def test_a_misspelt_name_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"YARD_GATEWAY_PROT.*gateway_port"):
        read_settings({"YARD_GATEWAY_PROT": "1"}, root)
    (root / "yard.toml").write_text("gatewayport = 1\n")
    with pytest.raises(SettingsError, match="gatewayport"):
        read_settings({}, root)


def test_what_the_runtime_is_told_inside_an_image_is_no_setting(root: Path) -> None:
    assert read_settings({"YARD_AUDIT_DIR": "/a", "YARD_BENTO_SHA256": "b"}, root)


def test_a_shared_store_gets_its_login_from_the_environment_and_shows_it_nowhere(root: Path) -> None:
    (root / "yard.toml").write_text('artifacts_url = "s3://models/team"\n')
    login = {"AWS_ACCESS_KEY_ID": "k3y", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_ENDPOINT_URL": "http://ceph:7480"}
    settings = read_settings(login, root)
    assert settings.shared is not None
    assert (settings.shared.url, settings.shared.endpoint) == ("s3://models/team", "http://ceph:7480")
    assert (settings.shared.key, settings.shared.secret) == ("k3y", "s3cret")
    assert settings.sources["artifacts_endpoint"] == "AWS_ENDPOINT_URL"
    assert settings.tracking_home.shared == settings.shared
    for secret in ("k3y", "s3cret"):
        assert secret not in repr(settings) + repr(settings.tracking_home) + str(settings.environment)


def test_without_a_url_there_is_no_shared_store(root: Path) -> None:
    assert read_settings({"AWS_ACCESS_KEY_ID": "k3y"}, root).shared is None


def test_an_address_that_is_no_store_is_a_wrong_setting(root: Path) -> None:
    with pytest.raises(SettingsError, match="is no shared store"):
        read_settings({"YARD_ARTIFACTS_URL": "ftp://host/x"}, root)


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.crt").touch()
    with pytest.raises(SettingsError, match="belong together"):
        read_settings({"YARD_TLS_CERTIFICATE": str(tmp_path / "a.crt")}, tmp_path)


def test_a_certificate_that_is_not_there_is_refused(tmp_path: Path) -> None:
    env = {"YARD_TLS_CERTIFICATE": str(tmp_path / "a.crt"), "YARD_TLS_KEY": str(tmp_path / "a.key")}
    with pytest.raises(SettingsError, match="must be a file that you may read"):
        read_settings(env, tmp_path)


def test_somebody_without_a_name_in_a_container_is_called_by_a_number(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr("getpass.getuser", unknown)
    assert read_settings({}, root).user == f"uid-{os.getuid()}"
    assert read_settings({"YARD_USER": "ada"}, root).user == "ada"


STAGES = '[stages.production]\nnamespace = "models"\ngateway_address = "https://models.example/"\n'


def test_a_stage_has_a_table_that_counts_for_it_before_the_environment_does(root: Path) -> None:
    (root / "yard.toml").write_text(STAGES)
    env = {"YARD_NAMESPACE": "elsewhere"}
    assert read_settings(env, root).namespace == "elsewhere"
    settings = read_settings(env, root, {"stage": "production"})
    assert (settings.namespace, settings.gateway_url) == ("models", "https://models.example")
    assert settings.sources["namespace"] == "[stages.production]"
    assert read_settings(env | {"YARD_STAGE": "production"}, root).namespace == "models"


def test_a_stage_without_a_table_is_refused_with_those_there_are(root: Path) -> None:
    (root / "yard.toml").write_text(STAGES)
    with pytest.raises(SettingsError, match=r"no stage 'prod'; there is local, production(.|\n)*\[stages.prod\]"):
        read_settings({}, root, {"stage": "prod"})


@pytest.mark.parametrize("line", ["namspace = 'a'", "stage = 'local'"])
def test_what_a_stage_cannot_have_is_refused(root: Path, line: str) -> None:
    (root / "yard.toml").write_text(f"[stages.production]\n{line}\n")
    with pytest.raises(SettingsError, match=rf"\[stages.production\] has unknown settings: {line.split()[0]}"):
        read_settings({}, root, {"stage": "production"})


def test_a_stage_of_pods_has_secrets_of_its_own_and_says_where_its_mongodb_is_named(root: Path) -> None:
    (root / "yard.toml").write_text(STAGES)
    local, production = read_settings({}, root), read_settings({}, root, {"stage": "production"})
    assert local.secrets != production.secrets
    assert not production.embedded_mongo
    with pytest.raises(SettingsError, match=r"export YARD_MONGO_URL=.*kubectl -n models get secret mongodb"):
        _ = production.mongo_url
