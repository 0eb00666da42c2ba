"""Experiment: Sacred's, with our home for runs and with what a run must record to be traced.

Sacred's habits stay: `@ex.config`, `with lr=0.1`, named configs, `_run.log_scalar`, plain `python train.py`.
What we add lies in the run's `info.modelyard`, so that Omniboard and other readers of Sacred's schema are
not surprised.
"""

import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from modelyard_tracking import origin
from modelyard_tracking.errors import Refused, TrackingError
from modelyard_tracking.project import LOCK
from modelyard_tracking.saving import write_model
from modelyard_tracking.store import Home

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sacred 0.8.7 imports pkg_resources, which warns of its end
    import sacred
    from sacred.dependencies import Source, gather_sources_and_dependencies, get_sources_from_local_dir
    from sacred.observers import MongoObserver
    from sacred.run import Run


class Experiment(sacred.Experiment):  # type: ignore[misc]
    """A Sacred experiment whose runs go to `home()`.

    Args:
        name: the project's name.
        home: gives the database and the files; called when a run starts, so that importing needs neither.
        trusted_types: see `saving.write_model`.
    """

    def __init__(self, name: str, home: Callable[[], Home], trusted_types: Collection[str] = ()) -> None:
        caller = _first_frame_outside_modelyard()
        super().__init__(name, interactive=True, save_git_info=False)
        # Sacred looks one frame up for the file it belongs to and finds this one: tell it the right one.
        file = caller.get("__file__")
        if file:
            self.base_dir = str(Path(file).resolve().parent)
            self.doc = caller.get("__doc__") or ""
            self.mainfile, self.sources, self.dependencies = gather_sources_and_dependencies(
                caller, False, self.base_dir
            )
            if (Path(self.base_dir) / "project.toml").is_file():
                # Sacred overlooks modules that are imported late, or named like one of its black list ("data").
                self.sources |= get_sources_from_local_dir(caller, self.base_dir, False)
        self._at_terminal = False
        self._home = home
        self._trusted_types = trusted_types

    def run(self, *args: Any, info: dict[str, Any] | None = None, **kwargs: Any) -> Run:
        """Run as Sacred does, observed by MongoDB.

        Raises:
            Unavailable: MongoDB does not answer; said before any training is done.
            Refused: the project has no lock, or the environment is not the locked one.
        """
        command = args[0] if args else kwargs.get("command_name")
        if command and getattr(self.commands.get(command), "unobserved", False):
            return super().run(*args, info=info, **kwargs)  # print_config and its like make no run
        try:
            return self._observed_run(*args, info=info, **kwargs)
        except TrackingError as error:
            if self._at_terminal:
                sys.exit(f"{self.path}: {error}")  # a sentence, not the traceback that Sacred would print
            raise

    def run_commandline(self, argv: list[str] | None = None) -> Run | None:
        self._at_terminal = True
        try:
            return super().run_commandline(argv)
        finally:
            self._at_terminal = False

    def _observed_run(self, *args: Any, info: dict[str, Any] | None, **kwargs: Any) -> Run:
        home = self._home()
        with home.connected() as db, _neighbours(Path(self.base_dir)):
            state = origin.git_state(Path(self.base_dir))
            self._tell_sources(state)
            recorded = {"modelyard": {**self._origin(home, state), "datasets": {}, "model": None}}
            failures = str(home.artifacts / "sacred-failures")
            observer = MongoObserver(client=db.client, db_name=home.database, failure_dir=failures)
            self.observers.append(observer)
            try:
                return super().run(*args, info={**recorded, **(info or {})}, **kwargs)
            finally:
                self.observers.remove(observer)

    def dataset(self, name: str, frame: pd.DataFrame) -> pd.DataFrame:
        """Record that this run used `frame`, by digest, and keep a copy; gives the frame back."""
        run = self._running("dataset")
        run.info["modelyard"]["datasets"][name] = {
            "sha256": self._home().files.keep_frame(frame),
            "rows": len(frame),
            "columns": len(frame.columns),
        }
        return frame

    def save_model(self, model: Any, *, examples: pd.DataFrame) -> str:
        """Store `model` with golden rows taken from `examples`, bind it to this run, and give its sha256.

        Raises:
            Refused: the model could not be served; see `saving.write_model`.
        """
        run = self._running("save_model")
        files = self._home().files
        with files.new_model() as folder:
            schema = write_model(folder, model, examples, self._trusted_types)
            digest = files.keep_model(folder)
        run.info["modelyard"]["model"] = {"sha256": digest, "golden_rows": len(examples), **schema}
        return digest

    def _running(self, what: str) -> Run:
        if self.current_run is None or self.current_run.status != "RUNNING":
            raise Refused(f"{what}() belongs inside a run: call it from the experiment's main function.")
        return self.current_run

    def _tell_sources(self, state: origin.GitState | None) -> None:
        """Which commit the sources are of. Sacred would ask through GitPython, which leaves processes behind.

        Sacred lists a repository for each source that names one: let only the main file.
        """
        if state is not None and self.mainfile is not None:
            main = Source(self.mainfile.filename, self.mainfile.digest, state.url, state.commit, state.dirty)
            self.sources = {source for source in self.sources if source.filename != main.filename} | {main}

    def _origin(self, home: Home, state: origin.GitState | None) -> dict[str, Any]:
        folder = Path(self.base_dir)
        lock = folder / LOCK
        if lock.is_file():
            origin.check_environment(lock)
        return {
            "repository": state.url if state else None,
            "commit": state.commit if state else None,
            "dirty": state.dirty if state else True,
            "changes": list(state.changes[:50]) if state else ["not in a git repository with a commit"],
            "diff": state.diff[:1_000_000] if state else "",
            "folder": str(folder.relative_to(state.root)) if state else str(folder),
            "lock_sha256": home.files.keep_lock(lock) if lock.is_file() else None,
            "python": origin.python_version(),
        }


def _first_frame_outside_modelyard() -> dict[str, Any]:
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("modelyard", "modelyard_tracking"):
        frame = frame.f_back
    return frame.f_globals if frame else {}


@contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """The project's own modules can be imported, as they can for `python train.py`."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def load_experiment(project_folder: Path) -> Experiment:
    """The experiment that a project's train.py defines, in a fresh module.

    Raises:
        Refused: there is no train.py, or it defines no Modelyard experiment.
    """
    file = project_folder / "train.py"
    spec = importlib.util.spec_from_file_location("train", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise Refused(f"{file} is missing: it is where the project's experiment is defined.")
    for neighbour in project_folder.glob("*.py"):
        sys.modules.pop(neighbour.stem, None)  # another project's, or an older state of this one's
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    with _neighbours(project_folder):
        spec.loader.exec_module(module)
    found = [value for value in vars(module).values() if isinstance(value, Experiment)]
    if not found:
        raise Refused(f"{file} defines no experiment. Add:  from modelyard import Experiment; ex = Experiment('NAME')")
    return found[0]
