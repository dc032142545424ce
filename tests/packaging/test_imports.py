"""What the package imports: only downwards, and only what it requires."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Module -> requirement in setup.py (or what brings it).
REQUIRED = {
    "faiss": "faiss-cpu, of the extra index",
    "fbgemm_gpu": "fbgemm-gpu-cpu or fbgemm-gpu",
    "fsspec": "fsspec",
    "google": "protobuf",
    "numpy": "numpy",
    "pyarrow": "pyarrow",
    "tensorboard": "tensorboard",
    "torch": "torch",
    "torchrec": "torchrec",
    "tqdm": "tqdm",
    "triton": "torch, for CUDA",
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_the_package_imports_only_what_it_requires():
    unknown = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "rec").rglob("*.py")
        for name in imported(path)
        if (top := name.split(".")[0]) not in REQUIRED and top != "rec" and top not in sys.stdlib_module_names
    }
    assert not unknown


def test_imports_go_only_downwards():
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("import-linter is not installed")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["rec.config.load", "rec.features", "rec.data.encoder", "rec.main"])
def test_reader_processes_and_check_start_without_torch(module):
    code = (
        f"import {module}, sys; print(sorted({{'torch', 'torchrec', 'fbgemm_gpu', 'tensorboard'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
