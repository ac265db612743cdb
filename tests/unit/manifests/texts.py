"""Short ways to read a text in tests."""

import textwrap

import manifests
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb


def read(text: str | bytes, *, name: str = "m.yaml") -> tuple[kinds.StoredObject, ...]:
    """The objects of a text."""
    raw = text if isinstance(text, bytes) else textwrap.dedent(text).lstrip("\n").encode()
    return manifests.read([manifests.Source(name=name, text=raw)]).objects


def mistakes(text: str | bytes) -> list[str]:
    """The mistakes of a text, as people see them, without the name of the file."""
    try:
        read(text)
    except manifests.InvalidManifest as invalid:
        return [str(mistake).removeprefix("m.yaml:") for mistake in invalid.mistakes]
    return []


def container(lines: str) -> str:
    """A service whose container has these fields. The first is on line 7, at column 7."""
    head = (
        "kind: Service",
        "meta: {name: web}",
        "spec:",
        "  template:",
        "    container:",
        "      image: hello",
    )
    return "\n".join([*head, textwrap.indent(textwrap.dedent(lines).strip("\n"), " " * 6), ""])


def read_container(lines: str) -> pb.Container:
    """What is read from `container(lines)`."""
    (service,) = read(container(lines))
    assert isinstance(service, pb.Service)
    return service.spec.template.container
