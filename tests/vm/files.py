"""Files of this machine that the guest gets: Python and busybox, pytest, the repository, and some tools.

One rule: they are taken as they are now, so a test in the machine is the test in the checkout.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.local import errors
from deploy.vmlab import initial

REPOSITORY = Path(__file__).parents[2]
PARTS = ("Makefile", "deploy", "pyproject.toml", "runtime", "tests")
TOOLS = ("bash", "find", "make", "tar")
"""What `make install-runtime` calls and busybox does not have, or not with these options."""
LIBRARIES = ("libseccomp.so.2", "libgcc_s.so.1")
"""What is loaded by its name."""
LEFT_OUT = {"dist-packages", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter"}
"""Of the standard library; and below, of the tests."""
NOT_IN_THE_GUEST = {"bench", "sim", "vm"}

Files = Iterator[tuple[Path, str]]
"""Files here, and their names in the guest."""


class Unavailable(errors.LocalError):
    """The machine cannot be started; the text says what to do."""


def common() -> Files:
    """What every kind of machine holds."""
    yield initial.BUSYBOX, "bin/busybox"
    standard = Path(sysconfig.get_path("stdlib"))
    for path in _walk(standard):
        yield path, str(path).lstrip("/")
    yield python(), str(python()).lstrip("/")
    tools = [_tool(name) for name in TOOLS]
    for tool in tools:
        yield tool.resolve(), f"bin/{tool.name}"
    for library in (*linked([python(), *tools, *standard.rglob("*.so")]), *_named(LIBRARIES)):
        yield library.resolve(), str(library).lstrip("/")
    for distribution in _closure("pytest-xdist", "pytest-timeout"):
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.exists():
                yield path, f"site/{file}"
    for part in PARTS:
        for path in _walk(REPOSITORY / part):
            yield path, f"orch/{path.relative_to(REPOSITORY)}"


def python() -> Path:
    """The interpreter, in the guest as here."""
    return Path(os.path.realpath(sys.executable))


def linked(binaries: Sequence[Path], *, search: Sequence[Path] = ()) -> list[Path]:
    """What the dynamic linker would load for these, looking into the folders `search` first."""
    variables = {**os.environ, "LC_ALL": "C", "LD_LIBRARY_PATH": ":".join(map(str, search))}
    said = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=True, env=variables).stdout
    missing = sorted({line.split()[0] for line in said.splitlines() if line.endswith("not found")})
    if missing:
        raise Unavailable(f"{', '.join(missing)} cannot be found; remove .cache and run deploy/setup.sh test")
    return [Path(word) for word in sorted({word for word in said.split() if _is_library(word)})]


def _is_library(word: str) -> bool:
    return word.startswith("/") and not word.endswith(":")


def _named(names: Sequence[str]) -> list[Path]:
    said = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return [Path(line.rsplit(" => ", 1)[1]) for line in said.splitlines() if line.strip().split(" ")[0] in names]


def _tool(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is missing; install Debian's package of that name")
    return Path(found)


def _walk(top: Path) -> Iterator[Path]:
    if top.is_file():
        yield top
        return
    for folder, folders, files in os.walk(top):
        folders[:] = [
            name for name in folders if name not in LEFT_OUT | NOT_IN_THE_GUEST and not name.startswith("config-")
        ]
        yield from (Path(folder, name) for name in files)


def _closure(*names: str) -> list[importlib.metadata.Distribution]:
    """Distributions and everything that they require here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = list(names)
    while todo:
        wanted = todo.pop()
        if wanted in found:
            continue
        try:
            found[wanted] = importlib.metadata.distribution(wanted)
        except importlib.metadata.PackageNotFoundError:
            continue  # for other systems or versions
        todo += [_name(text) for text in found[wanted].requires or () if "extra ==" not in text]
    return list(found.values())


def _name(requirement: str) -> str:
    end = next((place for place, letter in enumerate(requirement) if letter in " <>=!~;[("), len(requirement))
    return requirement[:end]
