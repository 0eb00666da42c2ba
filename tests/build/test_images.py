"""From a checked bento to an image in a registry: on a real docker engine, with a real registry."""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from modelyard_build.builds import Build
from modelyard_build.checks.of_image import base, labels, packages, root_file_system, secrets, user
from modelyard_build.errors import Refused, Unavailable
from modelyard_build.images.builder import ImageBuilder, ImageSettings
from modelyard_build.images.engine import Base, Engine, ServedImage
from modelyard_build.images.image import PORT
from modelyard_build.images.layers import write_layer
from modelyard_build.steps import Steps
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.manifest import Column, Manifest
from modelyard_tracking.project import Project
from modelyard_tracking.registry import ModelVersion
from modelyard_tracking.store import Home
from own_engine import BASE_PYTHON, OwnEngine
from workshop import Workshop

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
SOURCE = "https://code.example/linear.git"


@dataclass(frozen=True)
class Made:
    """A version on its way: its bento, its image, and what made them."""

    workshop: Workshop
    project: Project
    version: ModelVersion
    images: ImageBuilder
    own: OwnEngine
    build: Build

    def make(self, build: Build, project: Project | None = None) -> Build:
        builder = self.workshop.builder
        return self.images.make(
            build, lambda: builder.subject(build, self.version, project or self.project), SOURCE, Steps()
        )


@pytest.fixture(scope="module")
def made(engine: OwnEngine, mongo_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("images")
    home = Home(mongo_url, "test_images", folder / "artifacts", folder / "spool")
    with home.connected() as db:
        workshop = Workshop(folder / "workshop", home, db)
        project = workshop.project()
        version = workshop.approved(project, workshop.run(as_sklearn=True))
        builder = workshop.builder
        settings = ImageSettings(engine.base, f"{engine.registry}/team")
        images = ImageBuilder(builder.store, workshop.approvals.ledger, Engine.connect(), settings, "engineer")
        build = builder.build(version, project)
        made = Made(workshop, project, version, images, engine, build)
        yield replace(made, build=made.make(build))
        db.client.drop_database("test_images")


@pytest.fixture(scope="module")
def below(made: Made) -> Base:
    return made.images.engine.base(made.own.base)


def changed(made: Made, dockerfile: str) -> str:
    """The id of an image that somebody made from ours."""
    image = made.build.image
    assert image
    file = io.BytesIO(f"FROM {image.id}\n{dockerfile}\n".encode())
    return str(made.own.client.images.build(fileobj=file, rm=True)[0].id)


@pytest.fixture
def serve(made: Made, below: Base) -> Any:
    def serve(image: str) -> Any:
        return made.images.engine.serve(image, below, made.own.client.images.get(image).labels, 1024, PORT)

    return serve


def test_the_image_passed_the_checks_of_the_bento_and_its_own(made: Made) -> None:
    image = made.build.image
    assert image
    assert image.report["passed"]
    checks = [finding["check"] for finding in image.report["findings"]]
    assert {finding["check"] for finding in made.build.report["findings"]} < set(checks)
    assert {"image user", "image root file system", "image secrets", "image labels", "image size"} < set(checks)
    assert image.size_mb < 300
    entry = made.workshop.approvals.ledger.last("build", subject=made.version.ref)
    assert entry.facts["image"] == image.id
    assert entry.facts["report_sha256"] == image.report_sha256


def test_its_labels_name_what_it_was_made_from(made: Made) -> None:
    image = made.build.image
    assert image
    said = made.own.client.images.get(image.ref).labels
    manifest = Manifest.read(made.build.bento.path / "src")
    assert said["org.opencontainers.image.source"] == SOURCE
    assert said["org.opencontainers.image.version"] == str(manifest.version)
    assert said["org.opencontainers.image.base.digest"] == made.own.base.partition("@")[2]
    assert said["io.modelyard.model-sha256"] == manifest.model_sha256
    assert said["io.modelyard.ledger-head"] == manifest.ledger
    assert said["io.modelyard.report-sha256"] == made.build.report_sha256


def test_nothing_is_done_again_for_an_unchanged_version(made: Made) -> None:
    before = len(list(made.workshop.approvals.ledger.entries()))
    again = made.make(made.workshop.builder.build(made.version, made.project))
    assert again.unchanged
    assert again.image == made.build.image
    assert len(list(made.workshop.approvals.ledger.entries())) == before


def test_a_version_that_was_built_before_is_held_against_what_is_live_now(made: Made, tmp_path: Path) -> None:
    manifest = Manifest.read(made.build.bento.path / "src")
    live = replace(manifest, version=9, inputs=(*manifest.inputs, Column("c", "float64")))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "manifest.json").write_bytes(live.to_json())
    store = EndpointStore(made.workshop.db)
    store.put_deployment(Deployment("linear-9", "linear", 9, "t", "b", str(tmp_path), "/e", (1,), "m"))
    store.put(Endpoint.first("linear", "champion", "linear-9"), 1)
    try:
        with pytest.raises(Refused, match=r"not compatible with what is live, linear:9: input c is gone"):
            made.workshop.builder.build(made.version, made.project)
    finally:
        made.workshop.db.endpoints.drop()
        made.workshop.db.deployments.drop()


