"""What a manifest says of the network and of probes is checked as far as one object shows it."""

import pytest

from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

PROBE = "spec.template.container.probes"
EXACTLY_ONE = "write exactly one of http, tcp, grpc and exec"
FOR_READINESS = "write it for readiness, or remove it"
A_NAME = "write its name, or namespace/name, in small letters, digits and '-'"


def mistakes(lines: str, ports: str = "[{name: http, target: 8080}]") -> list[str]:
    """Of a container with these probes."""
    manifest = texts.container(f"ports: {ports}\nprobes: {lines}")
    return [one.partition(": ")[2] for one in texts.mistakes(manifest)]


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ("{readiness: {http: {port: http}}}", []),
        ("{readiness: {http: {port: 80, path: '/a?b=c', tls: true, headers: {Host: a}}, successThreshold: 3}}", []),
        ("{startup: {tcp: {port: 1}}, liveness: {exec: {command: [a]}}, readiness: {grpc: {port: '65535'}}}", []),
        ("{liveness: {}}", [f"{PROBE}.liveness: asks nothing; {EXACTLY_ONE}"]),
        (
            "{liveness: {tcp: {port: http}, exec: {command: [a]}}}",
            [f"{PROBE}.liveness: has tcp and exec, and a probe asks one question; {EXACTLY_ONE}"],
        ),
        (
            "{readiness: {http: {port: htpp}}}",
            [
                f'{PROBE}.readiness.http.port: the container has no port of the name "htpp"; did you mean "http"?',
            ],
        ),
        ("{readiness: {tcp: {port: 65536}}}", [f"{PROBE}.readiness.tcp.port: 65536 is not a port; write 1 to 65535"]),
        ("{readiness: {tcp: {port: 0}}}", [f"{PROBE}.readiness.tcp.port: 0 is not a port; write 1 to 65535"]),
        ("{readiness: {http: {}}}", [f"{PROBE}.readiness.http.port: missing"]),
        (
            "{readiness: {http: {port: 1, path: health}}}",
            [f'{PROBE}.readiness.http.path: "health" is not allowed; write a path such as /healthz'],
        ),
        (
            "{liveness: {tcp: {port: 1}, successThreshold: 2}}",
            [
                f"{PROBE}.liveness.successThreshold: one good answer is enough for liveness; {FOR_READINESS}",
            ],
        ),
        (
            "{liveness: {tcp: {port: 1}, interval: 10ms}}",
            [f"{PROBE}.liveness.interval: 10ms is too small, the least is 100ms"],
        ),
        (
            "{liveness: {tcp: {port: 1}, failureThreshold: 0}}",
            [f"{PROBE}.liveness.failureThreshold: 0 is too small, the least is 1"],
        ),
    ],
)
def test_probes_ask_one_question_each(lines: str, complaints: list[str]) -> None:
    assert mistakes(lines) == complaints


def service(spec: str) -> str:
    return texts.container("ports: [{name: http, target: 80}]").replace("spec:", f"spec:\n  {spec}")


@pytest.mark.parametrize(
    ("spec", "complaints"),
    [
        ("networks: [front, other/back]", []),
        (
            "networks: [Front]",
            [f'spec.networks[0]: "Front" is not the name of a network; {A_NAME}'],
        ),
        ("networks: [a, b, a]", ['spec.networks[2]: "a" is there twice']),
        ("allow: [{from: api}, {from: other/api, ports: [http, 80]}]", []),
        ("allow: [{ports: [http]}]", ["spec.allow[0].from: missing"]),
        (
            "allow: [{from: api, ports: [https]}]",
            ['spec.allow[0].ports[0]: the service has no port "https"; did you mean "http"?'],
        ),
        (
            "allow: [{from: api, ports: [443]}]",
            ['spec.allow[0].ports[0]: the service has no port "443"; known are http'],
        ),
        (
            "allow: [{from: a/b/c}]",
            [f'spec.allow[0].from: "a/b/c" is not the name of a service; {A_NAME}'],
        ),
    ],
)
def test_networks_and_rules_are_names(spec: str, complaints: list[str]) -> None:
    assert [one.partition(": ")[2] for one in texts.mistakes(service(spec))] == complaints


def test_a_network_is_an_object() -> None:
    (network,) = texts.read("kind: Network\nmeta: {name: back}\nspec: {internal: true}\n")
    assert isinstance(network, pb.Network)
    assert network.spec.internal


def test_the_default_network_is_there_already() -> None:
    (mistake,) = texts.mistakes("kind: Network\nmeta: {name: default}\n")
    assert "every namespace has a network default already" in mistake
