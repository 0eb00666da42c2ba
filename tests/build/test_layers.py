"""Layers: the same files give the same bytes, and nothing of this machine is in them."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from modelyard_build.images.layers import Link, environment_files, folder_files, write_layer


def _members(layer: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(layer) as tar:
        return {member.name: member for member in tar}


def test_the_same_files_give_the_same_layer_whenever_and_by_whomever_they_were_written(tmp_path: Path) -> None:
    for name, time in (("first", 1_000_000_000), ("second", 1_700_000_000)):
        (tmp_path / name / "deep").mkdir(parents=True)
        files = ("a", "deep/b") if name == "first" else ("deep/b", "a")
        for file in files:
            (tmp_path / name / file).write_text(file)
            os.utime(tmp_path / name / file, (time, time))
        (tmp_path / name / "a").chmod(0o600 if name == "first" else 0o664)
        write_layer(tmp_path / f"{name}.tar", folder_files(tmp_path / name, "app/model"))
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()
    members = _members(tmp_path / "first.tar")
    assert list(members) == ["app", "app/model", "app/model/deep", "app/model/a", "app/model/deep/b"]
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_what_is_there_twice_takes_its_place_once(tmp_path: Path) -> None:
    write_layer(tmp_path / "layer.tar", {"a": b"library", "b": b"library", "c": b"", "d": b"", "e": Link("a")})
    members = _members(tmp_path / "layer.tar")
    assert members["b"].islnk()
    assert members["b"].linkname == "a"
    assert members["c"].isfile()
    assert members["d"].isfile()
    assert members["e"].issym()
    with tarfile.open(tmp_path / "layer.tar") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out" / "b").read_text() == "library"


def test_an_environment_travels_without_tests_and_with_the_bytecode_of_what_was_imported(tmp_path: Path) -> None:
    made = tmp_path / "environment"
    packages = made / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    (packages / "pack" / "tests").mkdir(parents=True)
    (packages / "pack" / "__init__.py").write_text("import pack.used\n")
    (packages / "pack" / "used.py").write_text("VALUE = 7\n")
    (packages / "pack" / "unused.py").write_text("VALUE = 8\n")
    (packages / "pack" / "changed.py").write_text("VALUE = 9\n")
    (packages / "pack" / "tests" / "test_used.py").write_text("")
    (packages / "pack" / "used.pyi").write_text("VALUE: int\n")
    env = {"PYTHONPYCACHEPREFIX": str(made / "bytecode"), "PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, "-c", "import pack, pack.changed"], check=True, env=env)
    (packages / "pack" / "changed.py").write_text("VALUE = 1000\n")
    files = environment_files(made, "app/env", "/usr/local/bin/python3")
    inside = f"app/env/lib/python3.{sys.version_info[1]}/site-packages/pack"
    tag = sys.implementation.cache_tag
    assert {name.removeprefix(f"{inside}/") for name in files if name.startswith(inside)} == {
        "__init__.py", "used.py", "unused.py", "changed.py",
        f"__pycache__/__init__.{tag}.pyc", f"__pycache__/used.{tag}.pyc",
    }  # fmt: skip
    assert files["app/env/bin/python"] == Link("/usr/local/bin/python3")
    assert b"include-system-site-packages = false" in files["app/env/pyvenv.cfg"], "unsaid, it is true"
    write_layer(tmp_path / "layer.tar", {name: file for name, file in files.items() if name.startswith(inside)})
    with tarfile.open(tmp_path / "layer.tar") as tar:
        tar.extractall(tmp_path / "elsewhere", filter="data")
    there = tmp_path / "elsewhere" / Path(inside).parent
    (there / "pack" / "used.py").write_text("VALUE = 'of the source'\n")  # the bytecode does not look at its time
    ask = "import pack.used, pack.changed; print(pack.used.VALUE, pack.changed.VALUE)"
    done = subprocess.run(
        [sys.executable, "-c", ask], env={"PYTHONPATH": str(there)}, check=True, capture_output=True, text=True
    )
    assert done.stdout == "7 1000\n"
