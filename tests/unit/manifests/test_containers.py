"""What a manifest says of several containers, hooks, placeholders and dependencies is checked with place and remedy."""

import textwrap

import pytest

from manifests import dependencies
from protos import containers
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

CONTAINER = "spec.template.container"
INIT = "spec.template.init[0]"


def template(lines: str) -> list[str]:
    """The mistakes of a template with these lines."""
    return [
        one.partition(": ")[2] for one in texts.mistakes(texts.container("") + textwrap.indent(lines, "    ") + "\n")
    ]


def container(lines: str) -> list[str]:
    return [one.partition(": ")[2] for one in texts.mistakes(texts.container(lines))]


ONE_OF = "write exactly one of exec, http and sleep"
SHARED = "the containers of a task share its network and users"
ENDS = "an init container runs to its end, so it is neither asked nor told anything"


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ("init: [{name: migrate, image: tool}]\nsidecars: [{name: proxy, image: proxy}]", []),
        ("init: [{image: tool}]", [f"{INIT}.name: missing; logs and exec call it by its name; write one like migrate"]),
        ("init: [{name: main, image: a}]", [f'{INIT}.name: "main" is the name of the main container']),
        (
            "init: [{name: a, image: a}]\nsidecars: [{name: a, image: a}]",
            ['spec.template.sidecars[0].name: "a" is the name of init[0]'],
        ),
        (
            "sidecars: [{name: a, image: a, ports: [{target: 80}]}]",
            [f"spec.template.sidecars[0].ports: {SHARED}; write it in `container.ports`"],
        ),
        (
            "sidecars: [{name: a, image: a, privileged: true}]",
            [
                (
                    "spec.template.sidecars[0].privileged: a privileged container has the users of the node, "
                    "and this task has its own; write `userns: host` in the main container, or remove it"
                )
            ],
        ),
        (
            "init: [{name: a, image: a, probes: {liveness: {tcp: {port: 1}}}}]",
            [f"{INIT}.probes: {ENDS}; remove it, or make it a sidecar"],
        ),
    ],
)
def test_containers_around_the_main_one(lines: str, complaints: list[str]) -> None:
    """Names, and what is said once for all of them."""
    assert template(lines) == complaints


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ("lifecycle: {postStart: {exec: {command: [warm]}}, preStop: {sleep: 2s}}", []),
        ("lifecycle: {postStart: {}}", [f"{CONTAINER}.lifecycle.postStart: does nothing; {ONE_OF}"]),
        (
            "lifecycle: {preStop: {sleep: 1s, exec: {command: [a]}}}",
            [f"{CONTAINER}.lifecycle.preStop: has exec and sleep, and a hook does one thing; {ONE_OF}"],
        ),
        (
            "lifecycle: {preStop: {sleep: -3s}}",
            [f"{CONTAINER}.lifecycle.preStop.sleep: not a duration: '-3s'; write it like 10s, 1m30s or 250ms"],
        ),
        (
            "lifecycle: {preStop: {tcp: {port: 80}}}",
            [f"{CONTAINER}.lifecycle.preStop.tcp: unknown field; known are exec, http, sleep, timeout"],
        ),
        (
            "probes: {readiness: {exec: {command: echo}}}",
            [
                (
                    f"{CONTAINER}.probes.readiness.exec.command: a single value instead of a list; "
                    'write it as [a, b], or with one line "- a" for each item'
                )
            ],
        ),
        (
            "lifecycle: {preStop: {sleep: 3s, timeout: 1s}}",
            [
                (
                    f"{CONTAINER}.lifecycle.preStop.timeout: a hook that sleeps takes as long as it says; remove it, "
                    "and say in sleep how long"
                )
            ],
        ),
        (
            "lifecycle: {preStop: {sleep: 11s}}",
            [
                (
                    f"{CONTAINER}.lifecycle.preStop.sleep: 11s is longer than stopGracePeriod, 10s, "
                    "which it is part of; raise stopGracePeriod, or wait less"
                )
            ],
        ),
        ("env: {A: '${task.slot} ${node.labels.zone} ${HOME} $${task.x} ${other.x}'}", []),
        (
            "env: {A: '${task.slto}'}",
            [
                (
                    f'{CONTAINER}.env.A: there is no ${{task.slto}}; did you mean "task.slot"?; '
                    "$${ stands for a ${ of its own"
                )
            ],
        ),
        (
            "args: ['${node.label.zone}']",
            [
                (
                    f'{CONTAINER}.args[0]: there is no ${{node.label.zone}}; did you mean "node.labels.NAME"?; '
                    "$${ stands for a ${ of its own"
                )
            ],
        ),
    ],
)
def test_hooks_and_placeholders(lines: str, complaints: list[str]) -> None:
    """One thing a hook, and names that there are."""
    assert container(lines) == complaints


def test_a_cycle_is_named_the_short_way() -> None:
    """Whoever has to break it sees the services that it goes through, and no other."""
    graph = {"a": ["b", "x"], "b": ["c"], "c": ["a"], "x": ["a", "y"]}
    assert dependencies.cycle_through("a", graph) == ("a", "x", "a")
    assert dependencies.cycle_through("b", graph) == ("b", "c", "a", "b")
    assert dependencies.cycle_through("y", graph) == ()
    assert dependencies.cycle_through("d", {"d": ["d"]}) == ("d", "d")


def test_what_depends_on_others_goes_first() -> None:
    """Whatever the order of the files; what nothing binds stays in it; a cycle ends nothing."""
    graph = {"web": ["api", "cache"], "api": ["database"]}
    given = ["database", "api", "other", "web", "cache"]
    assert dependencies.dependents_first(given, graph) == ["web", "api", "database", "other", "cache"]
    assert sorted(dependencies.dependents_first(["a", "b"], {"a": ["b"], "b": ["a"]})) == ["a", "b"]


def reserving(cpu: int, memory: int = 0, **generic: int) -> pb.Container:
    reserved = pb.ResourceReservations(cpu=cpu, memory=memory, generic=generic)
    return pb.Container(resources=pb.Resources(reservations=reserved))


def test_a_task_needs_as_much_as_at_its_hungriest_moment() -> None:
    """Init containers one by one, then the main one with its sidecars."""
    made = pb.TaskTemplate(
        init=[reserving(200, 10), reserving(50, 900, gpu=1)],
        container=reserving(100, 100, gpu=1),
        sidecars=[reserving(50, 20), reserving(10, 5, gpu=2)],
    )
    found = containers.reserved(made)
    assert (found.cpu, found.memory, dict(found.generic)) == (200, 900, {"gpu": 3})
    alone = pb.TaskTemplate(container=reserving(7, 8))
    assert containers.reserved(alone) == alone.container.resources.reservations
