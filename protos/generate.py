"""Writes the generated code of the protos, and checks that the committed code is what the protos say.

    python -m protos.generate            writes `protos/orch/v1/*_pb2*` and `comments.json`
    python -m protos.generate --check    exits with 1 and names each file that is stale

`comments.json` holds the comments of the protos by full name (`orch.v1.Meta.name`), since the descriptors that are
compiled into the code have none. It is what `orchctl explain` prints.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("protos/orch/v1")
COMMENTS = FOLDER / "comments.json"

# Field numbers inside descriptor.proto: the path of a comment is made of them.
MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS, NESTED, NESTED_ENUMS, ENUM_VALUES, METHODS = 2, 3, 4, 2, 2


def generate(target: Path) -> None:
    """Writes everything below `target`, in the layout of the repository."""
    protoc = importlib.import_module("grpc_tools.protoc")
    sources = [str(path.relative_to(ROOT)) for path in sorted((ROOT / FOLDER).glob("*.proto"))]
    scripts = Path(sys.executable).parent
    descriptors = target / "descriptors.bin"
    arguments = [
        "protoc",
        f"--proto_path={ROOT}",
        f"--proto_path={Path(str(protoc.__file__)).parent / '_proto'}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
        "--include_source_info",
        f"--descriptor_set_out={descriptors}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc refused the protos; its messages are above")
    described = descriptor_pb2.FileDescriptorSet.FromString(descriptors.read_bytes())
    descriptors.unlink()
    text = json.dumps(dict(sorted(comments(described))), indent=1, ensure_ascii=False)
    (target / COMMENTS).write_text(text + "\n")


def comments(described: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, str]]:
    """Pairs of a full name and the comment above it."""
    for file in described.file:
        for location in file.source_code_info.location:
            text = " ".join(location.leading_comments.split())
            name = _full_name(file, tuple(location.path))
            if text and name:
                yield name, text


def _full_name(file: descriptor_pb2.FileDescriptorProto, path: tuple[int, ...]) -> str:
    """The name that a comment's path stands for; empty for places that have none (the syntax line, options)."""
    if len(path) < 2:
        return ""
    if path[0] == SERVICES:
        service = file.service[path[1]]
        names = [service.name, *([service.method[path[3]].name] if path[2:3] == (METHODS,) else [])]
        return ".".join([file.package, *names]) if len(path) in {2, 4} else ""
    if path[0] == ENUMS:
        return _enum_name(file.package, file.enum_type[path[1]], path[2:])
    return _message_name(file.package, file.message_type[path[1]], path[2:]) if path[0] == MESSAGES else ""


def _message_name(prefix: str, message: descriptor_pb2.DescriptorProto, rest: tuple[int, ...]) -> str:
    name = f"{prefix}.{message.name}"
    if not rest:
        return name
    if rest[0] == FIELDS and len(rest) == 2:
        return f"{name}.{message.field[rest[1]].name}"
    if rest[0] == NESTED:
        return _message_name(name, message.nested_type[rest[1]], rest[2:])
    return _enum_name(name, message.enum_type[rest[1]], rest[2:]) if rest[0] == NESTED_ENUMS else ""


def _enum_name(prefix: str, enum: descriptor_pb2.EnumDescriptorProto, rest: tuple[int, ...]) -> str:
    name = f"{prefix}.{enum.name}"
    if not rest:
        return name
    return f"{name}.{enum.value[rest[1]].name}" if rest[0] == ENUM_VALUES and len(rest) == 2 else ""


def stale() -> list[str]:
    """Files whose committed text is not what the protos say, by path."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder)
        (target / FOLDER).mkdir(parents=True)
        generate(target)
        fresh = {path.relative_to(target): path.read_bytes() for path in (target / FOLDER).iterdir()}
    committed = {
        path.relative_to(ROOT): path.read_bytes()
        for path in (ROOT / FOLDER).iterdir()
        if "_pb2" in path.name or path.name == COMMENTS.name
    }
    return sorted(str(path) for path in fresh.keys() | committed.keys() if fresh.get(path) != committed.get(path))


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        files = stale()
        if files:
            raise SystemExit("stale generated code; run `make protos`:\n  " + "\n  ".join(files))
        return
    generate(ROOT)


if __name__ == "__main__":
    main()
