"""The image serves from a read-only root file system, and its user could not write there if it were not."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage

_TRY = """
import os
writable = [folder for folder, _, names in os.walk("/app") if os.access(folder, os.W_OK)
            or any(os.stat(f"{folder}/{name}", follow_symlinks=False).st_uid == os.getuid() for name in names)]
try:
    open("/app/written", "w")
    writable.append("/app")
except OSError:
    pass
print("\\n".join(writable[:3]))
"""


def check(served: ServedImage, subject: Subject) -> Finding:  # noqa: ARG001 - the signature of every check
    python = served.image["Config"]["Entrypoint"][0]
    done = served.container.exec_run([python, "-c", _TRY])
    said = done.output.decode(errors="replace").strip()
    if done.exit_code == 0 and not said:
        return Finding("image root file system", True, "serves read-only; nothing of it belongs to its user")
    if done.exit_code == 0:
        message = f"its user may change {', '.join(said.splitlines())}"
    else:
        message = f"what may be written could not be found out: {said[-300:]}"
    return Finding("image root file system", False, message, "Build it again: its files belong to root.")