def test_the_same_version_built_elsewhere_gives_the_same_bento_and_the_same_layers(made: Made, tmp_path: Path) -> None:
    builder = replace(made.workshop.builder, home=tmp_path / ".yard")
    (tmp_path / ".yard" / "signatures").mkdir(parents=True)
    for file in (made.workshop.builder.home / "signatures").iterdir():  # else it is signed anew: another signature
        (tmp_path / ".yard" / "signatures" / file.name).write_bytes(file.read_bytes())
    builds = made.workshop.db.builds
    known = list(builds.find())
    builds.delete_many({})
    try:
        build = builder.build(made.version, made.project)
        assert not build.unchanged
        assert build.bento.sha256 == made.build.bento.sha256
        again = made.make(build).image
    finally:
        builds.delete_many({})
        builds.insert_many(known)
    first = made.build.image
    assert again
    assert first
    for part in ("model", "manifest.json", "requirements.lock", "bento"):
        assert again.layers[part] == first.layers[part], part


def test_it_is_pushed_by_digest_and_what_is_in_the_registry_says_what_it_is(made: Made, below: Base) -> None:
    pushed = made.images.push(made.build, Steps())
    image = pushed.image
    assert image
    name, _, digest = image.digest.partition("@")
    assert name == f"{made.own.registry}/team/linear"
    assert made.images.engine.pushed(image.ref, None) == digest
    found = made.own.client.images.get_registry_data(image.digest)
    assert found.id == digest
    with made.images.engine.serve(image.digest, below, {}, 1024, PORT) as served:
        assert Manifest.from_json(served.http.get("/provenance").content).model_sha256 == made.version.model_sha256
    assert made.workshop.approvals.ledger.last("push", subject=made.version.ref).facts["digest"] == digest
    entries = len(list(made.workshop.approvals.ledger.entries()))
    again = made.images.push(made.workshop.builder.find(made.version.ref), Steps())
    assert again.image == image
    assert len(list(made.workshop.approvals.ledger.entries())) == entries, "what is there is not pushed again"


def test_a_tag_of_the_registry_is_never_overwritten(made: Made) -> None:
    image = made.build.image
    assert image
    other = "f" * 12
    name = f"{made.own.registry}/team/linear"
    made.own.client.images.get(made.own.base).tag(name, f"1-{other}")
    made.own.client.images.push(name, f"1-{other}")
    taken = replace(image, ref=f"{name}:1-{other}", digest="")
    made.own.client.images.get(image.id).tag(name, f"1-{other}")
    with pytest.raises(Refused, match=r"which was not made here, and no tag is overwritten"):
        made.images.push(replace(made.build, image=taken), Steps())


def test_an_image_that_was_changed_between_build_and_push_is_not_pushed(made: Made) -> None:
    image = made.build.image
    assert image
    client, (name, tag) = made.own.client, image.ref.rsplit(":", 1)
    client.images.get(changed(made, "ENV MORE=1")).tag(name, tag)
    try:
        with pytest.raises(Refused, match="not the one that was checked"):
            made.images.push(made.build, Steps())
    finally:
        client.images.get(image.id).tag(name, tag)


def test_a_bento_that_was_changed_after_its_checks_becomes_no_image(made: Made) -> None:
    file = made.build.bento.path / "src" / "service.py"
    content = file.read_bytes()
    file.write_bytes(content + b"# more\n")
    try:
        with pytest.raises(Refused, match="is not the one that was checked"):
            made.make(made.build)
    finally:
        file.write_bytes(content)


def test_an_image_whose_entry_point_runs_as_root_is_found_out(made: Made, serve: Any) -> None:
    with serve(changed(made, "USER root")) as served:
        finding = user.check(served, None)
    assert not finding.passed
    assert finding.message == "its entry point runs as root"
    assert finding.stops


