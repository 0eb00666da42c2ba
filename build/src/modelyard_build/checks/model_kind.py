"""What loading the model means: data that known code reads, or a pickle, which is code itself."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served

_MEANS = {
    "sklearn": "a scikit-learn estimator, loaded by skops with our own list of types",
    "onnx": "an ONNX graph of standard operators, computed by onnxruntime",
    "pickle": "A PICKLE: loading it runs code that came with it; project.toml allows that",
}


def check(served: Served, subject: Subject) -> Finding:
    said = served.http.get("/provenance").json().get("kind")
    kind = subject.manifest.kind
    if said == kind:
        return Finding("model kind", True, f"{kind}: {_MEANS[kind]}")
    return Finding("model kind", False, f"the bento serves {said!r}, not {kind!r}", "Build it again.")
