"""An image with this machine's own Python, as little of it as a web server and its clients need.

The interpreter, the shared libraries that it loads, and the modules that the two programs have imported, compiled. Each
lies where it lies here, so that the interpreter finds it.
"""

import io
import py_compile
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("webserver", "webload")
PYTHON = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
SERVER = f"{PYTHON} -I -S /webserver.py"
LOAD = (str(PYTHON), "-I", "-S", "/webload.py")
LISTING = """
import sys
sys.path.insert(0, sys.argv[1])
import encodings.idna, encodings.utf_8, {programs}
print("\\n".join(m.__file__ for m in sys.modules.values() if getattr(m, "__file__", None)))
"""


def write(path: Path) -> None:
    """The image's tar."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("dev", "etc", "proc", "sys", "tmp"):
            _folder(archive, name)
        _file(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        for program in PROGRAMS:
            _file(archive, f"{program}.py", (HERE / f"{program}.py").read_bytes())
        modules = [module for module in _modules() if module.parent != HERE]
        binary = [PYTHON, *(module for module in modules if module.suffix == ".so")]
        for file in dict.fromkeys([*binary, *_libraries(binary)]):
            _file(archive, str(file), file.read_bytes(), mode=0o755)
        for module in modules:
            if module.suffix == ".py":
                _file(archive, str(module.with_suffix(".pyc")), _compiled(module))


def _modules() -> list[Path]:
    listing = LISTING.format(programs=", ".join(PROGRAMS))
    command = [str(PYTHON), "-I", "-S", "-c", listing, str(HERE)]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    return sorted({Path(line) for line in listed.splitlines()})


def _libraries(binary: list[Path]) -> Iterator[Path]:
    listed = subprocess.run(["ldd", *binary], capture_output=True, text=True, timeout=30, check=True).stdout
    for found in re.findall(r"(?:=>)?\s(/\S+) \(0x", listed):
        yield Path(found)


def _compiled(module: Path) -> bytes:
    with tempfile.NamedTemporaryFile(suffix=".pyc") as made:
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(module), made.name, doraise=True, invalidation_mode=mode)
        return Path(made.name).read_bytes()


def _folder(archive: tarfile.TarFile, name: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    archive.addfile(member)


def _file(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name.lstrip("/"))
    member.size, member.mode = len(content), mode
    archive.addfile(member, io.BytesIO(content))
