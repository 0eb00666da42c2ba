"""Bad requests, made from a model's signature: each must be refused, whatever the door.

Pure and deterministic: the same model gets the same requests in every build, another model others.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Any

from modelyard_build.checks.doors import DOORS, INFER, INVOCATIONS, PREDICT, Door
from modelyard_serving.manifest import Column, Manifest
from modelyard_serving.runtime.rows import MAX_ROWS

COUNT = 500
JSON = "application/json"
Row = Mapping[str, Any]

_NO_JSON = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "undefined", "None", "True"),
    *("'text'", "01", "+1", ".5", "1.", "0x1F", "1_000", "1e", "--1", "", "/* 1 */", '"\\x"', '"\t"', '"\\ud800"'),
)
_WRONG: dict[str, tuple[Any, ...]] = {
    "float64": (None, "seven", "1.5", "", "NaN", True, {}, {"value": 1}),
    "float32": (None, "seven", "1.5", "", "NaN", True, {}, 1e39, -1e300),
    "int64": (None, "7", "", True, 1.5, -0.1, 2**63, -(2**63) - 1, 10**30, {}),
    "bool": (None, "true", "", "no", 2, -1, 0.5, {}),
    "str": (None, 7, 1.5, True, False, {}, {"text": "a"}),
}
_OTHER_TYPES: tuple[tuple[str, bytes], ...] = (
    ("application/x-www-form-urlencoded", b"rows=1&rows=2"),
    ("multipart/form-data; boundary=x", b'--x\r\ncontent-disposition: form-data; name="rows"\r\n\r\n1\r\n--x--\r\n'),
    ("text/plain", b"seven"),
    ("text/html", b"<html></html>"),
    ("text/csv", b"no_such_column\n1\n"),
    ("text/csv", b'"never closed\n1,2,3\n'),
    ("application/xml", b"<?xml version='1.0'?><rows><row/></rows>"),
    ("application/octet-stream", b"\x00\x01\x02\x03"),
    ("application/vnd.apache.parquet", b"PAR1\x00\x00PAR1"),
    ("application/x-python-pickle", b"\x80\x04N."),
    ("image/png", b"\x89PNG\r\n\x1a\n"),
    ("", b"seven"),
    ("no type", b"\xff"),
)


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A body that nobody should get an answer to, and what is wrong with it."""

    what: str
    path: str
    content: bytes
    content_type: str = JSON


def bad_requests(manifest: Manifest, good: Row, count: int = COUNT) -> list[BadRequest]:
    """`count` of them for the model of `manifest`; `good` is a row that it takes."""
    random = Random(manifest.model_sha256)  # noqa: S311 - chosen by the model, not secret
    makers = [_Maker(door, manifest, good, random) for door in DOORS]
    known = [request for maker in makers for request in maker.known()]
    mutations = (random.choice(_MUTATIONS)(maker) for maker in cycle(makers))
    return list(islice((*known, *islice(mutations, max(0, count - len(known)))), count))


