"""Settings: flag, then environment (`YARD_*`), then `yard.toml`, then default. Read once, passed down."""

import getpass
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from modelyard_tracking.store import Home
    from modelyard_tracking.storing.objects import Address


class SettingsError(Exception):
    """A setting is wrong; the text says which, where it came from, and what it may be."""


DATABASE = "modelyard"
LOCAL = "local"  # the stage of processes on this machine
# Name, default, what it is. A default of None is worked out from the others.
KNOWN: tuple[tuple[str, str | int | bool | None, str], ...] = (
    ("home", None, "folder of everything local; deleting it resets this machine"),
    ("projects", None, "folder of the projects"),
    ("stage", "local", "where versions run: local, or the name of a table [stages.NAME] in yard.toml"),
    (
        "context",
        None,
        "of the kubeconfig: the Kubernetes of the stage; the current one, or that of the pod, by default",
    ),
    ("namespace", "modelyard", "of the stage in its Kubernetes"),
    ("pull_secret", "", "a Secret of the stage's namespace: the login of the registry that pods pull from"),
    ("gateway_address", None, "where callers reach the stage's endpoints; this machine by default"),
    ("gateway_port", 7400, "where callers reach the endpoints"),
    ("console_port", 7401, "the control plane's own port, loopback only"),
    ("mongo_port", 7402, "the embedded mongod's port, loopback only"),
    ("mlflow_port", 7403, "MLflow's pages: yard up --mlflow"),
    ("omniboard_port", 7404, "Omniboard's pages: yard up --omniboard"),
    ("jupyter_port", 7405, "JupyterLab: yard up --jupyter"),
    ("mongo_url", None, "MongoDB; set it to use your own instead of the embedded one"),
    ("omniboard_mongo_url", None, "your own MongoDB again, with a user who may only read: what Omniboard gets"),
    ("database", DATABASE, "database name"),
    ("registry_uri", None, "MLflow's registry: sqlite:///... or http://..."),
    ("artifacts", None, "folder of model files, data and locks"),
    (
        "artifacts_url",
        "",
        "a store that machines share: s3://bucket/prefix, file:///mnt/share; none by default",
    ),
    ("artifacts_endpoint", None, "of an S3 that is not Amazon's; AWS_ENDPOINT_URL by default"),
    ("spool", None, "folder on this machine where runs are written first"),
    ("base_image", "python:{python}-slim", "what images are built upon; pin it: name@sha256:..."),
    ("images", "", "where images are pushed, such as registry.example/team; none by default"),
    ("signing_keys", None, "folder of the key pair that signs models; made on first use"),
    ("tls_certificate", None, "the gateway's certificate, a file in PEM with its chain; plain HTTP without one"),
    ("tls_key", None, "the certificate's private key, a file in PEM"),
    ("wheelhouse", None, "a folder of wheels to install from instead of a package index"),
    ("user", None, "who asks and approves"),
    ("team", False, "nobody approves what they asked for themselves: true or false"),
)
MONGO_USER = "yard"  # of the embedded mongod


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, and where each came from."""

    root: Path
    home: Path
    projects: Path
    stage: str
    context: str | None
    namespace: str
    pull_secret: str
    gateway_address: str | None
    gateway_port: int
    console_port: int
    mongo_port: int
    mlflow_port: int
    omniboard_port: int
    jupyter_port: int
    own_mongo_url: str | None = field(repr=False)
    omniboard_mongo_url: str | None = field(repr=False)
    database: str
    registry_uri: str
    artifacts: Path
    artifacts_url: str
    artifacts_endpoint: str
    spool: Path
    base_image: str
    images: str
    signing_keys: Path
    tls_certificate: Path | None
    tls_key: Path | None
    wheelhouse: Path | None
    user: str
    team: bool
    shared: "Address | None" = field(repr=False)  # of artifacts_url, with the login that AWS_* give
    images_login: Mapping[str, str] | None = field(repr=False)  # YARD_IMAGES_USER and YARD_IMAGES_PASSWORD
    sources: Mapping[str, str] = field(repr=False)

    @property
    def local(self) -> bool:
        """Do versions run as processes of this machine?"""
        return self.stage == LOCAL

    @property
    def secrets(self) -> Path:
        """What the stage's parts know each other by, and the keys that sign callers' keys."""
        return self.home / "secrets" if self.local else self.home / "stages" / self.stage

    @property
    def gateway_secret_file(self) -> Path:
        return self.secrets / "gateway"

    @property
    def embedded_mongo(self) -> bool:
        return self.local and self.own_mongo_url is None

    @property
    def mongo_url(self) -> str:
        """With the password; the embedded one's is read anew each time, since the first `yard up` makes it.

        Raises:
            SettingsError: the file with the password belongs to somebody else, or a stage of pods has no address.
        """
        if not self.local and not self.own_mongo_url:
            raise SettingsError(
                f"The stage {self.stage} has no MongoDB: name the one that its console uses, by an address that works "
                f"from here.\nexport YARD_MONGO_URL=$(kubectl -n {self.namespace} get secret mongodb -o "
                "jsonpath='{.data.engineer-url}' | base64 -d)"
            )
        return self.own_mongo_url or embedded_mongo_url(self.home, self.mongo_port)

    @property
    def mongo_user(self) -> str | None:
        """Who commands log in to MongoDB as, where the address names somebody."""
        name = urlsplit(self.mongo_url).username
        return unquote(name) if name else None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a program that is started anywhere finds these settings."""
        values = {name: getattr(self, name) for name, _, _ in KNOWN}
        values["mongo_url"] = self.own_mongo_url  # the embedded one's is found through home
        return {f"YARD_{name.upper()}": str(value) for name, value in values.items() if value is not None}

    @property
    def gateway_url(self) -> str:
        if self.gateway_address:
            return self.gateway_address.rstrip("/")
        return f"{'https' if self.tls_certificate else 'http'}://127.0.0.1:{self.gateway_port}"

    @property
    def console_url(self) -> str:
        return f"http://127.0.0.1:{self.console_port}"

    @property
    def tracking_home(self) -> "Home":
        from modelyard_tracking.store import Home

        return Home(self.mongo_url, self.database, self.artifacts, self.spool, self.shared)


