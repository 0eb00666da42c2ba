"""The image runs as nobody: its user is not root, and no process in it is."""

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.images.engine import ServedImage

_REMEDY = "Build it again from its own Dockerfile, which yard build writes: its last USER is not root."


def check(served: ServedImage, subject: Subject) -> Finding:  # noqa: ARG001 - the signature of every check
    user = served.image["Config"].get("User", "")
    if user.partition(":")[0] in ("", "0", "root"):
        return Finding("image user", False, f"its entry point runs as {user or 'root'}", _REMEDY)
    shown = served.container.top(ps_args="-eo uid,pid,args")
    column = shown["Titles"].index("UID")
    for process in shown["Processes"]:
        if process[column] == "0":
            return Finding("image user", False, f"a process in it runs as root: {' '.join(process)[:200]}", _REMEDY)
    return Finding("image user", True, f"runs as {user}, and so does every process in it")
