"""Hostile model folders: refused before any code of theirs runs. Each payload would leave a file behind."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
import pandas as pd
import pytest
import skops.io
import yaml
from onnx import TensorProto, helper
from scipy import sparse
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from modelyard_serving import model_files
from modelyard_serving.errors import Refused
from modelyard_serving.runtime.kinds import archive, estimator, graph, onnx_file, pickled
from modelyard_serving.runtime.model import TRUSTED_TYPES, load
from modelyard_tracking.digests import check_folder, write_index
from modelyard_tracking.errors import Refused as NotKept
from modelyard_tracking.layout import check_layout
from modelyard_tracking.saving import Golden, read_schema, write_model

X = pd.DataFrame(np.random.default_rng(7).normal(size=(40, 3)), columns=["a", "b", "c"])
FILES = {"sklearn": "model.skops", "onnx": "model.onnx", "pickle": "model.pkl"}


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What every payload would make."""
    return tmp_path / "the-payload-ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good scikit-learn model."""
    made = tmp_path / "model"
    made.mkdir()
    write_model(made, LogisticRegression().fit(X, X["a"] > 0), X.head(3), TRUSTED_TYPES)
    return made


class Payload:
    def __init__(self, ran: Path) -> None:
        self.command = f"touch {ran}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def as_kind(folder: Path, kind: str, content: bytes) -> str:
    """`content` as the model's file, indexed anew, as by an attacker who got an approval; gives the digest."""
    (folder / "mlflow" / "model.skops").unlink()
    (folder / "mlflow" / FILES[kind]).write_bytes(content)
    schema = read_schema(folder)
    (folder / "schema.json").write_bytes(orjson.dumps(schema | {"kind": kind}))
    return write_index(folder)


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], compress: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as made:
        for name, content in members:
            made.writestr(name, content, compress_type=compress)
    return out.getvalue()


def good_skops() -> bytes:
    return skops.io.dumps(LinearRegression().fit(X, X["a"]))


