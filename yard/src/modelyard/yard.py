"""The yard: every step of the road as one method. The commands, the demo and notebooks all call these.

What builds and deploys is imported by the methods that do: listing runs does not wait for it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from modelyard.settings import Settings
from modelyard_build.errors import Refused as BuildRefused
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import NotFound, Refused, Unavailable
from modelyard_serving.keys import Key, Keys
from modelyard_tracking.approval import Approval, Approvals
from modelyard_tracking.compare import Comparison, compare
from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import Unavailable as TrackingUnavailable
from modelyard_tracking.evidence import gather
from modelyard_tracking.layout import check_layout
from modelyard_tracking.project import Project, load_project, project_names
from modelyard_tracking.recording.spool import RunFolder
from modelyard_tracking.recording.upload import mark_died
from modelyard_tracking.recording.uploader import upload_all
from modelyard_tracking.registry import ModelVersion, Registry
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.selection import Condition, Selection

if TYPE_CHECKING:
    from modelyard.stack import Stack
    from modelyard_build.build import Build, Builder
    from modelyard_serving.local_stage import LocalStage
    from modelyard_tracking.moving.bundle import Exported
    from modelyard_tracking.moving.unbundle import Imported
    from modelyard_tracking.reproducing.reproduce import Reproduction
    from modelyard_tracking.sweeping.sweeps import SweepStore

Say = Callable[[str], object]


@dataclass
class Yard:
    """One `.yard` folder and everything that is reached through it."""

    settings: Settings

    @cached_property
    def db(self) -> "Database[dict[str, Any]]":
        return self.settings.tracking_home.connect()

    def close(self) -> None:
        """Let go of the database."""
        if "db" in self.__dict__:
            self.db.client.close()

    @cached_property
    def registry(self) -> Registry:
        return Registry(self.settings.registry_uri)

    @property
    def stack(self) -> "Stack":
        from modelyard.stack import Stack

        return Stack(self.settings)

    @property
    def run_store(self) -> RunStore:
        return RunStore(self.db)

    @property
    def sweeps(self) -> "SweepStore":
        from modelyard_tracking.sweeping.sweeps import SweepStore

        return SweepStore(self.db)

    @property
    def approvals(self) -> Approvals:
        return Approvals(self.db, self.registry, self.settings.tracking_home.files)

    @property
    def builder(self) -> "Builder":
        from modelyard_build.build import Builder

        return Builder(self.db, self.approvals, self.settings.home)

    @property
    def endpoints(self) -> EndpointStore:
        return EndpointStore(self.db)

    @property
    def keys(self) -> Keys:
        return Keys(self.db, self.stack.signing_key)

    def project(self, name: str) -> Project:
        return load_project(self.settings.projects, name)

    # training

    def train(self, project: str, config: Mapping[str, Any] | None = None) -> Run:
        """One run of the project's train.py, as `python train.py with ...` would make it.

        Raises:
            Unavailable: it trained, but MongoDB does not answer; the run is kept in the spool.
        """
        from modelyard_tracking.experiment import load_experiment

        found = self.project(project)
        _ = found.lock  # said before any training is done
        finished = load_experiment(found.folder).run(config_updates=dict(config or {}))
        if not isinstance(finished._id, int):
            raise TrackingUnavailable(
                f"The run is {finished.status}, but not in MongoDB, which does not answer. It is kept as "
                f"{finished._id} in {self.settings.tracking_home.spool}.\nBring it up:  yard up && yard runs push"
            )
        return self.run_store.get(finished._id)

    def runs(
        self,
        project: str | None = None,
        limit: int = 20,
        *,
        where: Sequence[str] = (),
        sort: str | None = None,
        ascending: bool | None = None,
    ) -> list[Run]:
        """Runs, the newest first, or sorted by a result, metric or configuration entry.

        Args:
            where: conditions such as `val_auc>0.9`, all of which must hold; see `selection.Condition`.
            ascending: the smallest first; by default what is best first for the project's own metric, else the largest.
        """
        self.bury()
        if ascending is None:
            metric = self.project(project).metric if project and project in self._projects() else None
            ascending = metric is not None and metric.name == sort and metric.direction == "min"
        conditions = tuple(Condition.parse(text) for text in where)
        return self.run_store.select(Selection(project, conditions, sort, ascending, limit))

    def compare(self, *runs: int) -> Comparison:
        """Runs side by side; the first one is the base."""
        return compare(self.run_store, self.settings.tracking_home.files, self.settings.root, runs)

    def push(self, on_run: Callable[[RunFolder, int | None], object] = lambda *_: None) -> int:
        """Upload what a crash or a lost network left in the spool; gives how many runs could not be."""
        return upload_all(self.settings.tracking_home, on_run)

    def bury(self) -> None:
        """Mark runs DIED that have given no sign of life; nothing where only reading is allowed."""
        with suppress(OperationFailure):
            mark_died(self.db)

    def _projects(self) -> list[str]:
        return project_names(self.settings.projects)

    def reproduce(
        self, run_id: int, given: Mapping[str, Any] | None = None, tolerance: float = 1e-6, say: Say = lambda _: None
    ) -> "Reproduction":
        """Run a recorded run again, in a worktree and in the environment of its lock, and compare the two."""
        from modelyard_build.environment import make_training_environment
        from modelyard_tracking.reproducing.reproduce import reproduce

        environments = self.settings.home / "environments"
        return reproduce(
            self.settings.tracking_home,
            run_id,
            self.settings.projects,
            lambda lock: make_training_environment(lock, environments),
            given=given,
            tolerance=tolerance,
            say=say,
        )

    def export_runs(self, runs: Sequence[int], file: Path, say: Say = lambda _: None) -> "Exported":
        """Write runs, with everything they refer to, to one file."""
        from modelyard_tracking.moving.bundle import export_runs

        self.bury()
        return export_runs(self.settings.tracking_home, runs, file, say)

    def import_runs(self, file: Path, say: Say = lambda _: None) -> "Imported":
        """Bring the runs of such a file into this database, under new numbers."""
        from modelyard_tracking.moving.unbundle import import_runs

        return import_runs(self.settings.tracking_home, file, say)

    # approval

    def request(self, run_id: int, *, allow_dirty: bool = False) -> ModelVersion:
        """Register a run's model as a version that awaits approval."""
        run = self.run_store.get(run_id)
        evidence = gather(self.project(run.experiment), run, allow_dirty=allow_dirty)
        if not evidence.objections:
            model = self.approvals.files.model(evidence.facts["model_sha256"])
            check_folder(model, evidence.facts["model_sha256"])
            check_layout(model, evidence.facts["kind"])
        return self.approvals.request(evidence, self.settings.user)

    def approve(self, ref: str, reason: str, alias: str | None = None) -> Approval:
        return self.approvals.approve(ref, self.settings.user, reason, alias)

    # build and deploy

    def build(self, ref: str, say: Say = lambda _: None) -> "Build":
        version = self.registry.resolve(ref)
        return self.builder.build(version, self.project(version.model), say)

    def deploy(self, ref: str, variant: str | None = None) -> Deployment:
        """Start a built version as a variant of its endpoint; nobody's traffic moves but a replaced variant's.

        The first variant of an endpoint gets all of its traffic.
        """
        version = self.registry.resolve(ref)
        self.approvals.require(version)
        build = self.builder.find(version.ref)
        self._need_stack()
        name = f"{version.model}-{version.version}"
        deployment = Deployment(
            name,
            version.model,
            version.version,
            build.bento.tag,
            build.bento.sha256,
            str(build.bento.path),
            str(build.environment),
            self._port_of(name),
            version.model_sha256,
        )
        self.stage.start(deployment)
        self.endpoints.put_deployment(deployment)
        role = variant or ref.partition("@")[2] or "champion"
        try:
            endpoint = self.endpoints.endpoint(version.model).with_variant(role, name)
        except NotFound:
            endpoint = Endpoint.first(version.model, role, name)
        self.endpoints.put(endpoint)
        self.publish()
        return deployment

    def split(self, endpoint: str, shares: Mapping[str, float]) -> Endpoint:
        """Give the variants other shares, moving as few units as possible."""
        changed = self.endpoints.endpoint(endpoint).split(shares)
        self._need_stack()
        self.endpoints.put(changed)
        self.publish()
        return changed

    def retire(self, ref: str) -> Deployment:
        """Stop a version that no variant uses. Its image, approval and audit stay.

        Raises:
            Refused: a variant of its endpoint still is this version.
        """
        version = self.registry.resolve(ref)
        deployment = self.endpoints.deployment(f"{version.model}-{version.version}")
        used = [v for e in self.endpoints.endpoints() for v, name in e.variants.items() if name == deployment.name]
        if used:
            raise Refused(
                f"{version.ref} is the {' and the '.join(used)} of {version.model}, so it stays.\n"
                f"Put another in its place first:  yard deploy {version.model}:N --variant {used[0]}"
            )
        self._need_stack()
        self.endpoints.remove_deployment(deployment.name)
        self.publish()
        self.stack.processes.remove(deployment.name)
        return deployment

    @property
    def stage(self) -> "LocalStage":
        from modelyard_serving.local_stage import LocalStage

        stack = self.stack
        return LocalStage(self.settings.home, stack.processes, self.settings.console_url, stack.secret_file)

    def up(self, say: Say = lambda _: None) -> list[str]:
        """Start the stack and what was deployed before it was stopped; gives what could not be started, and why."""
        from modelyard_build.bento import Bento
        from modelyard_build.build import verify_bento

        self.stack.up(self._write_gateway, say)
        launched, faults = [], []
        for deployment in self.endpoints.deployments():
            try:
                verify_bento(Bento(deployment.bento_tag, Path(deployment.bento_path), deployment.bento_sha256))
                self.stage.launch(deployment)
                launched.append(deployment)
            except BuildRefused as error:
                faults.append(f"{deployment.name} is not started. {error}")
        for deployment in launched:
            say(deployment.name)
            try:
                self.stage.wait(deployment)
            except Unavailable as error:
                faults.append(str(error))
        return faults

    def publish(self) -> None:
        """Bring the desired state to the gateway, and wait until it is in force."""
        from modelyard_serving.gateway.publish import wait_until_applied

        self._write_gateway()
        wait_until_applied(self.stack.gateway_folder)

    def _write_gateway(self) -> None:
        from modelyard_serving.gateway.config import Gateway
        from modelyard_serving.gateway.publish import publish

        settings, stack = self.settings, self.stack
        gateway = Gateway(
            settings.gateway_port,
            settings.console_port,
            stack.secret(),
            self.keys.jwks(),
            self.keys.revoked(),
            self.endpoints.endpoints(),
            self.endpoints.deployments(),
        )
        publish(gateway, stack.gateway_folder)

    # keys

    def issue_key(self, caller: str, scopes: Sequence[str], days: int = 90) -> tuple[Key, str]:
        return self.keys.issue(caller, scopes, days)

    def revoke_key(self, key_id: str) -> Key:
        key = self.keys.revoke(key_id)
        if self.stack.processes.running():
            self.publish()
        return key

    def _port_of(self, name: str) -> int:
        try:
            return self.endpoints.deployment(name).port
        except NotFound:
            from modelyard_serving.local_stage import free_port

            return free_port()

    def _need_stack(self) -> None:
        if not self.stack.processes.running():
            raise Refused("The stack does not run, so nothing can be deployed or routed.\nStart it:  yard up")
