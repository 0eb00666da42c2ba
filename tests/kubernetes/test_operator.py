"""The operator's page: every command on it is run, in its order, on the real stage of pods."""

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard import install
from modelyard import yard as yard_module
from modelyard.demo import holdout_rows
from modelyard_serving.gateway import desired
from modelyard_serving.kubernetes import cluster, why
from modelyard_serving.kubernetes import stage as kubernetes_stage
from places import REPOSITORY, TUMOR
from production import SCOPES, Production

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(900)]

PAGE = (REPOSITORY / "docs" / "operator.md").read_text()
WRITTEN = "http://gateway.example"  # the gateway's address as the page has it
BIN = Path(sys.executable).parent
MADE = ("key", "answer.json", "row.json", "signing-keys.tar", "k8s")  # by the page, or for it
SPEAK = (why, kubernetes_stage, cluster, desired, install, yard_module)  # whose sentences the table explains


def steps() -> list[str]:
    """Each command, in the page's order."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
def folder(stage: Production) -> Iterator[Path]:
    """The stage's repository with the files of `k8s/`, and the request that the page speaks of; git sees neither."""
    with (stage.folder / ".git" / "info" / "exclude").open("a") as excluded:
        excluded.writelines(f"/{name}\n" for name in MADE)
    (stage.folder / "k8s").symlink_to(REPOSITORY / "k8s")
    (stage.folder / "row.json").write_text(json.dumps({"rows": [holdout_rows(TUMOR)[0][1]]}))
    yield stage.folder
    for name in MADE:
        (stage.folder / name).unlink(missing_ok=True)
    stage.token = stage.yard.issue_key("tester", SCOPES)[1]  # the key that signed the one before has ended


def test_everything_on_the_page_works(stage: Production, folder: Path) -> None:
    engineer = stage.env | {"PATH": f"{BIN}:{os.environ['PATH']}", "ADMIN_URL": stage.owner.settings.mongo_url}
    administrator = engineer | {"KUBECONFIG": str(stage.cluster.kubeconfig)}
    assert len(steps()) > 30
    said = []
    for text in steps():
        env = administrator if text.startswith(("kubectl", "yard install")) else engineer
        command = ["bash", "-euo", "pipefail", "-c", text.replace(WRITTEN, f"http://{stage.gateway}")]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said.append((text, done.stdout + done.stderr))
    statuses = [of for text, of in said if text == "yard status"]
    assert "tumor-2: spec.replicas is 1 and should be 2" in statuses[-1]
    assert "spec.replicas" not in statuses[0]
    [rolled_back] = [of for text, of in said if text.startswith("yard rollback")]
    assert "tumor-1 is the champion of tumor again" in rolled_back
    [traced] = [of for text, of in said if "yard trace" in text]
    assert "every link holds" in traced
    assert json.loads((folder / "answer.json").read_text())["version"] == 1
    assert stage.yard.kubernetes_stage.drift(stage.yard.endpoints.deployments()) == []
    assert not stage.yard.late_gateways()


def test_the_sentences_of_the_table_are_what_is_said() -> None:
    [table] = re.findall(r"\| it says \|.*?\n\|[- |]+\n(.*?)\n\n", PAGE, re.DOTALL)
    sources = "\n".join(inspect.getsource(module) for module in SPEAK)
    sentences = [sentence for row in table.splitlines() for sentence in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in sources] == []


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"(?:`|^\$ )yard ([a-z]+)", PAGE, re.MULTILINE))
    done = subprocess.run([BIN / "yard", "--help"], capture_output=True, text=True, check=True)
    assert named <= set(re.findall(r"^  ([a-z]+)", done.stdout, re.MULTILINE))
