"""The yard: every step of the road as one method. The commands, the demo and notebooks all call these.

What builds and deploys is imported by the methods that do: listing runs does not wait for it.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pymongo.database import Database
from pymongo.errors import OperationFailure

from modelyard.roles import may, refusal
from modelyard.settings import Settings
from modelyard_build.errors import Refused as BuildRefused
from modelyard_serving.endpoints import POD_PORT, Deployment, Endpoint, EndpointStore, Shadow
from modelyard_serving.errors import NotFound, Refused, Unavailable
from modelyard_serving.keys import Key, Keys, SigningKeys
from modelyard_tracking.approval import Approval, Approvals
from modelyard_tracking.card import read_observed
from modelyard_tracking.compare import Comparison, compare
from modelyard_tracking.digests import check_folder
from modelyard_tracking.errors import NotFound as TrackingNotFound
from modelyard_tracking.errors import Unavailable as TrackingUnavailable
from modelyard_tracking.evaluation import read_evaluations
from modelyard_tracking.evidence import Champion, Evidence, gather, read_champion
from modelyard_tracking.layout import check_layout
from modelyard_tracking.ledger import Head, Verification, head_of
from modelyard_tracking.project import Project, load_project, project_names
from modelyard_tracking.recording.spool import RunFolder
from modelyard_tracking.recording.upload import mark_died
from modelyard_tracking.recording.uploader import upload_all
from modelyard_tracking.registry import ModelVersion, Registry
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.selection import Condition, Selection
from modelyard_tracking.versus import Side, Versus, versus

if TYPE_CHECKING:
    import httpx

    from modelyard.install import Installed
    from modelyard.mongo_users import Change, User
    from modelyard.serving import GatewayControl, Serving
    from modelyard.stack import Stack
    from modelyard_build.build import Builder
    from modelyard_build.builds import Build
    from modelyard_build.checks.finding import Finding
    from modelyard_build.steps import Until
    from modelyard_serving.console.results import Results
    from modelyard_serving.kubernetes.cluster import Cluster
    from modelyard_serving.kubernetes.exports import Export
    from modelyard_serving.kubernetes.forms import Form, To
    from modelyard_serving.kubernetes.objects import Place
    from modelyard_serving.kubernetes.stage import KubernetesStage
    from modelyard_serving.local_stage import LocalStage
    from modelyard_tracking.moving.bundle import Exported
    from modelyard_tracking.moving.unbundle import Imported
    from modelyard_tracking.reproducing.reproduce import Reproduction
    from modelyard_tracking.store import Pending
    from modelyard_tracking.sweeping.sweeps import SweepStore

Say = Callable[[str], object]

CHAMPION = "champion"  # the alias of the version that a candidate is held against


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
        return Approvals(self.db, self.registry, self.settings.tracking_home.files, self.settings.team)

    @property
    def builder(self) -> "Builder":
        from modelyard_build.build import Builder

        settings = self.settings
        return Builder(
            self.db, self.approvals, settings.home, settings.user, settings.signing_keys, settings.wheelhouse
        )

    @property
    def endpoints(self) -> EndpointStore:
        return EndpointStore(self.db)

    @property
    def keys(self) -> Keys:
        return Keys(self.db, self.signing_keys)

    @property
    def signing_keys(self) -> SigningKeys:
        return SigningKeys(self.settings.secrets)

    def project(self, name: str) -> Project:
        return load_project(self.settings.projects, name)

    def check(self, project: str) -> "tuple[Finding, ...]":
        """Everything that can be known of a project before it is trained; nothing of it is run."""
        from modelyard_build.ahead.examine import examine

        return examine(self.settings.projects, project)

    def wheelhouse(self, project: str, folder: Path) -> int:
        """Fetch every wheel that builds of a project install, for machines without a package index; gives how many
        there are."""
        from modelyard_build.locks.locking import servable_parts
        from modelyard_build.locks.wheelhouse import fill
        from modelyard_tracking.origin import python_version

        found = self.project(project)
        parts = servable_parts(found.lock.read_text(), with_pickle=found.model.allow_pickle)
        with tempfile.TemporaryDirectory(prefix="yard-wheels-") as scratch:
            for number, part in enumerate(parts):
                file = Path(scratch) / f"{number}.lock"
                file.write_text(part)
                fill(file, folder, python_version())
        return len(list(folder.glob("*.whl")))

    # training

    def train(self, project: str, config: Mapping[str, Any] | None = None) -> Run:
        """One run of the project's train.py, as `python train.py with ...` would make it.

        Raises:
            Unavailable: it trained, but MongoDB does not answer; the run is kept in the spool.
        """
        from modelyard_tracking.experiment import load_experiment

        found = self.project(project)
        _ = found.lock  # said before any training is done
        self._need("insert", "runs")
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

    def share(self, on_thing: Callable[["Pending"], object] = lambda _: None) -> int:
        """Bring what waits for the shared store there; gives how many things it was.

        Raises:
            Unavailable: it does not answer; what is left waits on.
        """
        files = self.settings.tracking_home.files
        waiting = files.pending() if files.share else []
        for thing in waiting:
            on_thing(thing)
            files.bring(thing)
        return len(waiting)

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

        self._need("insert", "runs")
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
        self._need("insert", "approvals")
        evidence = self.evidence(run_id, allow_dirty=allow_dirty)
        if not evidence.objections:
            model = self.approvals.files.model(evidence.facts["model_sha256"])
            check_folder(model, evidence.facts["model_sha256"])
            check_layout(model, evidence.facts["kind"])
        return self.approvals.request(evidence, self.settings.user)

    def evidence(self, run_id: int, *, allow_dirty: bool = False) -> Evidence:
        """What an approver would see of a run, and what is to be said against it."""
        run = self.run_store.get(run_id)
        project = self.project(run.experiment)
        files = self.settings.tracking_home.files
        return gather(
            project,
            run,
            allow_dirty=allow_dirty,
            evaluations=read_evaluations(files, run.recorded),
            observed=read_observed(files, run.recorded),
            champion=self._champion(project),
        )

    def catalog(self, model: str | None = None) -> list[tuple[ModelVersion, Approval | None]]:
        """Every version, with what was asked and answered about it."""
        aliases = self.approvals.aliases.of()
        return [self._as_the_ledger_says(version, aliases) for version in self.registry.versions(model)]

    def version(self, ref: str) -> tuple[ModelVersion, Approval]:
        """A version and its verified approval, as the ledger says."""
        version, _ = self._as_the_ledger_says(self.resolve(ref), self.approvals.aliases.of())
        return version, self.approvals.verified(version)

    def _as_the_ledger_says(
        self, version: ModelVersion, aliases: Mapping[str, int]
    ) -> tuple[ModelVersion, Approval | None]:
        mine = (name.split("@") for name, number in aliases.items() if number == version.version)
        named = tuple(sorted(alias for model, alias in mine if model == version.model))
        try:
            approval = self.approvals.get(version.ref)
        except TrackingNotFound:
            return replace(version, aliases=named, state="never requested"), None
        return replace(version, aliases=named, state=approval.state), approval

    def versus(self, first: str, second: str) -> Versus:
        """Two versions side by side; the first one is the base."""
        return versus(self._side(first), self._side(second))

    def _side(self, ref: str) -> Side:
        approval = self.approvals.verified(self.resolve(ref))
        evaluations = read_evaluations(self.settings.tracking_home.files, approval.evidence)
        return Side(approval.ref, approval.evidence, evaluations)

    def _champion(self, project: Project) -> Champion | None:
        """The version with the alias; its files may be gone, since only its answers are looked at."""
        try:
            ref = self.resolve(f"{project.name}@{CHAMPION}").ref
        except TrackingNotFound:
            return None
        found = self.approvals.get(ref)
        files = self.settings.tracking_home.files
        return read_champion(files, ref, found.evidence, found.evidence_sha256, project.evaluations)

    def approve(self, ref: str, reason: str, alias: str | None = None) -> Approval:
        self._need("insert", "answers")
        return self.approvals.approve(ref, self.settings.user, reason, alias)

    def reject(self, ref: str, reason: str) -> Approval:
        self._need("insert", "answers")
        return self.approvals.reject(ref, self.settings.user, reason)

    def withdraw(self, ref: str, reason: str) -> Approval:
        self._need("insert", "answers")
        return self.approvals.withdraw(ref, self.settings.user, reason)

    def promote(self, ref: str, alias: str, reason: str = "", expected: str | None = None) -> ModelVersion:
        """Point an alias at an approved version.

        Args:
            expected: the version it points at now, so that nobody else's move is undone; by default what it is.
        """
        self._need("insert", "ledger")
        version = self.resolve(ref)
        current = self.resolve(expected).version if expected else self.approvals.aliases.current(version.model, alias)
        self.approvals.promote(version.ref, alias, self.settings.user, reason, current)
        return self.resolve(version.ref)

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `tumor:2` or `tumor@champion` names."""
        return self.approvals.aliases.resolve(ref)

    def verify_ledger(self) -> Verification:
        """Check the whole chain, and hold it against the heads that this machine, builds and bentos know."""
        found = self.approvals.ledger.verify(self._known_heads())
        if not found.faults and found.head is not None:
            self._note(found.head)
        return found

    def _known_heads(self) -> dict[str, Head]:
        from modelyard_serving.manifest import Manifest

        heads: dict[str, Head | None] = {}
        with suppress(OSError):
            heads["this machine"] = head_of(self._head_file.read_text())
        for build in self.db.builds.find({}, {"bento_tag": 1, "bento_path": 1, "ledger": 1}):
            heads[f"the build of {build['bento_tag']}"] = head_of(build.get("ledger", ""))
            with suppress(OSError, ValueError, TypeError, KeyError):
                manifest = Manifest.read(Path(build["bento_path"]) / "src")
                heads[f"the manifest of {build['bento_tag']}"] = head_of(manifest.ledger)
        return {place: head for place, head in heads.items() if head is not None}

    @property
    def _head_file(self) -> Path:
        return self.settings.home / "ledger.head"

    def _note(self, head: Head) -> None:
        """Remember, on this machine, how far the ledger was: whoever cuts it off later is found out."""
        with suppress(OSError):
            known = head_of(self._head_file.read_text()) if self._head_file.is_file() else None
            if known is None or known.number < head.number:
                self.settings.home.mkdir(parents=True, exist_ok=True)
                self._head_file.write_text(str(head))

    # build and deploy

    def build(self, ref: str, until: "Until | None" = None, say: Say = lambda _: None) -> "Build":
        """Make an approved version into a bento, an image, and an image in a registry, each checked as it will serve.

        What was made and checked before, of the same inputs, is not made again.

        Args:
            until: how far; by default as far as there is a docker engine and a registry: `ended` says what is missing.

        Raises:
            Refused: it is not approved, something was changed, or a check said no.
            Unavailable: `until` asks for more than can be had here.
        """
        from modelyard_build.errors import Unavailable as BuildUnavailable
        from modelyard_build.images.builder import ImageBuilder, ImageSettings
        from modelyard_build.images.engine import Engine
        from modelyard_build.steps import Steps, Until

        self._need("update", "builds")
        settings, builder, steps = self.settings, self.builder, Steps(say)
        version = self._put_forward(ref)
        project = self.project(version.model)
        build = builder.unchanged(version, project, steps)
        if build is None:
            build = builder.build(self.resolve(version.ref), project, steps)
        ended = ""
        try:
            if until != Until.BENTO:
                wanted = ImageSettings(settings.base_image, settings.images, settings.images_login)
                ledger = self.approvals.ledger
                images = ImageBuilder(builder.store, ledger, Engine.connect(), wanted, settings.user)
                made = build
                build = images.make(made, lambda: builder.subject(made, version, project), self._source(version), steps)
                if until != Until.IMAGE:
                    build = images.push(build, steps)
        except BuildUnavailable as error:
            if until is not None:
                raise
            ended = str(error)
        if head := head_of(build.image.ledger if build.image else build.ledger):
            self._note(head)
        return replace(build, seconds=steps.seconds, ended=ended)

    def smoke(self, ref: str) -> "tuple[Finding, ...]":
        """Ask a deployed version, as the gateway does, what its build asked it; callers' traffic does not change.

        Raises:
            NotFound: it is not deployed.
        """
        from modelyard_build.checks.running import SMOKE, run_checks
        from modelyard_build.served import Served

        self._need_stage()
        version, builder = self._put_forward(ref), self.builder
        deployment = self.endpoints.deployment(f"{version.model}-{version.version}")
        subject = builder.subject(builder.find(version.ref), version, self.project(version.model))
        with self._asking(deployment) as client:
            return run_checks(Served(client, 0.0, lambda: 0.0), subject, SMOKE, ())

    def _asking(self, deployment: Deployment) -> "httpx.Client":
        """A client of one replica, which takes us for the gateway."""
        import httpx

        headers = {"x-gateway-secret": self.gateway_secret(), "x-caller": "yard smoke"}
        if self.settings.local:
            return httpx.Client(base_url=f"http://127.0.0.1:{deployment.ports[0]}", headers=headers, timeout=30)
        ready = self.kubernetes_stage.up(deployment)
        if not ready:
            raise Unavailable(f"No pod of {deployment.name} is ready. See:  yard status --stage {self.settings.stage}")
        return self.cluster.asking(self.settings.namespace, ready[0], POD_PORT, headers)

    def _put_forward(self, ref: str) -> ModelVersion:
        """The version as its approval was asked for. What is built and served is known by digest from there on, so
        MLflow, whose import takes seconds, is not asked what its registry says by now."""
        return self.approvals.version(self.approvals.aliases.ref(ref))

    def _source(self, version: ModelVersion) -> str:
        """The address of the repository that a version was trained from, where that is known."""
        with suppress(TrackingNotFound):
            return str(self.run_store.get(version.run_id).recorded.get("repository") or "")
        return ""

    def deploy(
        self,
        ref: str,
        variant: str | None = None,
        reason: str = "",
        replicas: int | None = None,
        timeout_s: float | None = None,
    ) -> Deployment:
        """Start a built version as a variant of its endpoint; nobody's traffic moves but a replaced variant's.

        The first variant of an endpoint gets all of its traffic. The version that a variant was before runs on, for a
        rollback; the one before that is stopped.

        Args:
            replicas: how many processes answer; as many as there are by default, and one of what is new.
            timeout_s: how long an answer of the endpoint may take; as before by default.
        """
        self._need("update", "deployments")
        version = self._put_forward(ref)
        role = variant or ref.partition("@")[2] or CHAMPION
        return self._ship("deploy", version, role, reason, lambda: self._wanted(version), replicas, timeout_s)

    def rollback(self, endpoint: str, variant: str = CHAMPION, reason: str = "") -> Deployment:
        """Put the version before in the place of a variant's; once more, and it is as it was.

        Raises:
            NotFound: there was none before.
            Refused: its approval was withdrawn.
        """
        self._need("update", "deployments")
        name = self.endpoints.endpoint(endpoint).variants.get(variant)
        ref = self.serving.previous(endpoint, variant)
        if name is None or ref is None:
            raise NotFound(f"{endpoint} had no other version as {variant}. What was when:  yard ledger --of {endpoint}")
        version, replicas = self._put_forward(ref), self.endpoints.deployment(name).size

        def wanted() -> Deployment:
            with suppress(NotFound):
                return self.endpoints.deployment(f"{version.model}-{version.version}")
            return self._wanted(version)

        return self._ship("rollback", version, variant, reason, wanted, replicas)

    def _ship(
        self,
        kind: str,
        version: ModelVersion,
        role: str,
        reason: str,
        wanted: Callable[[], Deployment],
        replicas: int | None,
        timeout_s: float | None = None,
    ) -> Deployment:
        from modelyard.serving import with_variant

        self.approvals.require(version)
        asked = wanted()
        self._need_stage()
        deployment = self.serving.deploy(asked, replicas)

        def changed() -> Endpoint:
            endpoint = with_variant(self.endpoints, version.model, role, deployment.name)
            with suppress(TrackingNotFound):  # a model may outlive its project
                endpoint = replace(endpoint, feedback_days=self.project(version.model).endpoint.feedback_days)
            return endpoint if timeout_s is None else endpoint.with_timeout(timeout_s)

        self.serving.change(kind, version.model, self.settings.user, changed, reason)
        self.serving.end_replaced(version.model)
        return deployment

    def _wanted(self, version: ModelVersion) -> Deployment:
        """The version as it was built; where its replicas answer is not yet said."""
        build = self.builder.find(version.ref)
        return Deployment(
            f"{version.model}-{version.version}",
            version.model,
            version.version,
            build.bento.tag,
            build.bento.sha256,
            str(build.bento.path),
            str(build.environment),
            (),
            version.model_sha256,
            build.image.digest if build.image else "",
            memory_mb=self._memory_mb(version.model),
        )

    def _memory_mb(self, model: str) -> int:
        """What a pod may take: the budget that the build's checks held it to, and room for what they did not ask."""
        with suppress(TrackingNotFound):  # a model may outlive its project
            return int(2 * self.project(model).endpoint.memory_mb)
        return 0

    def shadow(self, endpoint: str, variant: str | None, percent: float = 100.0, reason: str = "") -> Endpoint:
        """Send a variant that answers nobody a copy of so many of the requests; None ends it."""
        shadow = Shadow(variant, percent) if variant else None
        return self._change("shadow", endpoint, lambda found: found.shadowed(shadow), reason)

    def split(self, endpoint: str, shares: Mapping[str, float], reason: str = "") -> Endpoint:
        """Give the variants other shares, moving as few units as possible."""
        return self._change("split", endpoint, lambda found: found.split(shares), reason)

    def _change(self, kind: str, name: str, change: Callable[[Endpoint], Endpoint], reason: str) -> Endpoint:
        self._need("update", "endpoints")
        self._need_stage()
        return self.serving.change(
            kind, name, self.settings.user, lambda: change(self.endpoints.endpoint(name)), reason
        )

    def results(self, endpoint: str) -> "Results":
        """What each variant did, how they differ, and whether the split can be trusted.

        Raises:
            NotFound: there is no such endpoint.
        """
        from modelyard_serving.console.results import results

        return results(self.db, self.endpoints.endpoint(endpoint).name)

    def report(self, endpoint: str) -> str:
        """The same as a page."""
        from modelyard_serving.console.report import report

        return report(self.db, self.endpoints.endpoint(endpoint).name)

    def export(self, endpoint: str, form: "Form", to: "To", gateway: str) -> "Export":
        """An endpoint as it stands, for those who route or serve it by other means; nothing is changed."""
        from modelyard_serving.kubernetes.exports import export

        found = self.endpoints.endpoint(endpoint)
        deployments = {name: self.endpoints.deployment(name) for name in found.variants.values()}
        return export(found, deployments, self._place, form, to, gateway)

    def retire(self, ref: str, reason: str = "") -> Deployment:
        """Stop a version that no variant uses. Its image, approval and audit stay.

        Raises:
            Refused: a variant of its endpoint still is this version.
        """
        self._need("update", "deployments")
        version = self._put_forward(ref)
        deployment = self.endpoints.deployment(f"{version.model}-{version.version}")
        if used := [variant for _, variant in self.serving.users(deployment.name)]:
            raise Refused(
                f"{version.ref} is the {' and the '.join(used)} of {version.model}, so it stays.\n"
                f"Put another in its place first:  yard deploy {version.model}:N --variant {used[0]}"
            )
        self._need_stage()
        facts = {"bento_sha256": deployment.bento_sha256, "model_sha256": deployment.model_sha256}
        self.approvals.ledger.append("retire", version.ref, self.settings.user, lambda: facts, reason)
        self.serving.remove(deployment)
        return deployment

    @property
    def serving(self) -> "Serving":
        from modelyard.serving import Serving

        stage = self.local_stage if self.settings.local else self.kubernetes_stage
        return Serving(stage, self.gateway, self.endpoints, self.approvals.ledger, self._note)

    @property
    def local_stage(self) -> "LocalStage":
        from modelyard_serving.local_stage import LocalStage

        settings, stack = self.settings, self.stack
        return LocalStage(settings.home, stack.processes, settings.console_url, stack.secret_file)

    @property
    def kubernetes_stage(self) -> "KubernetesStage":
        from modelyard_serving.kubernetes.stage import KubernetesStage

        return KubernetesStage(self.cluster, self._place)

    @property
    def _place(self) -> "Place":
        from modelyard_serving.kubernetes.objects import Place

        return Place(self.settings.namespace, pull_secret=self.settings.pull_secret)

    @cached_property
    def cluster(self) -> "Cluster":
        from modelyard_serving.kubernetes.cluster import Cluster

        return Cluster(self.settings.context)

    @property
    def gateway(self) -> "GatewayControl":
        from modelyard.serving import LocalGateway
        from modelyard_serving.gateway.desired import FollowingGateways

        if self.settings.local:
            return LocalGateway(self.stack, self.endpoints, self.keys)
        return FollowingGateways(self.db)

    def late_gateways(self) -> str:
        """Which gateways of a stage of pods do not run with the desired state, in words."""
        from modelyard_serving.gateway.desired import FollowingGateways

        return FollowingGateways(self.db).late()

    def gateway_secret(self) -> str:
        """What gateway, console and runtimes of the stage know each other by."""
        from modelyard_serving.keys import kept_secret

        return kept_secret(self.settings.gateway_secret_file)

    def up(self, say: Say = lambda _: None) -> list[str]:
        """Start the stack and what was deployed before it was stopped; gives what could not be started, and why.

        Of a stage of pods: what is missing or was changed is asked for again, and what nobody wants goes.
        """
        from modelyard.serving import LocalGateway
        from modelyard_build.bento import Bento
        from modelyard_build.builds import verify_bento

        self._need("find", "api_keys")
        if not self.settings.local:
            return self._mend(say)
        self.stack.up(lambda: LocalGateway(self.stack, self.endpoints, self.keys).write(), say)  # once MongoDB runs
        stage = self.local_stage
        launched, faults = [], []
        for deployment in self.endpoints.deployments():
            try:
                verify_bento(Bento(deployment.bento_tag, Path(deployment.bento_path), deployment.bento_sha256))
                stage.launch(deployment)
                launched.append(deployment)
            except BuildRefused as error:
                faults.append(f"{deployment.name} is not started. {error}")
        for deployment in launched:
            say(deployment.name)
            try:
                stage.wait(deployment)
            except Unavailable as error:
                faults.append(str(error))
        return faults

    def _mend(self, say: Say) -> list[str]:
        stage, deployments = self.kubernetes_stage, self.endpoints.deployments()
        stage.mend(deployments)
        faults = []
        for deployment in deployments:
            say(deployment.name)
            try:
                stage.wait(deployment)
            except Unavailable as error:
                faults.append(str(error))
        self.gateway.publish()
        return faults

    def install(self, overlay: Path, say: Say = lambda _: None) -> "Installed":
        """Bring up a stage of pods in an empty namespace, by an overlay of `k8s/`."""
        from modelyard.install import install

        return install(self, overlay, say)

    def platform_image(self, base: str | None = None, say: Say = lambda _: None) -> str:
        """Make the image that a stage of pods runs all but models from, of what is installed here, and push it.

        Args:
            base: what it is built upon; the full image of this Python by default, which has the git that JupyterLab
                wants.

        Returns:
            its name with the digest, as an overlay takes it.

        Raises:
            BuildRefused: something of it is not installed, or the base has another Python.
            Unavailable: no engine answers, or the registry does not take it.
        """
        from modelyard_build.images import platform
        from modelyard_build.images.engine import Engine

        settings = self.settings
        if not settings.images:
            raise Refused(
                "No registry is named, and a cluster pulls images from nowhere else.\n"
                "Name one:  export YARD_IMAGES=registry.example/team"
            )
        engine = Engine.connect()
        say("base image")
        below = engine.base(base or platform.BASE)
        say("image")
        image = platform.make(engine, below)
        ref = f"{settings.images.rstrip('/')}/modelyard:{image.removeprefix('sha256:')[:12]}"
        engine.tag(image, ref)
        say("push")
        digest = engine.pushed(ref, settings.images_login) or engine.push(ref, settings.images_login)
        return f"{ref.rpartition(':')[0]}@{digest}"

    # roles and keys

    def create_roles(self, rotate: Sequence[str] = ()) -> "tuple[list[Change], list[User]]":
        """Bring MongoDB's roles and users to their declaration; gives what was done, and how they are now."""
        from modelyard.mongo_users import bring, users
        from modelyard.stack import ensure_indexes

        changes = bring(self.settings, rotate)
        ensure_indexes(self.settings)  # whom the roles let record and read may make none
        if self.stack.processes.running():
            self.stack.ensure_console()
        return changes, users(self.settings)

    def issue_key(self, caller: str, scopes: Sequence[str], days: int = 90, rate: int | None = None) -> tuple[Key, str]:
        self.tell_signing_keys()
        issued = self.keys.issue(caller, scopes, days, rate)
        if rate is not None or not self.settings.local:
            self.publish()
        return issued

    def revoke_key(self, key_id: str) -> Key:
        key = self.keys.revoke(key_id)
        self.publish()
        return key

    def rotate_signing_key(self) -> str:
        """A new key signs from now on; what the one before has signed is accepted as well."""
        kid = self.signing_keys.rotate()
        self.tell_signing_keys()
        self.publish()
        return kid

    def retire_signing_keys(self) -> tuple[str, ...]:
        """End the signing keys before the newest; what they have signed is refused."""
        retired = self.signing_keys.retire_old()
        self.tell_signing_keys()
        self.publish()
        return retired

    def tell_signing_keys(self) -> None:
        """Gateways elsewhere learn the public halves from the database.

        Raises:
            Refused: the stage's signing key is on another machine.
        """
        from modelyard_serving.gateway.desired import STAGE

        if self.settings.local:
            return
        told = (self.db.stage.find_one({"_id": STAGE}) or {}).get("jwks", {"keys": []})["keys"]
        ours = self.signing_keys.jwks()["keys"]
        points = {key["x"] for key in ours}
        if told and not any(key["x"] in points for key in told):
            raise Refused(
                f"The keys of {self.settings.stage} are signed on another machine, and {self.settings.secrets} has "
                "another signing key.\nDo this there, or copy that folder's jwt*.pem from it."
            )
        self.db.stage.update_one({"_id": STAGE}, {"$set": {"jwks": {"keys": ours}}}, upsert=True)

    def publish(self) -> None:
        """Bring the desired state to the gateway, where there is one by now."""
        if not self.settings.local or self.stack.processes.running():
            self.gateway.publish()

    def _need(self, action: str, collection: str) -> None:
        """Refuse at once what MongoDB's user may not do, before anything is trained, registered, built or started.

        Without an answer nothing is known, and nothing is refused.
        """
        if self.settings.embedded_mongo:
            return  # its administrator
        with suppress(TrackingUnavailable):
            if not may(self.db, collection, action):
                raise Refused(refusal(self.settings.mongo_user, action, collection))

    def _need_stage(self) -> None:
        """Refuse what needs a stage that does not run, or where the database is another stage's."""
        if self.settings.local and not self.stack.processes.running():
            raise Refused("The stack does not run, so nothing can be deployed or routed.\nStart it:  yard up")
        deployments = self.endpoints.deployments()
        if any(deployment.pods if self.settings.local else deployment.ports for deployment in deployments):
            raise Refused(
                f"This database is that of {'a stage of pods' if self.settings.local else 'a local stage'}, and a "
                "database serves one stage.\nSay which:  --stage NAME      or use another:  export YARD_DATABASE=..."
            )
