"""A stage of pods on a real Kubernetes: the base stack from images built here, and real versions to deploy on it."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import httpx
import yaml

from asking import Callers, wait_until
from modelyard.demo import holdout_rows
from modelyard.settings import read_settings
from modelyard.yard import Yard
from modelyard_build.steps import Until
from modelyard_serving.endpoints import Deployment
from own_cluster import OwnCluster
from own_engine import OwnEngine
from places import REPOSITORY, TUMOR
from shipping import ship

NAMESPACE = "modelyard"
PREDICT = "/v1/endpoints/tumor/predict"
SCOPES = ("predict:tumor", "feedback:tumor", "read:tumor")
YARD = str(Path(sys.executable).parent / "yard")


@dataclass
class Production:
    """The stage. `yard` is an engineer's: of MongoDB's role, and of the namespaced service account `deployer`."""

    folder: Path
    cluster: OwnCluster
    engine: OwnEngine
    yard: Yard
    env: dict[str, str]
    gateway: str  # its address
    token: str
    owner: Yard  # the administrator's: of MongoDB's root

    def http(self, **headers: str) -> httpx.Client:
        key = {"authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"http://{self.gateway}", headers=key | headers, timeout=30)

    def callers(self, units: int = 1000) -> Callers:
        return Callers(80, PREDICT, self.token, self.body, units, host=self.gateway)

    @property
    def body(self) -> bytes:
        return json.dumps({"rows": [holdout_rows(TUMOR)[0][1]]}).encode()

    def command(self, *args: str) -> str:
        """What the command says, as an engineer types it."""
        done = subprocess.run(
            [YARD, *args], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def wanted(self, number: int) -> Deployment:
        return self.yard._wanted(self.yard._put_forward(f"tumor:{number}"))

    def changed(self, number: int, dockerfile: str, name: str) -> Deployment:
        """The same version from an image that somebody made of its own."""
        wanted = self.wanted(number)
        ref = f"{self.engine.registry}/odd/{name}"
        context = self.folder / name
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(f"FROM {wanted.image}\n{dockerfile}\n")
        images = self.engine.client.images
        images.build(path=str(context), tag=f"{ref}:1", rm=True, network_mode="none")
        pushed = [line for line in images.push(ref, "1", stream=True, decode=True) if "Digest" in line.get("aux", {})]
        return replace(wanted, image=f"{ref}@{pushed[-1]['aux']['Digest']}")

    def deploy(self, wanted: Deployment, replicas: int | None = None, variant: str = "champion") -> Deployment:
        return ship(self.yard.serving, wanted, replicas, variant)

    def both(self) -> tuple[Deployment, Deployment]:
        """Version 1 as champion and 2 as challenger, two pods each, 80 to 20."""
        first, second = self.deploy(self.wanted(1), 2), self.deploy(self.wanted(2), 2, "challenger")
        self.yard.split("tumor", {"champion": 80, "challenger": 20})
        return first, second

    def ready(self, deployment: Deployment) -> bool:
        return len(self.yard.serving.stage.up(deployment)) == deployment.pods

    def pods(self, name: str) -> list[dict[str, Any]]:
        found = json.loads(self.kubectl("get", "pods", "-l", f"app.kubernetes.io/name={name}", "-o", "json"))
        return [pod for pod in found["items"] if not pod["metadata"].get("deletionTimestamp")]

    def kubectl(self, *args: str, given: str | None = None) -> str:
        """As the cluster's administrator."""
        return self.cluster.kubectl("-n", NAMESPACE, *args, given=given)

    def kill(self, name: str, container: str, number: int = 0) -> None:
        """kill -9 of a container of one pod, past Kubernetes."""
        pod = self.pods(name)[number]
        [found] = [each for each in pod["status"]["containerStatuses"] if each["name"] == container]
        client: docker.DockerClient = self.engine.client
        client.containers.get(found["containerID"].removeprefix("docker://")).kill("SIGKILL")

    def restarts(self, name: str) -> int:
        """Of the containers of all its pods."""
        return sum(each["restartCount"] for pod in self.pods(name) for each in pod["status"]["containerStatuses"])

    def audited(self, ids: Sequence[str]) -> int:
        parts = (ids[at : at + 10_000] for at in range(0, len(ids), 10_000))
        return sum(self.owner.db.predictions.count_documents({"_id": {"$in": list(part)}}) for part in parts)


