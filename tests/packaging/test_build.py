"""Wheel, sdist and editable install, built from a copy of the tree without generated files, without the network."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

pytest.importorskip("grpc_tools", reason="grpcio-tools compiles the protos")
ROOT = Path(__file__).parents[2]
PARTS = ["setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "protos", "rec", "shims"]

# Compiling the kernels in C takes seconds: only where a test asks for them.
NO_COMPILER = {"CC": "/no/such/compiler"}


def call(*arguments, cwd, **environment):
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "REC_DEVICE")} | environment
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hook(name, tree, out, device="none", compiler=NO_COMPILER):
    """Call a PEP 517 hook as pip does; path of what it built."""
    code = f"from setuptools import build_meta; build_meta.{name}({str(out)!r})"
    call("-W", "ignore", "-c", code, cwd=tree, REC_DEVICE=device, **compiler)
    (built,) = Path(out).iterdir()
    return built


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*_pb2.py", "*_pb2.pyi", "*.egg-info", "build")
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)
    # A generated file whose .proto is gone, and one older than its .proto: neither may be packed.
    (folder / "rec/protos/gone_pb2.py").write_text("raise RuntimeError('stale')\n")
    (folder / "rec/protos/data_pb2.py").write_text("raise RuntimeError('stale')\n")
    return folder


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    return hook("build_wheel", tree, tmp_path_factory.mktemp("wheel"), compiler={})


def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def test_wheel_works_where_the_tree_is_not(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import rec.protos.pipeline_pb2 as p; print(p.__file__); print(p.EasyRecConfig().DESCRIPTOR.full_name)"
    file, name = call("-c", code, cwd=tmp_path, PYTHONPATH=str(tmp_path)).split()
    assert Path(file).is_relative_to(tmp_path)
    assert name == "rec.EasyRecConfig"
    assert "protorec" in call("-m", "rec.main", "--version", cwd="/", PYTHONPATH=str(tmp_path))


def test_wheel_holds_a_module_and_a_stub_for_each_proto_and_nothing_stale(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for proto in (ROOT / "protos").rglob("*.proto"):
        stem = f"rec/protos/{proto.relative_to(ROOT / 'protos').with_suffix('').as_posix()}_pb2"
        assert {f"{stem}.py", f"{stem}.pyi"} <= names
    assert "rec/protos/gone_pb2.py" not in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rec"}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
def test_wheel_holds_the_compiled_kernels_and_is_for_this_machine(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.startswith("rec/ops/native/_native.")]
    assert not wheel.name.endswith("-any.whl")


def test_without_a_compiler_the_wheel_is_built_all_the_same(tree, tmp_path):
    built = hook("build_wheel", tree, tmp_path)
    with zipfile.ZipFile(built) as archive:
        assert not [name for name in archive.namelist() if name.startswith("rec/ops/native/_native.")]
        assert "rec/ops/native/__init__.py" in archive.namelist()


def test_sdist_builds_the_same_wheel(tree, wheel, tmp_path):
    (tmp_path / "sdist").mkdir()
    (tmp_path / "wheel").mkdir()
    sdist = hook("build_sdist", tree, tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        members = archive.getnames()
        # Python before 3.11.4 has no filter; 3.14 warns where there is none.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    assert not [name for name in members if "_pb2" in name]
    assert any(name.endswith("protos/models/deepfm.proto") for name in members)
    assert any(name.endswith("shims/fbgemm-gpu/setup.py") for name in members)
    again = hook("build_wheel", tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "wheel", compiler={})
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())


def test_editable_install_compiles_into_the_tree(tree, tmp_path):
    hook("build_editable", tree, tmp_path)
    assert "rec.protos" in (tree / "rec/protos/data_pb2.py").read_text()
    assert (tree / "rec/protos/models/deepfm_pb2.pyi").exists()
    assert not (tree / "rec/protos/gone_pb2.py").exists()


def test_a_wheel_to_pass_on_names_no_file_and_lets_an_extra_choose(wheel):
    required = metadata(wheel).get_all("Requires-Dist")
    plain = [text for text in required if "extra ==" not in text]
    assert not [text for text in plain if "torch" in text or "fbgemm" in text]
    assert not [text for text in required if "file:" in text]
    assert 'fbgemm-gpu==1.8.0+cpu; extra == "cpu"' in required
    assert 'fbgemm-gpu!=1.8.0+cpu,==1.8.0; extra == "gpu"' in required


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", ["fbgemm-gpu @ file://{tree}/shims/fbgemm-gpu", "fbgemm-gpu-cpu==1.8.0"]),
        ("gpu", ["fbgemm-gpu!=1.8.0+cpu,==1.8.0"]),
    ],
)
def test_a_plain_install_takes_the_kernels_of_its_device(tree, tmp_path, device, expected):
    required = metadata(hook("build_wheel", tree, tmp_path, device)).get_all("Requires-Dist")
    kernels = [text for text in required if "extra ==" not in text and ("torch" in text or "fbgemm" in text)]
    assert sorted(kernels) == [text.format(tree=tree) for text in expected] + ["torch==2.13.0", "torchrec==1.8.0"]


def test_an_unknown_device_is_refused(tree):
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=tree,
        env=os.environ | {"REC_DEVICE": "tpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert 'REC_DEVICE is "tpu", expected cpu, gpu or none' in done.stderr
