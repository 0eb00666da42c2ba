"""The image's packages, by its own Python, are those of the lock."""

import json

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.checks.packages import compared
from modelyard_build.images.engine import ServedImage

_ASK = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def check(served: ServedImage, subject: Subject) -> Finding:
    done = served.container.exec_run([served.image["Config"]["Entrypoint"][0], "-c", _ASK])
    return compared("image packages", json.loads(done.output), subject)
