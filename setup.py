"""Build of the package: compiles protos/ to rec/protos/, and chooses the CPU or the GPU kernels.

Everything static is in pyproject.toml. Three things are not static:

* the generated protobuf code, which is never in git: it is made here, for a wheel in the build folder and for an
  editable install in the source tree;
* the CPU kernels in C, which an install without a compiler does without (rec/ops/native);
* the requirements, because torchrec's metadata names the CUDA package `fbgemm-gpu`, and pip has no way for an extra
  to take a requirement away (docs/decisions/0001-cpu-and-gpu-are-alternatives.md).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
PROTOS = HERE / "protos"
# Messages of tools that run from the source tree and are in no wheel.
TOOLS = HERE / "tools"
SHIM = HERE / "shims" / "fbgemm-gpu"

TORCH = "torch==2.13.0"
TORCHREC = "torchrec==1.8.0"
FBGEMM = "1.8.0"  # its binary interface follows torch's minor version: 1.8 belongs to 2.13

COMMON = [
    "numpy>=2",
    "protobuf>=6.31.1,<8",
    "pyarrow>=17",
    "fsspec>=2024.6",
    "tensorboard>=2.18",
    "tqdm>=4.66",
]
# From an index without our shim these fail at once, naming fbgemm-gpu 1.8.0+cpu, instead of mixing in CUDA.
CPU = [TORCH, f"fbgemm-gpu-cpu=={FBGEMM}", f"fbgemm-gpu=={FBGEMM}+cpu", TORCHREC]
GPU = [TORCH, f"fbgemm-gpu=={FBGEMM},!={FBGEMM}+cpu", TORCHREC]

PLOTS = ["matplotlib>=3.9"]  # of tools.experiment
INDEX = ["faiss-cpu>=1.10"]  # of --mode index and --mode search
TEST = [
    *PLOTS,
    *INDEX,
    "pytest>=8",
    "pytest-xdist>=3",
    "xxhash",
    "scikit-learn>=1.5",
    "grpcio-tools==1.75.1",
    "import-linter>=2.1",
]
LINT = ["ruff==0.17.5", "mypy>=1.13", "types-protobuf"]


def device() -> str:
    """REC_DEVICE, or what this machine has: gpu where an NVIDIA driver is loaded, else cpu."""
    found = "gpu" if Path("/proc/driver/nvidia/version").exists() else "cpu"
    name = os.environ.get("REC_DEVICE", "") or found
    if name not in ("cpu", "gpu", "none"):
        raise SystemExit(f'REC_DEVICE is "{name}", expected cpu, gpu or none')
    return name


def requirements(name: str) -> list[str]:
    """What a plain `pip install .` installs for a device; `none` leaves the choice to the extras."""
    if name == "cpu":
        return [*COMMON, TORCH, f"fbgemm-gpu-cpu=={FBGEMM}", f"fbgemm-gpu @ {SHIM.as_uri()}", TORCHREC]
    return [*COMMON, *(GPU if name == "gpu" else [])]


def compile_protos(out: Path, *, tools: bool = False) -> list[Path]:
    """Compile protos/**.proto to out/rec/protos/**_pb2.py and .pyi; returns what was written.

    `-Irec/protos=protos` maps the folder to the import path, so the code imports as rec.protos.x_pb2 with
    no patching.

    Args:
        out: folder that has rec/.
        tools: also those of tools/, beside themselves.
    """
    from grpc_tools import protoc  # a build requirement only

    roots = {"rec/protos": PROTOS} | ({"tools": TOOLS} if tools else {})
    names = sorted(
        f"{at}/{p.relative_to(root).as_posix()}" for at, root in roots.items() for p in root.rglob("*.proto")
    )
    out.mkdir(parents=True, exist_ok=True)
    arguments = ["protoc", *(f"-I{at}={root}" for at, root in roots.items())]
    arguments += [f"-I{Path(protoc.__file__).parent / '_proto'}", f"--python_out={out}", f"--pyi_out={out}"]
    if protoc.main(arguments + names) != 0:
        raise SystemExit("protoc failed: see the message above")
    stems = [out / name.removesuffix(".proto") for name in names]
    return [stem.with_name(stem.name + suffix) for stem in stems for suffix in ("_pb2.py", "_pb2.pyi")]


# Plain C called through ctypes: no headers of Python or PyTorch. Optional: without a compiler the install warns and
# goes on, and the ops take PyTorch's own (slower) functions.
NATIVE = Extension(
    "rec.ops.native._native",
    sources=["rec/ops/native/native.c"],
    depends=sorted(path.relative_to(HERE).as_posix() for path in (HERE / "rec" / "ops").rglob("*.h")),
    extra_compile_args=["-O2", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi"],
    optional=True,
)


class BuildProtos(Command):
    """`python setup.py protos`: compile into the source tree."""

    description = "compile protos/ into rec/protos/ of the source tree"
    user_options: ClassVar[list] = []

    def initialize_options(self) -> None:
        """Nothing to set."""

    def finalize_options(self) -> None:
        """Nothing to check."""

    def run(self) -> None:
        """Compile, and remove what an earlier run left for a .proto that is gone."""
        written = set(compile_protos(HERE, tools=TOOLS.is_dir()))
        for folder in (HERE / "rec" / "protos", TOOLS):
            for path in folder.rglob("*_pb2.py*"):
                if path.suffix in (".py", ".pyi") and path not in written:
                    path.unlink()


class BuildPy(build_py):
    """build_py with the protobuf code generated afresh."""

    def run(self) -> None:
        """Generate into the tree for an editable install, else into the build folder."""
        editable = getattr(self, "editable_mode", False)
        if editable:
            self.run_command("protos")
        else:
            # An older build of this folder would bring modules back that are gone.
            shutil.rmtree(Path(self.build_lib) / "rec", ignore_errors=True)
        super().run()
        if not editable:
            self.generated = [str(path) for path in compile_protos(Path(self.build_lib))]

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Without generated modules lying in the tree: they may be older than the protos."""
        found = super().find_package_modules(package, package_dir)
        return [entry for entry in found if not entry[1].endswith("_pb2")]

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        """Without generated stubs lying in the tree."""
        return [name for name in super().find_data_files(package, src_dir) if not name.endswith("_pb2.pyi")]

    def get_outputs(self, include_bytecode: int = 1) -> list[str]:
        """Files of the wheel, the generated ones among them."""
        return super().get_outputs(include_bytecode) + getattr(self, "generated", [])


class Sdist(sdist):
    """sdist with the .proto files and without generated code (a wheel built from it compiles again)."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files of the release."""
        super().make_release_tree(base_dir, [name for name in files if "_pb2.py" not in name])


setup(
    install_requires=requirements(device()),
    extras_require={"cpu": CPU, "gpu": GPU, "plots": PLOTS, "index": INDEX, "test": TEST, "lint": LINT},
    ext_modules=[NATIVE],
    cmdclass={"build_py": BuildPy, "sdist": Sdist, "protos": BuildProtos},
)
