"""Several processes share the tests: which stay together, and which come first."""

from xdist.scheduler import LoadScopeScheduling

_TOGETHER = {
    "road": (
        *("system/test_refusals.py", "system/test_road.py", "system/test_faults.py", "system/test_stack.py"),
        *("system/test_build.py", "system/test_smoke.py", "system/test_caller.py", "jenkins/test_house.py"),
    ),
    # Each starts a Ray of its own, which gives up where it does not come up within 30 s: not several at once.
    "ray": ("system/test_sweeps.py", "system/test_ray_cluster.py", "tracking/test_search.py"),
}
_APART = "tests/system/test_stack.py::test_ctrl_c"  # long, and nothing of the road


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests run in one process, and so do those of some files together."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(_APART):
            return nodeid
        file = nodeid.partition("::")[0]
        return next((name for name, files in _TOGETHER.items() if file.removeprefix("tests/") in files), file)


def turn(nodeid: str) -> int:
    """What takes long comes first, so that no process is alone with it at the end."""
    file = nodeid.partition("::")[0].removeprefix("tests/")
    for place, files in enumerate(_TOGETHER.values()):
        if file in files:
            return place + nodeid.startswith(_APART) * len(_TOGETHER)
    return len(_TOGETHER) + (not file.startswith("system/"))
