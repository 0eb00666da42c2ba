"""Experiment: Sacred's, with our home for runs and with what a run must record to be traced.

Sacred's habits stay: `@ex.config`, `with lr=0.1`, named configs, `_run.log_scalar`, plain `python train.py`.
What we add lies in the run's `info.modelyard`, so that Omniboard and other readers of Sacred's schema are
not surprised. A run is written to the spool first; MongoDB may be away for a while, or for all of it.
"""

import importlib.util
import inspect
import logging
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pymongo.errors import PyMongoError

from modelyard_tracking import origin
from modelyard_tracking.digests import text_sha256
from modelyard_tracking.errors import Refused, TrackingError, Unavailable
from modelyard_tracking.evaluation import keep_evaluation
from modelyard_tracking.kinds.servable import SERVED_WITH
from modelyard_tracking.project import LOCK, allows_pickle, load_project
from modelyard_tracking.recording.capture import captured, default_mode
from modelyard_tracking.recording.spool import RunFolder, Spool
from modelyard_tracking.recording.upload import RunUpload, prepare
from modelyard_tracking.recording.uploader import ensure_uploader
from modelyard_tracking.saving import write_model
from modelyard_tracking.store import Home

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # sacred 0.8.7 imports pkg_resources, which warns of its end
    import sacred
    from sacred.dependencies import Source, gather_sources_and_dependencies, get_sources_from_local_dir
    from sacred.run import Run

    from modelyard_tracking.recording.observer import SpoolObserver, sigterm_interrupts

log = logging.getLogger(__name__)

BEAT_S = 2.0  # how often `info` and `result` are looked at; points and output do not wait for it
_SACREDS_BEAT_S = sacred.SETTINGS.DEFAULT_BEAT_INTERVAL
PATIENCE_S = 6.0  # how long a run that is over waits for its upload while nothing of it arrives
SHARE_PATIENCE_S = 20.0  # how long it waits for its files to be in the shared store