def test_an_image_with_files_that_its_user_may_change_is_found_out(made: Made, below: Base, tmp_path: Path) -> None:
    image = made.build.image
    assert image
    layer = tmp_path / "open.tar"
    with tarfile.open(layer, "w") as tar:
        entry = tarfile.TarInfo("app/bento/src/open.py")
        entry.uid, entry.mode = 10001, 0o644
        tar.addfile(entry)
    built = made.images.engine.build(f"FROM {image.id}\nADD open.tar /\n", {"open.tar": layer}, {})
    with made.images.engine.serve(built, below, {}, 1024, PORT) as served:
        finding = root_file_system.check(served, None)
    assert not finding.passed
    assert finding.message == "its user may change /app/bento/src"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ENV DB_PASSWORD=hunter2", "its variable 'DB_PASSWORD' looks like a secret"),
        ("LABEL source=https://me:hunter2@code.example/x", "its label 'source' looks like a secret"),
    ],
)
def test_a_secret_in_an_image_is_found_out(made: Made, serve: Any, line: str, said: str) -> None:
    with serve(changed(made, line)) as served:
        finding = secrets.check(served, None)
    assert not finding.passed
    assert finding.message == said
    assert "hunter2" not in finding.message


def test_labels_that_say_something_else_are_found_out(made: Made, below: Base) -> None:
    image = made.build.image
    assert image
    wanted = made.own.client.images.get(image.id).labels
    built = changed(made, "LABEL io.modelyard.model-sha256=0")
    with made.images.engine.serve(built, below, wanted, 1024, PORT) as served:
        finding = labels.check(served, None)
    assert not finding.passed
    assert finding.message.startswith("io.modelyard.model-sha256 is '0' instead of ")


def test_an_image_that_is_too_large_is_refused_and_its_report_kept(made: Made) -> None:
    project = made.workshop.project(more="build = { image_mb = 10 }\n")
    try:
        with pytest.raises(
            Refused, match=r"(?s)The image of linear:1 is refused; 1 of .*image size: .* 10 are allowed"
        ):
            made.make(replace(made.build, image=None, inputs_sha256="other"), project)
    finally:
        made.workshop.project()
    found = made.workshop.builder.store.findings(made.version.ref)
    assert [finding.check for finding in found["modelyard.linear.1.image"] if finding.stops] == ["image size"]


def test_a_base_that_is_only_a_tag_is_a_warning_that_says_how_to_pin_it(below: Base) -> None:
    served = ServedImage(None, 0, lambda: 0, None, {}, replace(below, ref="python:3.11-slim"), {})  # type: ignore[arg-type]
    finding = base.check(served, None)  # type: ignore[arg-type]
    assert not finding.passed
    assert not finding.stops
    assert below.digest in finding.remedy


def test_a_base_without_the_python_of_the_run_is_refused(made: Made, below: Base) -> None:
    with pytest.raises(Refused, match=rf"has Python {BASE_PYTHON}, and the environment is one of 3\.13"):
        made.images.engine.interpreter(below, "3.13")


def test_a_base_that_cannot_be_had_is_said(made: Made) -> None:
    with pytest.raises(Unavailable, match=r"cannot be pulled: .*\nName another:  export YARD_BASE_IMAGE"):
        made.images.engine.base(f"{made.own.registry}/no-such:1")


def test_without_a_registry_nothing_is_pushed_and_it_is_said(made: Made) -> None:
    nowhere = replace(made.images, settings=replace(made.images.settings, registry=""))
    with pytest.raises(Unavailable, match="is pushed nowhere: no registry is named"):
        nowhere.push(made.build, Steps())


def test_a_registry_that_does_not_answer_is_said_in_a_sentence(made: Made) -> None:
    image = made.build.image
    assert image
    gone = "127.0.0.1:9/team/linear"
    made.own.client.images.get(image.id).tag(gone, "1-x")
    try:
        with pytest.raises(
            Unavailable, match=r"(?s)The registry does not take 127\.0\.0\.1:9/team/linear:1-x: .*YARD_IMAGES"
        ):
            made.images.push(replace(made.build, image=replace(image, ref=f"{gone}:1-x")), Steps())
    finally:
        made.own.client.images.remove(f"{gone}:1-x")


def test_a_package_of_another_version_in_an_image_is_found_out(made: Made, below: Base, tmp_path: Path) -> None:
    image = made.build.image
    assert image
    place = f"app/environment/lib/python{BASE_PYTHON}/site-packages/left_pad-1.0.dist-info/METADATA"
    write_layer(tmp_path / "more.tar", {place: b"Metadata-Version: 2.1\nName: left-pad\nVersion: 1.0\n"})
    built = made.images.engine.build(f"FROM {image.id}\nADD more.tar /\n", {"more.tar": tmp_path / "more.tar"}, {})
    subject = made.workshop.builder.subject(made.build, made.version, made.project)
    with made.images.engine.serve(built, below, {}, 1024, PORT) as served:
        finding = packages.check(served, subject)
    assert finding.stops
    assert finding.message == "left-pad is 1.0, and nothing was locked"


def test_images_of_one_lock_have_the_layer_of_their_environment_in_common(made: Made) -> None:
    image = made.build.image
    assert image
    environments = made.own.client.images.list(name="modelyard/environment")
    tops = {environment.attrs["RootFS"]["Layers"][-1] for environment in environments}
    assert image.layers["environment"] in tops
