"""Where compiled kernels are kept: a folder named after the sources that they were compiled from.

Numba's own cache looks only at the file that a kernel stands in. A kernel has more than that in it: the enumerations and record
layouts of other modules are constants to it, and what it calls is pasted in. After an update of those it would silently go on
with the old ones. So the folder's name is a digest of every module that kernels are made of; when one changes, all are
compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path

_PACKAGE = Path(__file__).parent
_PREFIX = "kernels-"
_IMPORT = re.compile(r"^\s*from (simulator[\w.]*) import (\([^)]*\)|.+)$", re.MULTILINE)
_KERNELS = "from simulator.kernel import"


def sources() -> list[Path]:
    """Every module that defines kernels, and what these import from the package, in order of their names.

    One step of imports is enough: what a kernel calls is a kernel, and stands in such a module itself; what else is in it are
    the names that its own module imports.
    """
    texts = {path: path.read_text("utf-8") for path in _PACKAGE.rglob("*.py")}
    kernels = {path for path, text in texts.items() if _KERNELS in text}
    imported = {
        file for path in kernels for found in _IMPORT.finditer(texts[path]) for file in _files_of(*found.groups())
    }
    return sorted(kernels | (imported & texts.keys()))


def _files_of(module: str, names: str) -> list[Path]:
    """The files that `from module import names` may mean."""
    place = _PACKAGE.parent.joinpath(*module.split("."))
    inner = [place / f"{name}.py" for name in re.findall(r"\w+", names)]
    return [place.with_suffix(".py"), place / "__init__.py", *inner]


def digest() -> str:
    """Of the contents of `sources`."""
    whole = hashlib.blake2b(digest_size=8)
    for path in sources():
        whole.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()


def folder() -> Path:
    """The folder for the sources as they are: beside them where that can be written, else in the user's cache."""
    name = _PREFIX + digest()
    beside = _PACKAGE / "__pycache__"
    if (beside / name).is_dir() or os.access(beside if beside.is_dir() else _PACKAGE, os.W_OK):
        return beside / name
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "transaction-load-simulator" / name


def forget_others(kept: Path) -> None:
    """Removes what was compiled from sources that are no longer there, so that the cache does not grow with every update."""
    for path in kept.parent.glob(f"{_PREFIX}*"):
        if path != kept and kept.name.startswith(_PREFIX):
            with contextlib.suppress(OSError):
                shutil.rmtree(path)
