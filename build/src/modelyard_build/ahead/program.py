"""The program: what train.py and the files beside it say about the run they would make, read off without running them.

A decorated main function runs where it is decorated, so nothing here is imported.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelyard_build.ahead.draft import TRAIN, Draft
from modelyard_build.checks.finding import Finding

_MAIN = ("automain", "main")


@dataclass(frozen=True, slots=True)
class Program:
    """What was read. Where a name is worked out at run time, it cannot be told, and nothing is claimed of it."""

    experiments: tuple[str | None, ...]  # the names given to Experiment(...); None: cannot be told
    main: ast.FunctionDef | None
    holdout: bool
    calls: frozenset[str]  # the methods that are called: save_model, dataset, ...
    evaluations: Mapping[str, frozenset[str]]  # name -> the arguments given
    all_evaluations_known: bool
    texts: frozenset[str]  # every text constant

    @property
    def result(self) -> frozenset[str] | None:
        """The keys of what main returns; None: cannot be told."""
        if self.main is None:
            return None
        keys = _returned(self.main)
        return keys if keys is None or not self.holdout else keys | {"holdout"}


def read_program(draft: Draft) -> Program | None:
    """The program of a project; None where train.py is missing, or no Python."""
    if TRAIN not in draft.sources:
        return None
    train = draft.sources[TRAIN]
    functions = [node for node in ast.walk(train) if isinstance(node, ast.FunctionDef)]
    calls = [node for tree in draft.sources.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    evaluations = [call for call in calls if _called(call) == "evaluation"]
    named = [(_text(_argument(call, "name")), call) for call in evaluations]
    return Program(
        tuple(_text(_argument(call, "name")) for call in ast.walk(train) if _is_experiment(call)),
        next((function for function in functions if _decorated(function, *_MAIN)), None),
        any(_decorated(function, "holdout") for function in functions),
        frozenset(_called(call) for call in calls),
        {name: frozenset(keyword.arg or "**" for keyword in call.keywords) for name, call in named if name},
        all(name for name, _ in named),
        frozenset(
            node.value
            for tree in draft.sources.values()
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ),
    )


def check(draft: Draft) -> Iterator[Finding]:
    """train.py defines an experiment of this name, with a main function that saves its model and names its data."""
    faults = list(_faults(draft))
    for text, remedy in faults:
        yield Finding(TRAIN, False, text, remedy)
    if not faults:
        files = ", ".join(sorted(draft.sources))
        yield Finding(TRAIN, True, f"defines the experiment {draft.name}; read and not run: {files}")


def _faults(draft: Draft) -> Iterator[tuple[str, str]]:
    for file, why in draft.broken.items():
        yield f"{file} is no Python: {why}", "Mend it."
    found = read_program(draft)
    if found is None:
        if TRAIN not in draft.broken:
            yield f"{draft.folder / TRAIN} is missing", "It is where the project's experiment is defined."
        return
    if not found.experiments:
        yield "it defines no experiment", f'from modelyard import Experiment; ex = Experiment("{draft.name}")'
    for name in found.experiments:
        if name is not None and name != draft.name:
            yield f"its experiment is called {name!r}, not {draft.name!r}", f'Write:  Experiment("{draft.name}")'
    if found.main is None:
        yield "it has no main function", "Decorate the one that trains with @ex.automain."
    for method, remedy in (
        ("save_model", "Call ex.save_model(model, examples=rows) in it: without a model there is nothing to approve."),
        ("dataset", 'Call ex.dataset("train", frame) in it: the run records by digest what it learnt from.'),
    ):
        if method not in found.calls:
            yield f"it never calls {method}()", remedy
    if found.holdout and "hand_over" not in found.calls:
        yield "it has a holdout, and never hands a model over to it", "Add at the end of main:  ex.hand_over(model)"


def _is_experiment(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _called(node) == "Experiment"


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _argument(call: ast.AST, name: str) -> ast.expr | None:
    """The first argument, which is also called `name`."""
    if not isinstance(call, ast.Call):
        return None
    return next((k.value for k in call.keywords if k.arg == name), call.args[0] if call.args else None)


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _decorated(function: ast.FunctionDef, *names: str) -> bool:
    return any(isinstance(d, ast.Attribute) and d.attr in names for d in function.decorator_list)


def _returned(main: ast.FunctionDef) -> frozenset[str] | None:
    """The keys of the dictionaries that a function returns, as far as they are written down in it."""
    nodes = list(_own_nodes(main))
    keys: frozenset[str] = frozenset()
    for node in nodes:
        if isinstance(node, ast.Return) and node.value is not None:
            more = _keys(node.value, nodes)
            if more is None:
                return None
            keys |= more
    return keys


def _keys(value: ast.expr, nodes: list[ast.AST]) -> frozenset[str] | None:
    if isinstance(value, ast.Dict):
        written = [_text(key) for key in value.keys]
        return None if None in written else frozenset(key for key in written if key)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict" and not value.args:
        given = [keyword.arg for keyword in value.keywords]
        return None if None in given else frozenset(key for key in given if key)
    return _keys_of_variable(value.id, nodes) if isinstance(value, ast.Name) else None


def _keys_of_variable(name: str, nodes: list[ast.AST]) -> frozenset[str] | None:
    """Those of a variable that is given dictionaries and further keys, one by one, and otherwise only read."""
    found: list[frozenset[str] | None] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if _is(target, name):
                    found.append(_keys(node.value, []))
                elif isinstance(target, ast.Subscript) and _is(target.value, name):
                    key = _text(target.slice)
                    found.append(frozenset([key]) if key else None)
        elif (isinstance(node, ast.AugAssign) and _is(node.target, name)) or (
            isinstance(node, ast.Attribute) and _is(node.value, name) and node.attr not in _READING
        ):
            return None
    known = [keys for keys in found if keys is not None]
    return frozenset().union(*known) if known and len(known) == len(found) else None


_READING = ("items", "keys", "values", "get", "copy")


def _is(node: ast.AST, variable: str) -> bool:
    return isinstance(node, ast.Name) and node.id == variable


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Everything in a function but what lies in functions within it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