class _Maker:
    """Makes bad requests for one door."""

    def __init__(self, door: Door, manifest: Manifest, good: Row, random: Random) -> None:
        self.door, self.manifest, self.good, self.random = door, manifest, dict(good), random
        self.columns: Sequence[Column] = manifest.inputs
        self.path = door.address(manifest)

    def known(self) -> Iterator[BadRequest]:
        """What is always among them: too large, too strange for chance, or particular to the door."""
        least = {column.name: {"str": "", "bool": False}.get(column.dtype, 0) for column in self.columns}
        yield self.body(f"{MAX_ROWS + 1} rows", self.content([least] * (MAX_ROWS + 1)))
        yield self.body("an empty body", b"")
        yield self.body("a body that is not UTF-8", b"\xff\xfe" + self.content([self.good]))
        yield self.body("UTF-16", self.content([self.good]).decode().encode("utf-16"))
        yield self.body("something after the document", self.content([self.good]) + b"{}")
        yield self.body("5000 brackets that open", b"[" * 5000)
        yield self.body("100000 brackets that open", b'{"rows":' * 100_000)
        for document in (*_COMMON, *_OWN[self.door](self.columns, self.good)):
            content = json.dumps(document).encode()
            yield self.body(f"the document {_short(content)}", content)
        for content_type, content in _OTHER_TYPES:
            yield BadRequest(
                f"{content_type or 'no content type'}: {_short(content)}", self.path, content, content_type
            )
        if self.door is INFER:
            good, version = self.content([self.good]), self.manifest.version
            for path in ("/v2/models/no_such_model/infer", f"{self.path[:-6]}/versions/{version + 1}/infer"):
                yield BadRequest(f"an address of nothing, {path}", path, good)

    def wrong_value(self) -> BadRequest:
        column = self.random.choice(self.columns)
        wrong = self.random.choice(_WRONG[column.dtype])
        return self.rows(f"{column.name}={wrong!r}", self.among({**self.good, column.name: wrong}))

    def no_json(self) -> BadRequest:
        name, literal = self.column(), self.random.choice(_NO_JSON)
        return self.rows(f"{name}={literal[:20]}", self.among({**self.good, name: f"@@{literal}@@"}))

    def missing(self) -> BadRequest:
        gone = set(self.random.sample(sorted(self.good), self.random.randint(1, len(self.good))))
        what = f"without {', '.join(sorted(gone))[:60]}"
        return self.rows(what, self.among({name: value for name, value in self.good.items() if name not in gone}))

    def unknown(self) -> BadRequest:
        name = self.random.choice(
            (f"{self.column()} ", self.column().swapcase() + "_", "no_such_column", "", "é\u0000")
        )
        return self.rows(f"with {name!r}", self.among({**self.good, name: self.random.choice((1, 1.5, "text", None))}))

    def renamed(self) -> BadRequest:
        name = self.column()
        return self.rows(
            f"{name} renamed", self.among({(k + "_" if k == name else k): v for k, v in self.good.items()})
        )

    def nested(self) -> BadRequest:
        name, depth = self.column(), self.random.randint(2, 20_000)
        value = f"@@{'[' * depth}{']' * depth}@@"
        return self.rows(f"{name} in {depth} brackets", self.among({**self.good, name: value}))

    def truncated(self) -> BadRequest:
        good = self.content([self.good] * self.random.randint(1, 3))
        at = self.random.randrange(len(good) - 1)
        return self.body(f"a body cut off after {at} of {len(good)} bytes", good[:at])

    def broken(self) -> BadRequest:
        good = self.content([self.good])
        at, byte = self.random.randrange(len(good)), self.random.choice((0x00, 0x1F, 0x80, 0xC0, 0xFF))
        return self.body(f"a body with byte {at} as {byte:#04x}", good[:at] + bytes([byte]) + good[at + 1 :])

    def noise(self) -> BadRequest:
        size = self.random.randint(1, 4000)
        return self.body(f"{size} random bytes", b"\xff" + self.random.randbytes(size))

    def other_type(self) -> BadRequest:
        content_type, _ = self.random.choice(_OTHER_TYPES)
        content = b"\xff" + self.random.randbytes(self.random.randint(0, 400))
        return BadRequest(f"random bytes as {content_type or 'nothing'}", self.path, content, content_type)

    def column(self) -> str:
        return self.random.choice(self.columns).name

    def among(self, bad: Row) -> list[Row]:
        """The bad row alone, or among good ones."""
        rows: list[Row] = [self.good] * self.random.choice((0, 0, 1, 4))
        rows.insert(self.random.randint(0, len(rows)), bad)
        return rows

    def rows(self, what: str, rows: Sequence[Row]) -> BadRequest:
        return self.body(f"{len(rows)} rows, one {what}" if len(rows) > 1 else f"a row {what}", self.content(rows))

    def content(self, rows: Sequence[Row]) -> bytes:
        # A table with its columns named once would hide that one row names others.
        by_name = {"dataframe_records": rows} if self.door is INVOCATIONS else self.door.document(rows, self.columns)
        return re.sub(r'"@@(.*?)@@"', lambda found: json.loads(f'"{found[1]}"'), json.dumps(by_name)).encode()

    def body(self, what: str, content: bytes) -> BadRequest:
        return BadRequest(what, self.path, content)


