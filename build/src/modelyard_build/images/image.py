"""Image: a checked bento upon a base image, as layers that are the same whenever they are made.

The Dockerfile runs nothing and reaches no network: the environment is the one that the bento was checked in.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from modelyard_build.bento import Bento
from modelyard_build.images.engine import Base, Engine
from modelyard_build.images.layers import Source, environment_files, folder_files, write_layer, write_layers
from modelyard_serving.local_stage import serve_command
from modelyard_serving.manifest import Manifest
from modelyard_tracking.digests import text_sha256

LABEL = "io.modelyard."
PORT = 3000
USER = "10001:10001"  # nobody's: no image has it among its own
ENVIRONMENT, _BENTO = "app/environment", "app/bento"
_OWN_LAYER = ("model", "manifest.json", "requirements.lock")  # below the bento's src: each a layer of its own
_RECIPE = 2  # of the environment's layer: another number, another layer


def make_image(
    engine: Engine, base: Base, python: str, bento: Bento, environment: Path, labels: Mapping[str, str]
) -> tuple[str, Mapping[str, str]]:
    """Build the image of a bento; gives its id, and the digests of its layers by what they hold.

    Args:
        python: version of the environment's interpreter, such as 3.11.

    Raises:
        Refused: the base has no such Python.
        Unavailable: the engine could not.
    """
    source = bento.path / "src"
    parts: dict[str, dict[str, Source]] = {
        name: {f"{_BENTO}/src/{name}": source / name}
        if (source / name).is_file()
        else folder_files(source / name, f"{_BENTO}/src/{name}")
        for name in _OWN_LAYER
    }
    taken = {name for files in parts.values() for name in files}
    rest = folder_files(bento.path, _BENTO)
    parts["bento"] = {name: file for name, file in rest.items() if name not in taken}
    with tempfile.TemporaryDirectory(prefix="yard-image-") as scratch:
        layers = write_layers(Path(scratch), parts)
        start = _environment_image(engine, base, python, environment, Path(scratch))
        image = engine.build(_dockerfile(start, tuple(layers), bento), layers, labels)
    found = engine.layers(image)
    return image, dict(zip(("environment", *parts), found[-1 - len(parts) :], strict=True))


def _environment_image(engine: Engine, base: Base, python: str, environment: Path, scratch: Path) -> str:
    """The base with the environment, which all images of one lock have in common; made once."""
    name = f"modelyard/environment:{text_sha256(f'{environment.name} {base.id} {_RECIPE}'.encode())[:16]}"
    if image := engine.id_of(name):
        return image
    layer = scratch / "environment.tar"
    write_layer(layer, environment_files(environment, ENVIRONMENT, engine.interpreter(base, python)))
    image = engine.build(f"FROM {base.id}\nADD environment.tar /\n", {layer.name: layer}, {})
    engine.tag(image, name)
    return image


def _dockerfile(start: str, layers: tuple[str, ...], bento: Bento) -> str:
    command = serve_command(Path("/", ENVIRONMENT), Path("/", _BENTO), PORT, "0.0.0.0")  # noqa: S104 - in a container
    variables = {
        "BENTOML_HOME": "/tmp/bentoml",  # noqa: S108 - the one place of a container that can be written
        "BENTOML_DO_NOT_TRACK": "True",
        "HOME": "/tmp",  # noqa: S108
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "YARD_BENTO_SHA256": bento.sha256,
    }
    lines = [f"FROM {start}", *(f"ADD {layer} /" for layer in layers)]
    lines += [f"ENV {name}={value}" for name, value in variables.items()]
    words = ", ".join(f'"{word}"' for word in command)
    return "\n".join([*lines, f"USER {USER}", "WORKDIR /", f"EXPOSE {PORT}", f"ENTRYPOINT [{words}]", "CMD []", ""])


def labels_of(manifest: Manifest, bento: Bento, report_sha256: str, base: Base, source: str) -> dict[str, str]:
    """What the image says of itself to whoever has no Modelyard: OCI's own labels, and ours.

    Args:
        source: address of the repository that the run's commit is in; empty if nobody knows.
    """
    ours = {
        "model": manifest.model,
        "run": str(manifest.run_id),
        "git-dirty": str(manifest.dirty).lower(),
        "data-sha256": ",".join(manifest.data_sha256),
        "lock-sha256": manifest.lock_sha256,
        "model-sha256": manifest.model_sha256,
        "evidence-sha256": manifest.evidence_sha256,
        "approved-by": manifest.approved_by,
        "ledger-head": manifest.ledger,
        "bento-tag": bento.tag,
        "bento-sha256": bento.sha256,
        "report-sha256": report_sha256,
        "protocols": "native,open-inference-v2,mlflow-invocations",
    }
    oci = {
        "title": manifest.model,
        "version": str(manifest.version),
        "revision": manifest.commit,
        "source": source,
        "description": f"{manifest.model}:{manifest.version}, built and checked by Modelyard",
        "base.name": base.ref.partition("@")[0],
        "base.digest": base.digest.partition("@")[2] or base.id,
    }
    found = {f"org.opencontainers.image.{key}": value for key, value in oci.items()}
    return {
        **{key: value for key, value in found.items() if value},
        **{LABEL + key: value for key, value in ours.items()},
    }