def read_settings(
    env: Mapping[str, str] | None = None, start: Path | None = None, flags: Mapping[str, str] | None = None
) -> Settings:
    """Read every setting.

    Args:
        env: the environment; the process's own by default.
        start: the root is the nearest folder above it with a yard.toml, or with projects in projects/.
        flags: what the command line said.

    Raises:
        SettingsError: an unknown name in yard.toml or the environment, or a value that does not fit.
    """
    env = os.environ if env is None else env
    root = _root(start or Path.cwd())
    file = _yard_toml(root)
    stage, of_stage = _stage(file, env, flags or {})
    known = {name for name, _, _ in KNOWN}
    unknown = [f"YARD_{name}" for name in _yard_names(env) if name.lower() not in known] + sorted(
        file.keys() - known - {"stages"}
    )
    if unknown:
        raise SettingsError(f"Unknown settings: {', '.join(unknown)}. There are: {', '.join(sorted(known))}.")
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, default, _ in KNOWN:
        key = f"YARD_{name.upper()}"
        for source, value in (
            (f"--{name.replace('_', '-')}", (flags or {}).get(name)),
            (f"[stages.{stage}]", of_stage.get(name)),
            (key, env.get(key)),
            ("yard.toml", file.get(name)),
            ("default", default),
        ):
            if value is not None:
                values[name], sources[name] = value, source
                break
        if isinstance(default, bool):
            values[name] = _flag(name, values[name], sources[name])
        elif isinstance(default, int):
            values[name] = _port(name, values[name], sources[name])
    tls_certificate, tls_key = _certificate(values)
    home = Path(values.get("home") or root / ".yard").expanduser().resolve()
    if "artifacts_endpoint" not in values:
        for key in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            if env.get(key):
                values["artifacts_endpoint"], sources["artifacts_endpoint"] = env[key], key
                break
    return Settings(
        root=root,
        home=home,
        projects=Path(values.get("projects") or root / "projects").expanduser().resolve(),
        stage=stage,
        context=values.get("context"),
        namespace=values["namespace"],
        pull_secret=values["pull_secret"],
        gateway_address=values.get("gateway_address"),
        gateway_port=values["gateway_port"],
        console_port=values["console_port"],
        mongo_port=values["mongo_port"],
        mlflow_port=values["mlflow_port"],
        omniboard_port=values["omniboard_port"],
        jupyter_port=values["jupyter_port"],
        own_mongo_url=values.get("mongo_url"),
        omniboard_mongo_url=values.get("omniboard_mongo_url"),
        database=values["database"],
        registry_uri=values.get("registry_uri") or f"sqlite:///{home / 'mlflow.db'}",
        artifacts=Path(values.get("artifacts") or home / "artifacts").expanduser().resolve(),
        artifacts_url=values["artifacts_url"],
        artifacts_endpoint=values.get("artifacts_endpoint") or "",
        spool=Path(values.get("spool") or home / "spool").expanduser().resolve(),
        base_image=values["base_image"],
        images=_registry(values["images"], sources["images"]),
        signing_keys=Path(values.get("signing_keys") or home / "keys").expanduser().resolve(),
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        wheelhouse=Path(values["wheelhouse"]).expanduser().resolve() if values.get("wheelhouse") else None,
        user=values.get("user") or system_user(),
        team=values["team"],
        shared=_shared(values["artifacts_url"], values.get("artifacts_endpoint") or "", env),
        images_login=_login(env),
        sources={name: sources.get(name, "default") for name, _, _ in KNOWN},
    )


def mongo_password_file(home: Path) -> Path:
    return home / "secrets" / "mongod"