@contextmanager
def production(cluster: OwnCluster, engine: OwnEngine, folder: Path) -> Iterator[Production]:
    """Install the stack, and train, approve, build and push two versions of the example project."""
    shutil.copytree(TUMOR, folder / "projects" / "tumor", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".gitignore").write_text(".yard/\n__pycache__/\n/odd*/\n*.yaml\n")
    (folder / "yard.toml").write_text(f'[stages.test]\nnamespace = "{NAMESPACE}"\n')
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    env = {name: value for name, value in os.environ.items() if not name.startswith("YARD_")}
    env |= {"KUBECONFIG": str(cluster.kubeconfig), "YARD_STAGE": "test", "YARD_USER": "tester"}
    overlay = str(REPOSITORY / "k8s" / "overlays" / "test")
    installed = subprocess.run(
        [YARD, "install", "--overlay", overlay], cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )
    assert installed.returncode == 0, installed.stderr + cluster.kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide")
    root = f"root:{_secret(cluster, 'mongodb-admin', 'root-password')}"
    engineer = urlsplit(_secret(cluster, "mongodb", "engineer-url"))
    address = cluster.kubectl("-n", NAMESPACE, "get", "pod", "mongodb-0", "-o", "jsonpath={.status.podIP}")
    options = "directConnection=true&w=majority&journal=true"
    env |= {"YARD_BASE_IMAGE": engine.base, "YARD_IMAGES": f"{engine.registry}/team"}
    gateway = cluster.kubectl("-n", NAMESPACE, "get", "service", "gateway", "-o", "jsonpath={.spec.clusterIP}")
    roots = {"YARD_MONGO_URL": f"mongodb://{root}@{address}/?authSource=admin&{options}"}
    owner = Yard(read_settings(env | roots, folder))
    login = f"{engineer.username}:{engineer.password}"
    env |= {
        "YARD_MONGO_URL": f"mongodb://{login}@{address}/?authSource={owner.settings.database}&{options}",
        "KUBECONFIG": str(_deployers_kubeconfig(cluster, folder)),
    }
    os.environ["KUBECONFIG"] = env["KUBECONFIG"]
    yard = Yard(read_settings(env, folder))
    try:
        for number, config in ((1, "C=0.01"), (2, "C=0.02")):
            trains = [YARD, "train", "tumor", config]
            done = subprocess.run(trains, cwd=folder, env=env | roots, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            version = owner.request(number)
            owner.approve(version.ref, "a test", "champion" if number == 1 else "challenger")
            yard.build(version.ref, Until.PUSH)
        _, token = yard.issue_key("tester", SCOPES)
        running = Production(folder, cluster, engine, yard, env, gateway, token, owner)
        wait_until(lambda: not yard.late_gateways(), 30)
        yield running
    finally:
        yard.close()
        owner.close()


def _secret(cluster: OwnCluster, name: str, key: str) -> str:
    found = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "secret", name, "-o", "json"))
    return base64.b64decode(found["data"][key]).decode()


def _deployers_kubeconfig(cluster: OwnCluster, folder: Path) -> Path:
    """Of the service account that has a role in its namespace and nothing else."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    secrets = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "secrets", "-o", "json"))["items"]
    [token] = [
        base64.b64decode(each["data"]["token"]).decode()
        for each in secrets
        if each["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == "deployer"
    ]
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    file = folder / "deployer.yaml"
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o600)
    return file
