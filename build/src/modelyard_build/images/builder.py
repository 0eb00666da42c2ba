"""Images: a checked bento becomes an image, is checked again as it runs, and is pushed by digest."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from modelyard_build.builds import Build, BuildStore, Image, verify_bento
from modelyard_build.checks.finding import Subject
from modelyard_build.checks.of_image import base, labels, packages, root_file_system, secrets, size, user
from modelyard_build.checks.running import CHECKS, run_checks
from modelyard_build.errors import Refused, Unavailable
from modelyard_build.images.engine import Engine
from modelyard_build.images.image import PORT, labels_of, make_image
from modelyard_build.report import Report, refusal
from modelyard_build.steps import Steps
from modelyard_serving.manifest import Manifest
from modelyard_tracking.digests import text_sha256
from modelyard_tracking.ledger import Ledger

OF_IMAGE = (user.check, root_file_system.check, secrets.check, packages.check, labels.check, size.check, base.check)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Where images come from and go to."""

    base: str = "python:{python}-slim"  # best with a digest: name@sha256:...
    registry: str = ""  # such as registry.example/team; empty: images are not pushed
    login: Mapping[str, str] | None = field(default=None, repr=False)  # username and password


@dataclass(frozen=True, slots=True)
class ImageBuilder:
    """Makes images of builds, and remembers them."""

    store: BuildStore
    ledger: Ledger
    engine: Engine
    settings: ImageSettings
    user: str

    def make(self, build: Build, ask: Callable[[], Subject], source: str, steps: Steps) -> Build:
        """The image of a build, checked as it runs; one that is there and passed before is taken as it is.

        Args:
            ask: gives what the checks may know, when it is needed.
            source: address of the repository of the run's commit.

        Raises:
            Refused: a check said no, or the bento was changed since its own checks.
            Unavailable: the base image cannot be had, or the engine failed.
        """
        verify_bento(build.bento)
        manifest = Manifest.read(build.bento.path / "src")
        with steps.step("base image"):
            below = self.engine.base(self.settings.base.format(python=manifest.python))
        said = labels_of(manifest, build.bento, build.report_sha256, below, source)
        inputs = text_sha256(f"{build.inputs_sha256} {build.bento.sha256} {below.id} {sorted(said.items())}".encode())
        before = build.image
        if before and before.inputs_sha256 == inputs and self._is_there(before, build.ref):
            return build
        with steps.step("image"):
            identity, layers = make_image(self.engine, below, manifest.python, build.bento, build.environment, said)
        ref = self._name(build.ref, identity)
        subject = ask()
        with steps.step("image served, checked over HTTP"):
            room = int(2 * subject.endpoint.memory_mb)  # so that it is a check that says how much it takes
            with self.engine.serve(identity, below, said, room, PORT) as served:
                report = Report(
                    build.ref,
                    build.bento.tag,
                    build.bento.sha256,
                    build.report["model_sha256"],
                    run_checks(served, subject, (*CHECKS, *OF_IMAGE)),
                    identity,
                )
        self.store.write(report)
        if not report.passed:
            raise Refused(refusal(f"The image of {build.ref}", report))
        self.engine.tag(identity, ref)
        facts = {
            "image": identity,
            "bento_sha256": build.bento.sha256,
            "report_sha256": report.sha256,
            "model_sha256": report.model_sha256,
        }
        head = self.ledger.append("build", build.ref, self.user, lambda: facts).head
        size = (self.engine.size(identity) - below.size) / 1e6
        image = Image(
            ref, identity, below.digest or below.id, layers, size, report.to_dict(), report.sha256, inputs, str(head)
        )
        self.store.keep_image(build.bento, image)
        return replace(build, image=image, unchanged=False)

    def push(self, build: Build, steps: Steps) -> Build:
        """Push the image by a name that says which it is; one that is there already is left as it is.

        Raises:
            Refused: the image is not the one that was checked, or the registry has another by its name.
            Unavailable: the registry does not take it.
        """
        image = build.image
        if image is None:
            raise Refused(f"{build.ref} has no image.\nMake it:  yard build {build.ref} --until image")
        if not self.settings.registry:
            raise Unavailable(
                f"{image.ref} is pushed nowhere: no registry is named.\n"
                "Name one:  export YARD_IMAGES=registry.example/team"
            )
        if self.engine.id_of(image.ref) != image.id:
            raise Refused(
                f"The image {image.ref} is gone, or not the one that was checked ({image.id}); nothing is pushed.\n"
                f"Make it again:  yard build {build.ref}"
            )
        with steps.step("push"):
            there = self.engine.pushed(image.ref, self.settings.login)
            known = image.digest.partition("@")[2]
            if there is not None and there == known:
                return build
            digest = self.engine.digest_of(image.id, image.ref)
            if there is not None and there != digest:
                raise Refused(
                    f"The registry has {image.ref} already, as {there}, which was not made here, and no tag is "
                    "overwritten.\n"
                    "Look who pushed it, and delete it there if it should not be."
                )
            digest = there or self.engine.push(image.ref, self.settings.login)
        facts = {"image": image.id, "digest": digest, "bento_sha256": build.bento.sha256}
        head = self.ledger.append("push", build.ref, self.user, lambda: facts).head
        name = image.ref.rpartition(":")[0]
        image = replace(image, digest=f"{name}@{digest}", ledger=str(head))
        self.store.keep_image(build.bento, image)
        return replace(build, image=image, unchanged=False)

    def _is_there(self, image: Image, ref: str) -> bool:
        return image.ref == self._name(ref, image.id) and self.engine.id_of(image.ref) == image.id

    def _name(self, ref: str, identity: str) -> str:
        """The image's own digest is in its tag: no tag ever means two images."""
        model, _, number = ref.partition(":")
        folder = self.settings.registry.rstrip("/") or "modelyard"
        return f"{folder}/{model}:{number}-{identity.removeprefix('sha256:')[:12]}"
