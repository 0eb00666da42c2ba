"""The docker engine: builds images, runs them for the checks, and pushes them. What it says wrongly is said clearly."""

import os
import socket
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import docker
import httpx
from docker.errors import APIError, BuildError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from modelyard_build.errors import Refused, Unavailable
from modelyard_build.served import CHECKED, Served, wait_until_ready

_USUAL = "unix:///var/run/docker.sock"
CONNECT_S = 5
REQUEST_S = 600  # building, pulling and pushing answer when they are done


@dataclass(frozen=True, slots=True)
class Base:
    """The image that others are built upon."""

    ref: str
    id: str
    digest: str  # as the registry knows it, name@sha256:...; empty for one that no registry has
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class ServedImage(Served):
    """A running container of an image."""

    container: Container
    image: Mapping[str, Any]  # as the engine describes it
    base: Base
    labels: Mapping[str, str]  # that it should have


class Engine:
    """A docker engine that answers."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client

    @classmethod
    def connect(cls) -> Self:
        """The engine that DOCKER_HOST or the usual socket names.

        Raises:
            Unavailable: none answers.
        """
        try:
            _knock(os.environ.get("DOCKER_HOST") or _USUAL)
            with closing(docker.from_env(timeout=CONNECT_S)) as client:
                client.ping()
            return cls(docker.from_env(timeout=REQUEST_S))
        except (DockerException, OSError) as error:
            raise Unavailable(
                f"No docker engine answers, so no image can be made: {_said(error)}\n"
                "Start one, or name one:  export DOCKER_HOST=..."
            ) from error

    def base(self, ref: str) -> Base:
        """The base image, pulled unless it is there.

        Raises:
            Unavailable: it cannot be had.
        """
        try:
            image = self.client.images.get(ref)
        except ImageNotFound:
            try:
                image = self.client.images.pull(ref)
            except APIError as error:
                raise Unavailable(f"The base image {ref} cannot be pulled: {_said(error)}\n{_CHOOSE_BASE}") from error
        digests = image.attrs.get("RepoDigests") or [""]
        own = [digest for digest in digests if digest.partition("@")[0] == _repository(ref)]
        return Base(ref, image.id, (own or digests)[0], image.attrs["Size"])

    def interpreter(self, base: Base, python: str) -> str:
        """The Python in a base image.

        Raises:
            Refused: it has none of this version.
        """
        probe = "import os, sys; print(os.path.realpath(sys.executable), *sys.version_info[:2])"
        try:
            said = self.client.containers.run(
                base.id, ["-c", probe], entrypoint="python3", remove=True, network_mode="none"
            )
        except DockerException as error:
            raise Refused(f"The base image {base.ref} has no python3: {_said(error)}\n{_CHOOSE_BASE}") from error
        path, major, minor = said.decode().split()
        if f"{major}.{minor}" != python:
            raise Refused(
                f"The base image {base.ref} has Python {major}.{minor}, and the environment is one of {python}.\n"
                f"{_CHOOSE_BASE}"
            )
        return str(path)

    def build(self, dockerfile: str, layers: Mapping[str, Path], labels: Mapping[str, str]) -> str:
        """Build an image of tars that the Dockerfile adds; gives its id."""
        with tempfile.TemporaryFile() as context:
            with tarfile.open(fileobj=context, mode="w") as tar, tempfile.NamedTemporaryFile() as file:
                file.write(dockerfile.encode())
                file.flush()
                tar.add(file.name, "Dockerfile")
                for name, layer in layers.items():
                    tar.add(layer, name)
            context.seek(0)
            try:
                image, _ = self.client.images.build(
                    fileobj=context,
                    custom_context=True,
                    labels=dict(labels),
                    rm=True,
                    forcerm=True,
                    network_mode="none",
                )
            except (BuildError, APIError) as error:
                raise Unavailable(f"The docker engine could not build the image: {_said(error)}") from error
        return str(image.id)

    def tag(self, image: str, ref: str) -> None:
        self.client.images.get(image).tag(ref)

    def id_of(self, ref: str) -> str | None:
        """The id of the image that this name stands for here."""
        try:
            return str(self.client.images.get(ref).id)
        except ImageNotFound:
            return None

    def layers(self, image: str) -> list[str]:
        """The digests of its layers, the base's first."""
        return list(self.client.images.get(image).attrs["RootFS"]["Layers"])

    def size(self, image: str) -> int:
        """Bytes, with those of its base."""
        return int(self.client.images.get(image).attrs["Size"])

    def digest_of(self, image: str, ref: str) -> str | None:
        """The digest that a registry knows the image by, under this name; None if it was not pushed from here."""
        name = ref.rpartition(":")[0]
        known = dict(found.split("@") for found in self.client.images.get(image).attrs.get("RepoDigests") or ())
        return known.get(name)

    @contextmanager
    def serve(
        self, image: str, base: Base, labels: Mapping[str, str], memory_mb: int, port: int, timeout_s: float = 60
    ) -> Iterator[ServedImage]:
        """Run a container as production does: read-only, without any capability, and limited in memory.

        Raises:
            Refused: it does not get ready; the last lines of its log are in the text.
        """
        started = time.monotonic()
        host, published = self._host()
        try:
            container = self.client.containers.run(
                image,
                detach=True,
                read_only=True,
                environment=CHECKED,
                tmpfs={"/tmp": "size=256m"},  # noqa: S108 - inside the container
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=f"{memory_mb}m",
                ports={f"{port}/tcp": (published, None)},
            )
        except DockerException as error:
            raise Refused(f"The image {image} does not start: {_said(error)}") from error
        try:
            container.reload()
            [found] = container.ports[f"{port}/tcp"][:1]
            with httpx.Client(base_url=f"http://{host}:{found['HostPort']}", timeout=30) as client:

                def over() -> bool:
                    container.reload()
                    return bool(container.status == "exited")

                def tail() -> str:
                    return str(container.logs(tail=12).decode(errors="replace"))

                wait_until_ready(client, over, tail, f"The image {image}", timeout_s)
                described = self.client.images.get(image).attrs
                yield ServedImage(
                    client,
                    time.monotonic() - started,
                    partial(_memory_mb, container),
                    container,
                    described,
                    base,
                    labels,
                )
        finally:
            with suppress(NotFound):
                container.remove(force=True, v=True)

    def pushed(self, ref: str, login: Mapping[str, str] | None) -> str | None:
        """The digest under which the registry has this name; None if it has not.

        Raises:
            Unavailable: the registry does not answer, or refuses.
        """
        try:
            found = self.client.api.inspect_distribution(ref, auth_config=dict(login) if login else None)
        except APIError as error:
            if error.status_code == 404 or "manifest unknown" in str(error).lower():
                return None
            raise Unavailable(_registry(ref, error)) from error
        return str(found["Descriptor"]["digest"])

    def push(self, ref: str, login: Mapping[str, str] | None) -> str:
        """Push an image by this name; gives the digest that the registry knows it by."""
        name, _, tag = ref.rpartition(":")
        try:
            lines = self.client.images.push(
                name, tag, stream=True, decode=True, auth_config=dict(login) if login else None
            )
            for line in lines:
                if "error" in line:
                    raise Unavailable(_registry(ref, line["error"]))
                if "Digest" in line.get("aux", {}):
                    return str(line["aux"]["Digest"])
        except APIError as error:
            raise Unavailable(_registry(ref, error)) from error
        raise Unavailable(f"The registry took {ref}, and said no digest: try again.")

    def _host(self) -> tuple[str, str]:
        """Where published ports are reached, and the address to publish them on."""
        url = urlsplit(self.client.api.base_url)
        if url.scheme.startswith("http+docker") or url.hostname in (None, "localhost", "127.0.0.1"):
            return "127.0.0.1", "127.0.0.1"
        return str(url.hostname), "0.0.0.0"  # noqa: S104 - an engine on another machine


def _knock(host: str) -> None:
    """Is anybody behind a socket of this machine? docker's own client leaves one open that nobody answers."""
    url = urlsplit(host)
    if url.scheme == "unix":
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(CONNECT_S)
            door.connect(url.path)


def _memory_mb(container: Container) -> float:
    """What a container holds in memory, without what it has read from files and could let go."""
    shown = container.client.api.stats(container.id, stream=False, one_shot=True)["memory_stats"]
    kept = shown.get("stats", {})
    return float(shown["usage"] - kept.get("inactive_file", kept.get("total_inactive_file", 0))) / 1e6


def _repository(ref: str) -> str:
    """The name without tag and digest; a colon before the last slash belongs to a port."""
    name = ref.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]


_CHOOSE_BASE = "Name another:  export YARD_BASE_IMAGE=name@sha256:...      or --base of yard image"


def _said(error: object) -> str:
    return str(getattr(error, "explanation", None) or error).strip()[-1000:]


def _registry(ref: str, error: object) -> str:
    return (
        f"The registry does not take {ref}: {_said(error)}\n"
        "Its address is YARD_IMAGES, its login YARD_IMAGES_USER and YARD_IMAGES_PASSWORD, or that of docker login."
    )