def affine(**more: Any) -> Any:
    """x + w, a graph of one operator."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    node = helper.make_node("Add", ["x", "w"], ["predict"], **more)
    value = helper.make_tensor_value_info
    inputs, outputs = value("x", TensorProto.FLOAT, ("n", 3)), value("predict", TensorProto.FLOAT, ("n", 3))
    made = helper.make_graph([node], "g", [inputs], [outputs], [weights])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


# the folder


def _tamper(folder: Path) -> None:
    file = folder / "mlflow" / "model.skops"
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])


def _remove(folder: Path) -> None:
    (folder / "mlflow" / "model.skops").unlink()


def _add(folder: Path) -> None:
    (folder / "mlflow" / "code").mkdir()
    (folder / "mlflow" / "code" / "sitecustomize.py").write_text("raise SystemExit")


def _swap(folder: Path) -> None:
    (folder / "mlflow" / "model.skops").write_bytes(good_skops())


def _link(folder: Path) -> None:
    file = folder / "mlflow" / "model.skops"
    file.rename(folder.parent / "elsewhere")
    file.symlink_to(folder.parent / "elsewhere")


def _link_folder(folder: Path) -> None:
    (folder / "mlflow").rename(folder.parent / "elsewhere")
    (folder / "mlflow").symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "mlflow" / "pipe")


def _traverse(folder: Path) -> None:
    (folder.parent / "outside").write_text("")
    index = folder / "SHA256SUMS"
    index.write_text(index.read_text() + f"{model_files.hashlib.sha256().hexdigest()}  ../outside\n")


def _no_index(folder: Path) -> None:
    (folder / "SHA256SUMS").unlink()


def _huge_index(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as index:
        index.truncate(2**40)  # a hole: it costs no disk, and reading it would cost all memory


CHANGES = [_tamper, _remove, _add, _swap, _link, _link_folder, _pipe, _traverse, _no_index, _huge_index]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_folder_that_is_not_byte_for_byte_what_was_approved_is_not_loaded(folder: Path, change) -> None:
    digest = write_index(folder)
    load(folder, "sklearn", digest)
    change(folder)
    with pytest.raises(Refused):
        load(folder, "sklearn", digest)
    if change is not _huge_index:
        with pytest.raises(NotKept):
            check_folder(folder, digest)


@pytest.mark.parametrize("change", [_link, _link_folder, _pipe], ids=lambda change: change.__name__)
def test_a_link_or_a_pipe_gets_no_digest_in_the_first_place(folder: Path, change) -> None:
    change(folder)
    with pytest.raises(NotKept, match="must be plain files"):
        write_index(folder)
    with pytest.raises(Refused, match=r"must be plain files"):
        model_files.digest_of(folder)


def test_an_index_that_names_files_outside_is_refused_though_its_own_digest_is_the_approved_one(folder: Path) -> None:
    write_index(folder)
    _traverse(folder)
    digest = model_files.hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    with pytest.raises(Refused, match="outside"):
        load(folder, "sklearn", digest)
    with pytest.raises(NotKept, match="outside"):
        check_folder(folder, digest)


def test_files_of_another_approved_model_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_model(other, LinearRegression().fit(X, X["a"]), X.head(3), TRUSTED_TYPES)
    digest, others = write_index(folder), write_index(other)
    for name in ("mlflow/model.skops", "SHA256SUMS"):
        one, two = (each / name for each in (folder, other))
        content = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(content)
    for place, sha256 in ((folder, digest), (other, others)):
        with pytest.raises(Refused):
            load(place, "sklearn", sha256)
        with pytest.raises(NotKept):
            check_folder(place, sha256)


def test_a_file_that_is_changed_between_its_hash_and_its_reading_is_not_parsed(folder: Path) -> None:
    write_index(folder)
    recorded = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    _swap(folder)
    name = "mlflow/model.skops"
    with pytest.raises(Refused, match="was changed while it was read"):
        model_files.read_verified(folder, name, recorded[name], 2**20)


@pytest.mark.parametrize("kind", FILES)
def test_a_file_above_its_limit_is_refused_without_being_read(folder: Path, kind: str) -> None:
    module = {"sklearn": estimator, "onnx": graph, "pickle": pickled}[kind]
    file = folder / "mlflow" / FILES[kind]
    with file.open("ab") as opened:
        opened.truncate(module.MAX_BYTES + 1)
    with pytest.raises(Refused, match="are not read"):
        model_files.read_verified(folder, f"mlflow/{FILES[kind]}", "0" * 64, module.MAX_BYTES)


@pytest.mark.parametrize(("name", "read"), [("schema.json", read_schema), ("golden.json", Golden.read)])
def test_what_lies_beside_the_model_is_bounded_too(folder: Path, name: str, read: Callable[[Path], Any]) -> None:
    with (folder / name).open("ab") as opened:
        opened.truncate(2**30)
    with pytest.raises(NotKept, match="are not read"):
        read(folder)
    (folder / name).write_text("[1, 2")
    with pytest.raises(NotKept, match="is not JSON"):
        read(folder)


# loaders of their own


def test_code_beside_the_model_is_refused_even_with_a_digest_that_fits(folder: Path, ran: Path) -> None:
    code = folder / "mlflow" / "code"
    code.mkdir()
    (code / "evil.py").write_text(f"import os\nos.system('touch {ran}')\n_load_pyfunc = print\n")
    _edit_mlmodel(folder, loader_module="evil", code="code")
    digest = write_index(folder)
    with pytest.raises(Refused, match=r"holds 'mlflow/code/evil\.py'"):
        load(folder, "sklearn", digest)
    with pytest.raises(NotKept, match=r"holds 'mlflow/code/evil\.py'"):
        check_layout(folder, "sklearn")
    assert not ran.exists()


@pytest.mark.parametrize("change", [{"loader_module": "evil"}, {"code": "code"}, {"loader_module": "mlflow.pytorch"}])
def test_an_mlmodel_with_a_loader_of_its_own_is_refused_and_never_read_by_the_runtime(
    folder: Path, ran: Path, tmp_path: Path, monkeypatch, change: dict[str, str]
) -> None:
    (tmp_path / "evil.py").write_text(f"import os\nos.system('touch {ran}')\n")
    monkeypatch.syspath_prepend(tmp_path)
    _edit_mlmodel(folder, **change)
    with pytest.raises(NotKept, match="names a loader or code of its own"):
        check_layout(folder, "sklearn")
    load(folder, "sklearn", write_index(folder))  # the runtime takes the skops file and nothing else
    assert not ran.exists()


def test_an_mlmodel_that_would_make_objects_is_refused(folder: Path, ran: Path) -> None:
    (folder / "mlflow" / "MLmodel").write_text(f"flavors: !!python/object/apply:os.system ['touch {ran}']\n")
    with pytest.raises(NotKept, match="cannot be read as an MLmodel"):
        check_layout(folder, "sklearn")
    assert not ran.exists()


def _edit_mlmodel(folder: Path, **change: str) -> None:
    file = folder / "mlflow" / "MLmodel"
    said = yaml.safe_load(file.read_text())
    said["flavors"]["python_function"] |= change
    file.write_text(yaml.safe_dump(said))


def test_a_good_folder_has_the_layout_of_its_kind(folder: Path) -> None:
    write_index(folder)
    check_layout(folder, "sklearn")
    with pytest.raises(NotKept, match="put forward as 'pickle'"):
        check_layout(folder, "pickle")


# pickles


@pytest.mark.parametrize("kind", ["sklearn", "onnx"])
def test_a_pickle_in_a_model_of_another_kind_is_not_unpickled(folder: Path, ran: Path, kind: str) -> None:
    digest = as_kind(folder, kind, pickle.dumps(Payload(ran)))
    with pytest.raises(Refused, match="is not loaded"):
        load(folder, kind, digest)
    assert not ran.exists()


def test_a_model_cannot_make_itself_a_pickle_only_its_manifest_can(folder: Path, ran: Path) -> None:
    digest = as_kind(folder, "pickle", pickle.dumps(Payload(ran)))
    assert read_schema(folder)["kind"] == "pickle"
    with pytest.raises(Refused, match=r"holds 'mlflow/model\.pkl', so it is no model of the kind sklearn"):
        load(folder, "sklearn", digest)
    assert not ran.exists()
    load(folder, "pickle", digest)
    assert ran.exists(), "the payload works, so the other tests show something"


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x05cnot.a.module\nx\n."])
def test_garbage_for_a_pickle_is_one_sentence(folder: Path, content: bytes) -> None:
    digest = as_kind(folder, "pickle", content)
    with pytest.raises(Refused, match=r"model\.pkl is not loaded"):
        load(folder, "pickle", digest)


# skops


def _skops_of(schema: dict[str, Any]) -> bytes:
    return zipped(("schema.json", orjson.dumps(schema | {"protocol": 2, "_skops_version": skops.__version__})))


def _node(module: str, name: str, loader: str, **more: Any) -> dict[str, Any]:
    return {"__module__": module, "__class__": name, "__loader__": loader, "__id__": 1, **more}


def _text(value: str) -> dict[str, Any]:
    return _node("builtins", "str", "JsonNode", content=orjson.dumps(value).decode(), is_json=True)


@pytest.mark.parametrize("loader", ["ReduceNode", "OperatorFuncNode", "FunctionNode", "TypeNode", "ObjectNode"])
def test_a_skops_file_that_names_a_call_of_its_own_is_refused(folder: Path, ran: Path, loader: str) -> None:
    arguments = _node("builtins", "tuple", "TupleNode", content=[_text(f"touch {ran}")])
    parts = {"reduce": {"args": arguments}, "attrs": arguments, "content": {"module_path": "os", "function": "system"}}
    digest = as_kind(folder, "sklearn", _skops_of(_node("os", "system", loader, constructor=_text("x"), **parts)))
    with pytest.raises(Refused, match="is not loaded"):
        load(folder, "sklearn", digest)
    assert not ran.exists()


def test_a_function_inside_an_estimator_is_refused_by_name(folder: Path, ran: Path) -> None:
    digest = as_kind(
        folder, "sklearn", skops.io.dumps(FunctionTransformer(os.system, kw_args={"command": f"touch {ran}"}))
    )
    with pytest.raises(Refused, match=r"types that are not trusted: posix\.system"):
        load(folder, "sklearn", digest)
    assert not ran.exists()


def test_a_module_that_only_the_file_names_is_not_even_imported(folder: Path, ran: Path, tmp_path, monkeypatch) -> None:
    (tmp_path / "evil_on_import.py").write_text(f"open({str(ran)!r}, 'w')\nclass Model: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    node = _node("evil_on_import", "Model", "ObjectNode", content=_text("x"))
    digest = as_kind(folder, "sklearn", _skops_of(node))
    with pytest.raises(Refused, match=r"not trusted: evil_on_import\.Model"):
        load(folder, "sklearn", digest)
    assert not ran.exists()
    assert "evil_on_import" not in sys.modules


def _symlink() -> zipfile.ZipInfo:
    link = zipfile.ZipInfo("1.npy")
    link.external_attr = 0o120777 << 16
    return link


def _bomb(size: int) -> tuple[str, bytes]:
    return "1.npy", bytes(size)


def _npz(size: int) -> bytes:
    return zipped(("data.npy", bytes(size)))


def _named(times: int) -> bytes:
    node = {
        "__loader__": "NdArrayNode",
        "__module__": "numpy",
        "__class__": "ndarray",
        "type": "numpy",
        "file": "1.npy",
    }
    return orjson.dumps({"content": [node] * times})


BOMBS = {
    "deflated zeros": lambda: (zipped(("schema.json", b"{}"), _bomb(2**28)), "more than 100 to 1"),
    "an archive in the archive": lambda: (zipped(("schema.json", b"{}"), ("1.npz", _npz(2**28))), "more than 100 to 1"),
    "an archive under a plain name": lambda: (
        zipped(("schema.json", b"{}"), ("1", _npz(2**28)), compress=zipfile.ZIP_STORED), "more than 100 to 1"),
    "one member named often": lambda: (
        zipped(("schema.json", _named(5000)), ("1.npy", os.urandom(2**20)), compress=zipfile.ZIP_STORED),
        "more than 4294967296 are not unpacked|more than 100 to 1"),
    "a huge schema": lambda: (_declaring("schema.json", 2**28), "schema.json has 268435456 bytes"),
    "a size beyond all": lambda: (_declaring("1.npy", 2**32 - 2, 2), "are not unpacked"),
    "very many members": lambda: (_many(), "members"),
    "a name that leads outside": lambda: (zipped(("schema.json", b"{}"), ("../../evil", b"")), "no plain file"),
    "an absolute name": lambda: (zipped(("schema.json", b"{}"), ("/etc/cron.d/evil", b"")), "no plain file"),
    "a name of two dots": lambda: (zipped(("schema.json", b"{}"), ("..", b"")), "no plain file"),
    "a Windows name": lambda: (zipped(("schema.json", b"{}"), ("C:evil", b"")), "no plain file"),
    "a link": lambda: (zipped(("schema.json", b"{}"), (_symlink(), b"/etc/passwd")), "no plain file"),
    "a name twice": lambda: (_twice(), "the same name"),
    "no schema": lambda: (zipped(("1.npy", b"")), "no schema.json"),
    "an unusual compression": lambda: (
        zipped(("schema.json", b"{}"), ("1.npy", b"1"), compress=zipfile.ZIP_LZMA), "unusual way"),
}  # fmt: skip


def _many() -> bytes:
    empty = ((str(number), b"") for number in range(archive.MAX_MEMBERS))
    return zipped(("schema.json", b"{}"), *empty, compress=zipfile.ZIP_STORED)


def _twice() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("schema.json", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("schema.json", b"{}")
    return out.getvalue()


def _declaring(name: str, size: int, times: int = 1) -> bytes:
    """An archive whose directory says that its members are of `size` bytes; they are of ten."""
    members = [(name if number == 0 else str(number), b"0123456789") for number in range(times)]
    content = bytearray(zipped(*members, *([("schema.json", b"{}")] if name != "schema.json" else []), compress=0))
    place = -1
    for _ in range(times):
        place = content.index(b"PK\x01\x02", place + 1)
        content[place + 24 : place + 28] = size.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_archive_that_is_a_trap_is_refused_before_skops_opens_it(folder: Path, bomb: str) -> None:
    content, why = BOMBS[bomb]()
    digest = as_kind(folder, "sklearn", content)
    before = _peak_bytes()
    with pytest.raises(Refused, match=why):
        load(folder, "sklearn", digest)
    assert _peak_bytes() - before < 2**27, "it was not unpacked"


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_member_with_more_in_it_than_the_directory_says_is_refused(folder: Path) -> None:
    content = bytearray(zipped(("schema.json", b"{}"), ("1.npy", os.urandom(2**20))))
    place = content.rindex(b"PK\x01\x02")
    content[place + 24 : place + 28] = (10).to_bytes(4, "little")
    digest = as_kind(folder, "sklearn", bytes(content))
    with pytest.raises(Refused, match="is not loaded: BadZipFile"):
        load(folder, "sklearn", digest)


@pytest.mark.parametrize(
    "content",
    [
        lambda: b"",
        lambda: b"garbage",
        lambda: b"PK\x05\x06" + bytes(18),
        lambda: good_skops()[:-30],
        lambda: good_skops()[100:],
        lambda: zipped(("schema.json", b"{")),
        lambda: zipped(("schema.json", b"[" * 100_000 + b"]" * 100_000)),
        lambda: zipped(("schema.json", b'"a text"')),
        lambda: zipped(("schema.json", b"\xff\xfe")),
        lambda: _skops_of({"__loader__": "NoSuchNode"}),
    ],
)
def test_garbage_for_skops_is_one_sentence(folder: Path, content: Callable[[], bytes]) -> None:
    digest = as_kind(folder, "sklearn", content())
    with pytest.raises(Refused, match=r"model\.skops is not loaded"):
        load(folder, "sklearn", digest)


def test_an_array_that_claims_to_be_larger_than_it_is_is_refused(folder: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good_skops())) as good, zipfile.ZipFile(out, "w") as made:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith(".npy"):
                header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
                content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
            made.writestr(name, content)
    with pytest.raises(Refused, match="is not loaded"):
        load(folder, "sklearn", as_kind(folder, "sklearn", out.getvalue()))


def test_honest_archives_pass() -> None:
    archive.check(good_skops())
    archive.check(skops.io.dumps(np.zeros(10**6)))
    archive.check(skops.io.dumps(sparse.random(1000, 1000, 0.01, format="csr")))
    archive.check(skops.io.dumps(LogisticRegression().fit(X, X["a"] > 0), compression=zipfile.ZIP_DEFLATED))


# ONNX


def _external(location: str) -> Any:
    made = affine()
    tensor = made.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "12"}.items():
        tensor.external_data.add(key=key, value=value)
    return made


def _within_if(inner: Any) -> Any:
    """The graph as a branch of an If."""
    made = affine()
    flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    branch = helper.make_graph(inner.graph.node, "b", [], inner.graph.output, inner.graph.initializer)
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "o", [], [helper.make_empty_tensor_value_info("z")]
    )
    node = helper.make_node("If", ["flag"], ["predict"], then_branch=branch, else_branch=other)
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.append(node)
    made.graph.initializer.append(flag)
    return made


def _constant_outside() -> Any:
    made = affine()
    tensor = _external("../../etc/passwd").graph.initializer[0]
    made.graph.node.insert(0, helper.make_node("Constant", [], ["w2"], value=tensor))
    return made


def _with_functions() -> Any:
    made = affine()
    opset = [helper.make_opsetid("", 18)]
    made.functions.append(
        helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("Neg", ["x"], ["y"])], opset)
    )
    return made


def _training() -> Any:
    made = affine()
    made.training_info.add()
    return made


def _message(field: int, content: bytes) -> bytes:
    """A field of the wire format that holds a message."""
    size, varint = len(content), b""
    while size > 0x7F:
        varint, size = varint + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([field << 3 | 2]) + varint + bytes([size]) + content


def _deep() -> bytes:
    content = b""
    for _ in range(10_000):  # a graph in an attribute of a node of a graph
        content = _message(1, _message(5, _message(6, content)))
    return affine().SerializeToString() + _message(7, content)


def _twice_located() -> bytes:
    """A tensor whose place is given twice, the second time as usual: protobuf would believe the last."""
    tensor = _external("../../etc/passwd").graph.initializer[0]
    raw = tensor.SerializeToString() + b"\x70\x00"
    made = affine()
    del made.graph.initializer[:]
    content = made.graph.SerializeToString() + _message(5, raw)
    made.ClearField("graph")
    return made.SerializeToString() + _message(7, content)


HOSTILE_GRAPHS = {
    "a tensor outside": (lambda: _external("../../etc/passwd"), "lies in another file"),
    "a tensor at an absolute path": (lambda: _external("/etc/passwd"), "lies in another file"),
    "a tensor beside the model": (lambda: _external("model.bin"), "lies in another file"),
    "a tensor outside, in a branch": (lambda: _within_if(_external("../../etc/passwd")), "lies in another file"),
    "a constant outside": (_constant_outside, "lies in another file"),
    "a place given twice": (_twice_located, "lies in another file"),
    "an operator of its own": (lambda: affine(domain="com.evil"), "'com.evil', which are not standard"),
    "one of onnxruntime's": (lambda: affine(domain="com.microsoft"), "'com.microsoft', which are not standard"),
    "one of its own, in a branch": (lambda: _within_if(affine(domain="com.evil")), "not standard"),
    "functions": (_with_functions, "functions of its own"),
    "a training graph": (_training, "a training graph"),
    "branches in branches": (_deep, "no ONNX file"),
}


@pytest.mark.parametrize("hostile", HOSTILE_GRAPHS)
def test_a_graph_that_reaches_beyond_itself_is_refused_before_onnxruntime_parses_it(folder: Path, hostile: str) -> None:
    make, why = HOSTILE_GRAPHS[hostile]
    content = made if isinstance(made := make(), bytes) else made.SerializeToString()
    with pytest.raises(Refused, match=why):
        onnx_file.check(content)
    digest = as_kind(folder, "onnx", content)
    with pytest.raises(Refused, match=r"model\.onnx is not loaded"):
        load(folder, "onnx", digest)


@pytest.mark.parametrize(
    "model", [_external("../../etc/passwd"), affine(domain="com.evil"), _with_functions(), _within_if(_external("x"))]
)
def test_such_a_graph_is_not_saved_either(tmp_path: Path, model: Any) -> None:
    with pytest.raises(NotKept):
        write_model(tmp_path / "model", model, X.head(3), TRUSTED_TYPES)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"ORTM" * 100,
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\xff" * 50,
        b"\x3a\x00",
        affine().SerializeToString()[:60],
        affine().SerializeToString() + b"\x0b",
        helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(),
    ],
    ids=range(9),
)
def test_garbage_for_onnx_is_one_sentence(folder: Path, content: bytes) -> None:
    digest = as_kind(folder, "onnx", content)
    with pytest.raises(Refused, match=r"model\.onnx is not loaded"):
        load(folder, "onnx", digest)(X.head(2), ["predict"])


def test_the_walk_finds_what_protobuf_finds_in_honest_graphs() -> None:
    for made in (affine(), _within_if(affine())):
        onnx.checker.check_model(made)
        onnx_file.check(made.SerializeToString())


# what never happens


def test_no_code_of_ours_loads_a_model_through_mlflow_or_unpickles_but_in_one_place() -> None:
    import ast

    from places import REPOSITORY

    found = []
    for file in sorted(REPOSITORY.glob("*/src/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            last = name.rpartition(".")[2]
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            unpickles = name.startswith(("pickle.", "cloudpickle.", "joblib.", "dill.")) and last in ("load", "loads")
            if last in ("load_model", "load_pyfunc", "Unpickler") and not name.startswith("onnx."):
                found.append((file.name, name))
            if unpickles:
                found.append((file.name, name))
            found += [(file.name, each) for each in imported if each in ("load_model", "Unpickler", "joblib", "dill")]
    assert found == [("pickled.py", "pickle.loads")]


def test_the_runtime_imports_no_mlflow_and_only_what_its_kind_wants() -> None:
    listing = "import sys, modelyard_serving.runtime.app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "starlette" in loaded
    wants = {"mlflow", "onnxruntime", "onnx", "skops", "sklearn", "pandas", "modelyard_tracking", "torch"}
    assert not loaded & wants
