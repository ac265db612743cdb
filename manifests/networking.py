"""Rules of what a service has to do with the network, and of the questions that its container is asked.

They see one object only: whether a network or another service exists is found out where an apply is decided.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from manifests import quoting, suggest
from manifests.paths import Path
from manifests.problems import Problem
from protos.orch.v1 import objects_pb2 as pb

DEFAULT_NETWORK: Final = "default"
"""The network of every namespace that services are in when they name none."""
PROBES: Final = ("startup", "liveness", "readiness")
QUESTIONS: Final = ("http", "tcp", "grpc", "exec")
MAX_PORT: Final = 65_535
_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_REFERENCE: Final = re.compile(rf"({_NAME}/)?{_NAME}", re.ASCII)
_PORT_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)


def qualified(name: str, namespace: str) -> str:
    """`web` → `default/web`, where `namespace` is `default`; `other/web` stays."""
    return name if "/" in name else f"{namespace}/{name}"


def networks_of(service: pb.Service) -> tuple[str, ...]:
    """The service's networks as `namespace/name`, in the order of the alphabet."""
    namespace = service.meta.namespace
    return tuple(sorted({qualified(name, namespace) for name in service.spec.networks or (DEFAULT_NETWORK,)}))


def ports_named(ports: Collection[pb.Port], name: str) -> tuple[pb.Port, ...]:
    """The ports that a name or a number means; a number may mean one of each protocol."""
    return tuple(port for port in ports if name and name in {port.name, str(port.target)})


def mode_of(port: pb.Port) -> "pb.PublishMode.ValueType":
    """Where a published port listens, the default filled in."""
    return port.mode or pb.PUBLISH_MODE_INGRESS


def published_key(port: pb.Port) -> tuple[int, int]:
    """What can be published once only: protocol and number."""
    return port.protocol or pb.PROTOCOL_TCP, port.published


def network_problems(network: pb.Network, path: Path) -> Iterator[Problem]:
    """The default network is there by itself, and stays as it is."""
    if network.meta.name == DEFAULT_NETWORK:
        message = f"every namespace has a network {DEFAULT_NETWORK} already, which cannot be changed"
        yield Problem(keys=(*path, "meta", "name"), message=message, hint="give this one another name")


def service_problems(spec: pb.ServiceSpec, path: Path) -> Iterator[Problem]:
    """References that cannot be read, and what is said twice."""
    ports = spec.template.container.ports
    yield from _references(spec.networks, (*path, "networks"), "network")
    for index, rule in enumerate(spec.allow):
        here = (*path, "allow", index)
        yield from _reference(getattr(rule, "from"), (*here, "from"), "service")
        yield from _allowed_ports(rule.ports, ports, (*here, "ports"))


def probe_problems(container: pb.Container, path: Path) -> Iterator[Problem]:
    """What is wrong with the questions that a container is asked."""
    for name in PROBES:
        if container.probes.HasField(name):
            yield from _probe(name, getattr(container.probes, name), container.ports, (*path, "probes", name))


# References ---------------------------------------------------------------------------------------------------------


def _references(names: Sequence[str], path: Path, what: str) -> Iterator[Problem]:
    for index, name in enumerate(names):
        yield from _reference(name, (*path, index), what)
        if name in names[:index]:
            yield Problem(keys=(*path, index), message=f"{quoting.shown(name)} is there twice")


def _reference(name: str, path: Path, what: str) -> Iterator[Problem]:
    if name and not _REFERENCE.fullmatch(name):
        hint = "write its name, or namespace/name, in small letters, digits and '-'"
        yield Problem(keys=path, message=f"{quoting.shown(name)} is not the name of a {what}", hint=hint)


def _allowed_ports(names: Sequence[str], ports: Collection[pb.Port], path: Path) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if not ports_named(ports, name):
            yield Problem(
                keys=(*path, index), message=f"the service has no port {quoting.shown(name)}", hint=_known(ports, name)
            )


# Probes -------------------------------------------------------------------------------------------------------------


def _probe(name: str, probe: pb.Probe, ports: Collection[pb.Port], path: Path) -> Iterator[Problem]:
    asked = [question for question in QUESTIONS if probe.HasField(question)]
    if len(asked) != 1:
        found = f"has {' and '.join(asked)}, and a probe asks one question" if asked else "asks nothing"
        hint = "write exactly one of http, tcp, grpc and exec"
        yield Problem(keys=path, message=found, hint=hint, of_nothing=not asked)
    for question, port in (("http", probe.http.port), ("tcp", probe.tcp.port), ("grpc", probe.grpc.port)):
        if port:
            yield from port_problems(port, ports, (*path, question, "port"))
    if probe.success_threshold > 1 and name != "readiness":
        message = f"one good answer is enough for {name}"
        yield Problem(keys=(*path, "successThreshold"), message=message, hint="write it for readiness, or remove it")


def port_problems(text: str, ports: Collection[pb.Port], path: Path) -> Iterator[Problem]:
    """What is wrong with a port that is asked. A number need not be among the container's ports; a name has to."""
    if _PORT_NUMBER.fullmatch(text):
        if not 1 <= int(text) <= MAX_PORT:
            yield Problem(keys=path, message=f"{text} is not a port", hint=f"write 1 to {MAX_PORT}")
    elif text not in {port.name for port in ports if port.name}:
        message = f"the container has no port of the name {quoting.shown(text)}"
        yield Problem(keys=path, message=message, hint=_known(ports, text))


def _known(ports: Collection[pb.Port], text: str) -> str:
    names = [port.name or str(port.target) for port in ports]
    return suggest.did_you_mean(text, names) or (f"known are {', '.join(names)}" if names else "add it to ports")