class Conductor(Protocol):
    """A sweep, as one of its runs meets it."""

    @property
    def scores_holdout(self) -> bool: ...

    @property
    def waits_for_upload(self) -> bool:
        """False where somebody else waits for the runs of all trials together."""

    @property
    def code(self) -> origin.GitState | None:
        """As the sweep found it once for all of its runs; workers may have the code without its repository."""

    def report(self, run: Run, step: int, value: float, checkpoint: Path | None) -> None: ...

    def checkpoint(self) -> Path | None: ...


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
        self._observer: SpoolObserver | None = None
        self._captured = ExitStack()
        self._capture_mode = "no"
        self._home = home
        self._conductor: Conductor | None = None  # of the sweep that this run belongs to
        self._holdout: Callable[[Any], Any] | None = None
        self._handed_over: Any = None
        self.scores_holdout = True  # False where a trial is run again outside of its sweep
        self._trusted_types = trusted_types

    def run(self, *args: Any, info: dict[str, Any] | None = None, **kwargs: Any) -> Run:
        """Run as Sacred does, recorded in the spool and from there in MongoDB.

        The run's `_id` is its number; where MongoDB did not answer, it is its name in the spool, a text.

        Raises:
            Refused: the environment is not the project's locked one, the configuration is too large to be stored, or
                there is no room for the spool; said before any training is done.
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
        with _neighbours(Path(self.base_dir)), sigterm_interrupts():
            base = Path(self.base_dir)
            state = self._conductor.code if self._conductor is not None else origin.git_state(base)
            self._tell_sources(state)
            recorded = {**(info or {})}
            ours = {**self._origin(home, state), "datasets": {}, "evaluations": {}, "model": None}
            recorded["modelyard"] = ours | recorded.get("modelyard", {})
            folder = Spool(home.spool).new()
            self._capture_mode = "no"
            self._handed_over = None
            patch = state.patch if state else b""
            self._observer = SpoolObserver(folder, recorded, patch, self._begin, self._keep_uploading)
            self.observers.append(self._observer)
            try:
                return super().run(*args, info=recorded, **kwargs)
            finally:
                self._captured.close()
                self.observers.remove(self._observer)
                self._observer.close()
                self._observer = None
                if self._conductor is None or self._conductor.waits_for_upload:
                    if folder.exists:
                        self._deliver(folder)
                    self._share(home)

    def _create_run(self, *args: Any, **kwargs: Any) -> Run:
        run = super()._create_run(*args, **kwargs)
        if self._observer is not None and not run.unobserved:
            self._observer.attach(run)
            run.post_run_hooks = [*run.post_run_hooks, self._score_holdout]
            if run.beat_interval == _SACREDS_BEAT_S:
                run.beat_interval = BEAT_S
            run.capture_mode = run.capture_mode or default_mode()
            if run.captured_out_filter is None:  # where there is a filter, Sacred captures and the filter decides
                self._capture_mode, run.capture_mode = run.capture_mode, "no"
        return run

    def _begin(self, folder: RunFolder) -> int | None:
        """The run has started: capture what it prints, and have it numbered by MongoDB, if that answers."""
        self._captured.enter_context(captured(self._capture_mode, folder.output))
        home = self._home()
        run_id = None
        try:
            with home.connected() as db, folder.uploading() as mine:
                if self._conductor is None:  # a sweep has prepared it
                    prepare(db)
                run_id = RunUpload(folder, db).begin() if mine else None
        except (Unavailable, PyMongoError) as error:
            log.warning(
                "%s\nTraining goes on; the run is kept in %s. Bring it up later:  yard runs push",
                str(error).partition("\n")[0],
                folder.path,
            )
        ensure_uploader(home)
        return run_id

    def _keep_uploading(self) -> None:
        ensure_uploader(self._home())  # asked anew: the password of a MongoDB may have been made or changed since

    def _deliver(self, folder: RunFolder) -> None:
        """Wait until the run that is over has arrived in MongoDB, as long as something of it does."""
        moved_at = ensured_at = time.monotonic()
        progress = folder.progressed_at()
        self._keep_uploading()
        while folder.exists:
            if time.monotonic() - ensured_at > 1:
                self._keep_uploading()
                ensured_at = time.monotonic()
            if folder.progressed_at() != progress:
                moved_at, progress = time.monotonic(), folder.progressed_at()
            if time.monotonic() - moved_at > PATIENCE_S:
                log.warning("The run is not in MongoDB yet. It is kept in %s.\nBring it up:  yard runs push", folder)
                return
            time.sleep(0.01)
        run = self.current_run
        if run is not None and not isinstance(run._id, int):
            with suppress(TrackingError, PyMongoError), self._home().connected() as db:
                found = db.runs.find_one({"info.modelyard.uuid": folder.uuid}, {"_id": 1})
                run._id = found["_id"] if found else run._id

    def _share(self, home: Home) -> None:
        """Wait until the run's files are in the shared store, if there is one, but not for long."""
        if home.shared is None or self.current_run is None:
            return
        ours = self.current_run.info["modelyard"]
        digests = [facts["sha256"] for facts in ours["datasets"].values()]
        digests += [ours["lock_sha256"] or "", (ours["model"] or {}).get("sha256", "")]
        if problem := home.files.wait_until_shared(digests, SHARE_PATIENCE_S):
            log.warning("%s\nThe files are kept in %s. Bring them up later:  yard runs push", problem, home.artifacts)

    def report(self, step: int, value: float, checkpoint: Path | str | None = None) -> None:
        """Say how far training is: the project's metric at a step, counted from 1 up to the sweep's `max_steps`.

        It is logged under the metric's name. In a sweep the scheduler may end the trial here, by an exception that
        derives from SacredInterrupt: let it pass.

        Args:
            checkpoint: a folder with what training needs to go on from here; see `checkpoint()`.
        """
        run = self._running("report")
        run.log_scalar(self._metric_name(), value, step)
        if self._conductor is not None:
            self._conductor.report(run, step, float(value), Path(checkpoint) if checkpoint else None)

    def checkpoint(self) -> Path | None:
        """The folder of the last checkpoint of this trial, if it is being continued; None at a first start."""
        return self._conductor.checkpoint() if self._conductor is not None else None

    def hand_over(self, model: Any) -> None:
        """Give the trained model to the function that scores the holdout; in the main function, at its end."""
        self._handed_over = model

    def holdout(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Decorate the function that scores a model on rows that no trial may see.

        It gets what the main function handed over, and gives one number, the project's metric, which becomes `holdout`
        in the run's result. It is called after the main function of every run but a sweep's trials. Choose by another
        number: what is chosen by the holdout is flattered by it, too.
        """
        self._holdout = function
        return function

    def _metric_name(self) -> str:
        folder = Path(self.base_dir)
        if not (folder / "project.toml").is_file():
            return "metric"
        return load_project(folder.parent, folder.name).metric.name

    def _score_holdout(self) -> None:
        """Add the holdout's score to the result; a hook of Sacred's, after the main function."""
        run = self.current_run
        if run is None or self._holdout is None or run.meta_info.get("command") != self.default_command:
            return
        if not self.scores_holdout or (self._conductor is not None and not self._conductor.scores_holdout):
            return
        if self._handed_over is None:
            raise Refused("There is a holdout, but main handed no model over. Add at its end:  ex.hand_over(model)")
        result = run.result if isinstance(run.result, dict) else {"result": run.result}
        run.result = {**result, "holdout": float(self._holdout(self._handed_over))}

    def dataset(self, name: str, data: pd.DataFrame | Path | str) -> Any:
        """Record that this run used `data`, by digest, and keep a copy; gives `data` back.

        Args:
            data: a DataFrame (see `digests` for what its digest covers), or the path of a file (the sha256 of its
                bytes; a copy is kept up to `store.MAX_KEPT_BYTES`).
        """
        run = self._running("dataset")
        files = self._home().files
        if isinstance(data, pd.DataFrame):
            facts = {"sha256": files.keep_frame(data), "rows": len(data), "columns": len(data.columns)}
        else:
            path = Path(data)
            if not path.is_file():
                raise Refused(f"dataset({name!r}): {path} is not a file. Give a DataFrame, or the path of one file.")
            facts = {"sha256": files.keep_file(path), "bytes": path.stat().st_size, "path": str(path.resolve())}
        run.info["modelyard"]["datasets"][name] = facts
        return data

    def evaluation(
        self,
        name: str,
        *,
        truth: Any,
        prediction: Any,
        positive: Any = None,
        slices: pd.DataFrame | None = None,
        keys: Any = None,
        data: str | None = None,
    ) -> None:
        """Record what the model answered on rows whose truth is known, so that versions can be compared row by row.

        Args:
            name: what gates and comparisons in project.toml call it; also the data set's name, see `data`.
            truth, prediction: one a row, in the order of the data set's rows: labels or numbers, or, with
                `positive`, the probability of that class.
            slices: one column for each way to tell groups of rows apart, such as an age group.
            keys: what names each row, for rows that stay comparable when the data set gets other columns; only their
                digest is kept.
            data: the data set that the rows are of, recorded by `ex.dataset` before; by default the one called `name`.

        Raises:
            Refused: the parts do not belong together. What the values are worth is judged by `yard request`.
        """
        ours = self._running("evaluation").info["modelyard"]
        ours["evaluations"][name] = keep_evaluation(
            self._home().files,
            name,
            ours["datasets"],
            truth=truth,
            prediction=prediction,
            positive=positive,
            slices=slices,
            keys=keys,
            data=data,
        )

    def save_model(self, model: Any, *, examples: pd.DataFrame, trained: Any = None) -> str:
        """Store `model` with golden rows taken from `examples`, bind it to this run, and give its sha256.

        Args:
            model: a scikit-learn estimator; or an ONNX graph as ModelProto, bytes, path or torch.onnx.export's result.
            trained: of an ONNX graph, what it was made from. Its predict() and predict_proba() give the golden answers,
                so that the build finds an export that answers otherwise; its classes_ name the classes.

        Raises:
            Refused: the model could not be served; see `saving.write_model`.
        """
        run = self._running("save_model")
        files = self._home().files
        project = Path(self.base_dir)
        pickled_for = project if allows_pickle(project) else None
        with files.new_model() as folder:
            schema = write_model(folder, model, examples, self._trusted_types, trained=trained, pickled_for=pickled_for)
            origin.check_locked(project / LOCK, SERVED_WITH[schema["kind"]])
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
            "patch_sha256": text_sha256(state.patch) if state and state.patch else None,
            "left_out": list(state.left_out[:50]) if state else [],
            "folder": state.folder if state else str(folder),
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


def load_experiment(project_folder: Path, name: str = "train.py") -> Experiment:
    """The experiment that a file of a project defines, in a fresh module.

    Raises:
        Refused: there is no such file, or it defines no Modelyard experiment.
    """
    file = project_folder / name
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise Refused(f"{file} is missing: it is where the project's experiment is defined.")
    for neighbour in project_folder.glob("*.py"):
        sys.modules.pop(neighbour.stem, None)  # another project's, or an older state of this one's
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    with _neighbours(project_folder):
        spec.loader.exec_module(module)
    found = [value for value in vars(module).values() if isinstance(value, Experiment)]
    if not found:
        raise Refused(f"{file} defines no experiment. Add:  from modelyard import Experiment; ex = Experiment('NAME')")
    return found[0]