_MUTATIONS: tuple[Callable[[_Maker], BadRequest], ...] = (
    *(_Maker.wrong_value,) * 3,
    *(_Maker.no_json,) * 2,
    *(_Maker.missing, _Maker.unknown, _Maker.renamed, _Maker.nested),
    *(_Maker.truncated, _Maker.broken, _Maker.noise, _Maker.other_type),
)

_COMMON: tuple[Any, ...] = (None, True, 7, "text", [], {}, [[]], {"": None}, {"no_such_key": []})


def _native(columns: Sequence[Column], good: Row) -> list[Any]:
    return [
        *_each("rows", None, True, 7, "text", {}, [], [7], [None], [[]], ["text"], [{}], good, [good, 7]),
        *_each("rows", [list(good.values())], {column.name: [good[column.name]] for column in columns}),
        {"rows": [good], "more": 1},
        {"Rows": [good]},
        [7],
        [list(good.values())],
    ]


def _inference(columns: Sequence[Column], good: Row) -> list[Any]:
    first, *others = INFER.document([good], columns)["inputs"]
    value = first["data"][0]

    def without(key: str) -> Any:
        return {"inputs": [{k: v for k, v in first.items() if k != key}, *others]}

    def changed(key: str, *values: Any) -> list[Any]:
        return [{"inputs": [{**first, key: value}, *others]} for value in values]

    return [
        *_each("inputs", None, True, 7, "text", {}, [], [7], [None], [{}], first, [first, *others, first]),
        *map(without, first),
        *changed("name", None, 7, [], ""),
        *changed("shape", None, 1, "1", [2, 1], [0, 1], [-1, 1], ["1", 1], [1.5, 1], [1, 2], {}),
        *changed("shape", [10**12, 10**12], [1, 1, 2**62]),
        *changed("datatype", None, 7, "FP65", "", [], "OBJECT"),
        *changed("data", None, 7, {}, [], [[]], [value, value], [[value, value]], [None]),
        {"inputs": [{**first, "shape": [2, 1], "data": [value, value]}, *others, {**first, "name": "no_such_column"}]},
    ]


def _scoring(columns: Sequence[Column], good: Row) -> list[Any]:
    names, values = [column.name for column in columns], [good[column.name] for column in columns]
    split = {"columns": names, "data": [values]}

    def with_split(key: str, *values: Any) -> list[Any]:
        return [{"dataframe_split": {**split, key: value}} for value in values]

    return [
        *_each("dataframe_records", None, True, 7, "text", {}, [], [7], [None], [[]], [{}]),
        *_each("dataframe_split", None, True, 7, "text", [], {}, [good], {"columns": names}, {"data": [values]}),
        *with_split("columns", None, 7, "text", {}, [], [7], [*names, "no_such_column"]),
        *with_split("data", None, 7, "text", {}, [], [7], [[]], [{}], [[*values, values[0]]], [values, values[:-1]]),
        {"dataframe_split": {"columns": [*names, names[0]], "data": [[*values, values[0]]]}},
        {"dataframe_split": split, "dataframe_records": [good]},
        *_each("instances", None, 7, []),
        *_each("inputs", None, 7, "text", []),
        {"no_such_key": [good]},
        [good],
    ]


def _each(key: str, *values: Any) -> list[Any]:
    return [{key: value} for value in values]


_OWN: dict[Door, Callable[[Sequence[Column], Row], list[Any]]] = {
    PREDICT: _native,
    INFER: _inference,
    INVOCATIONS: _scoring,
}


def _short(content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    return text if len(text) <= 80 else text[:77] + "..."
