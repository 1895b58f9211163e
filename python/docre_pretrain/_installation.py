"""Where the program is, and the libtorch that it runs with."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

from ._errors import InstallationError

# The release of torch whose libtorch the program is linked with.
TORCH = "2.11"

# The program of the wheel.
BUNDLED = Path(__file__).with_name("bin") / "docre-pretrain"

# Names another program than that of the wheel. It finds libtorch by itself.
VARIABLE = "DOCRE_BINARY"


def _named(given: str | os.PathLike[str] | None) -> Path | None:
    """Return the program that an argument or the variable names."""
    named = given or os.environ.get(VARIABLE)
    return Path(named).absolute() if named else None


def binary() -> Path:
    """Return the path of the program that this package runs.

    That of the wheel, or the one that the environment variable DOCRE_BINARY names.

    >>> import docre_pretrain as docre
    >>> docre.binary().name
    'docre-pretrain'
    """
    return _checked(_named(None) or BUNDLED)


def _checked(path: Path) -> Path:
    if not path.is_file():
        if path == BUNDLED:
            raise InstallationError(
                "this docre_pretrain was installed without its program",
                f"install the wheel of `make wheel`, or set {VARIABLE} to a program you built",
            )
        raise InstallationError(f"no program at {path}", f"correct `binary` or {VARIABLE}")
    if not os.access(path, os.X_OK):
        raise InstallationError(f"{path} cannot be run", f"allow it: chmod +x {path}")
    return path


def find_libtorch() -> Path:
    """Return the folder of this Python's libtorch, without importing torch (which takes seconds).

    Raises `InstallationError` if there is none or it is of another release.
    """
    install = f"pip install 'torch=={TORCH}.*'"
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None or not spec.submodule_search_locations:
        raise InstallationError(f"{sys.executable} has no torch, which is needed", install)
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = _version(folder)
    if not found.startswith(f"{TORCH}."):
        raise InstallationError(f"torch {TORCH} is needed, but {folder} is torch {found}", install)
    # conda keeps the libraries in the environment's own folder.
    for libraries in (folder / "lib", Path(sys.prefix) / "lib"):
        if (libraries / "libtorch_cpu.so").exists():
            return libraries
    raise InstallationError(f"the torch at {folder} holds no libtorch_cpu.so", install)


def _version(folder: Path) -> str:
    """Return the version of the torch in a folder; its metadata may be of another torch."""
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^__version__\b.*?=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    return found[1] if found else "of unknown version"


def command(given: str | os.PathLike[str] | None = None) -> tuple[Path, dict[str, str]]:
    """Return the program to start, and the environment to start it in."""
    environment = dict(os.environ)
    named = _named(given)
    if named:
        return _checked(named), environment
    program = _checked(BUNDLED)
    paths = [str(find_libtorch()), environment.get("LD_LIBRARY_PATH", "")]
    environment["LD_LIBRARY_PATH"] = ":".join(filter(None, paths))
    return program, environment