def embedded_mongo_url(home: Path, port: int) -> str:
    """The embedded mongod's URL; without a password as long as there is none, which is before the first `yard up`."""
    file = mongo_password_file(home)
    try:
        login = f"{MONGO_USER}:{file.read_text().strip()}@"
    except (FileNotFoundError, NotADirectoryError):
        login = ""
    except PermissionError as error:
        raise SettingsError(
            f"You may not read {file}, the password of the MongoDB that somebody else started.\n"
            "Use a folder of your own:  export YARD_HOME=...      or a MongoDB for all of you: YARD_MONGO_URL"
        ) from error
    return f"mongodb://{login}127.0.0.1:{port}/?authSource=admin&directConnection=true&w=majority&journal=true"


def _shared(url: str, endpoint: str, env: Mapping[str, str]) -> "Address | None":
    from modelyard_tracking.errors import Refused
    from modelyard_tracking.storing.objects import Address

    if not url:
        return None
    given = {
        "region": env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION"),
        "key": env.get("AWS_ACCESS_KEY_ID"),
        "secret": env.get("AWS_SECRET_ACCESS_KEY"),
        "token": env.get("AWS_SESSION_TOKEN"),
    }
    try:
        return Address(url, endpoint, **{name: value for name, value in given.items() if value})
    except Refused as error:
        raise SettingsError(str(error)) from error


def system_user() -> str:
    """Who the operating system says is here. In a container it may have no name for them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _certificate(values: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    names = ("tls_certificate", "tls_key")
    given = {name: Path(values[name]).expanduser().resolve() for name in names if values.get(name)}
    if given and len(given) < len(names):
        raise SettingsError("tls_certificate and tls_key belong together; set both or none of them.")
    for name, file in given.items():
        if not os.access(file, os.R_OK):
            raise SettingsError(f"{name} must be a file that you may read; {file} is none.")
    return given.get("tls_certificate"), given.get("tls_key")


def _registry(address: str, source: str) -> str:
    """A registry's address is no URL: docker says which protocol it takes, and to whom."""
    if "://" in address or "@" in address or address != address.lower():
        raise SettingsError(f"images must be like registry.example/team, in small letters; {source} gives {address!r}.")
    return address.rstrip("/")


_LOGIN = {"IMAGES_USER": "username", "IMAGES_PASSWORD": "password"}  # of the registry; from the environment alone


def _login(env: Mapping[str, str]) -> Mapping[str, str] | None:
    given = {name: env.get(f"YARD_{key}") for key, name in _LOGIN.items()}
    login = {name: value for name, value in given.items() if value}
    if login and len(login) < len(_LOGIN):
        raise SettingsError("YARD_IMAGES_USER and YARD_IMAGES_PASSWORD belong together; set both or none of them.")
    return login or None


_INSIDE_IMAGES = {
    "AUDIT_DIR",
    "CONSOLE_URL",
    "GATEWAY_SECRET_FILE",
    "BENTO_SHA256",
    "IMAGE",
    "DRAIN_S",
    "LAST_EFFORT_S",
    "START_CHECK",
    "WORKERS",
}  # the runtime's own, see runtime/app.py


def _yard_names(env: Mapping[str, str]) -> list[str]:
    names = (key.removeprefix("YARD_") for key in env if key.startswith("YARD_"))
    return sorted(name for name in names if name not in _INSIDE_IMAGES | _LOGIN.keys())


def _root(start: Path) -> Path:
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / "yard.toml").is_file() or any((folder / "projects").glob("*/project.toml")):
            return folder
    return start.resolve()


def _yard_toml(root: Path) -> dict[str, Any]:
    path = root / "yard.toml"
    try:
        return tomllib.loads(path.read_text()) if path.is_file() else {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not valid TOML: {error}") from error


def _stage(file: Mapping[str, Any], env: Mapping[str, str], flags: Mapping[str, str]) -> tuple[str, Mapping[str, Any]]:
    """The stage's name, and what its table says; that counts for it before the environment does."""
    stage = str(flags.get("stage") or env.get("YARD_STAGE") or file.get("stage") or LOCAL)
    tables = file.get("stages", {})
    if stage == LOCAL:
        return stage, {}
    if stage not in tables:
        there = ", ".join([LOCAL, *sorted(tables)])
        raise SettingsError(
            f"There is no stage {stage!r}; there is {there}.\n"
            f"Make it, in yard.toml:  [stages.{stage}]      with context, namespace and gateway_address"
        )
    table = tables[stage]
    if unknown := sorted(table.keys() - ({name for name, _, _ in KNOWN} - {"stage"})):
        raise SettingsError(f"[stages.{stage}] has unknown settings: {', '.join(unknown)}.")
    return stage, table


def _flag(name: str, value: Any, source: str) -> bool:
    flags = {"true": True, "1": True, "false": False, "0": False}
    if str(value).lower() not in flags:
        raise SettingsError(f"{name} must be true or false; {source} gives {value!r}.")
    return flags[str(value).lower()]


def _port(name: str, value: Any, source: str) -> int:
    try:
        port = int(value)
    except (TypeError, ValueError):
        port = 0
    if not 1 <= port <= 65535:
        raise SettingsError(f"{name} must be a port between 1 and 65535; {source} gives {value!r}.")
    return port
