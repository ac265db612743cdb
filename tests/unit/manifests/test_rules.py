"""Rules hold for objects from anywhere, and are said by path."""

import pytest
from hypothesis import given, settings

import manifests
from manifests import checks, words
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import strategies, texts

NOT_A_NAME = "not a variable's name; write letters, digits and _ . - , beginning with a letter or _"


def problems(lines: str) -> list[str]:
    """Mistakes of a container with these lines: what follows `spec.template.container.`."""
    return [
        found.partition(": ")[2].removeprefix("spec.template.container.")
        for found in texts.mistakes(texts.container(lines))
    ]


@pytest.mark.parametrize(
    ("lines", "complaints"),
    [
        ("resources: {limits: {cpu: 1, memory: 64Mi}, reservations: {cpu: 1, memory: 64Mi}}", []),
        ("resources: {reservations: {cpu: 100, memory: 1Gi}}", []),
        (
            "resources: {limits: {cpu: 1}, reservations: {cpu: 1.5}}",
            ["resources.reservations.cpu: 1500m is more than the limit, 1"],
        ),
        (
            "resources: {limits: {memory: 64Mi}, reservations: {memory: 1Gi}}",
            ["resources.reservations.memory: 1Gi is more than the limit, 64Mi"],
        ),
        ("ports: [{target: 80, published: 80, mode: host}, {target: 80, protocol: udp}]", []),
        ("ports: [{target: 80, published: 80}]", []),
        (
            "ports: [{target: 80, mode: host}]",
            ["ports[0].mode: tells where a published port listens; write published, too"],
        ),
        ("ports: [{target: 80}, {target: 80}]", ["ports[1].target: 80/tcp is used by ports[0] already"]),
        ("ports: [{target: 80}, {target: 80, protocol: tcp}]", ["ports[1].target: 80/tcp is used by ports[0] already"]),
        (
            "ports: [{target: 80, published: 8, mode: host}, {target: 81, published: 8, mode: host}]",
            ["ports[1].published: 8/tcp is used by ports[0] already"],
        ),
        ("ports: [{name: a, target: 80}, {name: a, target: 81}]", ["ports[1].name: a is used by ports[0] already"]),
        (
            "ports: [{target: 80}, {published: 70000, mode: host}]",
            ["ports[1].target: missing", "ports[1].published: 70000 is too big, the most is 65535"],
        ),
        ("env: {_A.b-c: x}", []),
        ('env: {"A=B": x}', [f'env["A=B"]: {NOT_A_NAME}']),
        ('env: {"": x}', [f'env[""]: {NOT_A_NAME}']),
        ("env: {ORCH_NODE: x}", ["env.ORCH_NODE: names with ORCH_ are the system's; give it another name"]),
        ("ulimits: {nofile: {soft: 2, hard: 2}}", []),
        ("ulimits: {nofile: {soft: 3, hard: 2}}", ["ulimits.nofile.soft: 3 is more than hard, 2"]),
        ("ulimits: {NOFILE: {soft: 1, hard: 2}}", ['ulimits.NOFILE: not a limit of a process; did you mean "nofile"?']),
        ("ulimits: {core: {soft: -1, hard: 2}}", ["ulimits.core.soft: -1 is too small, the least is 0"]),
        ("stopSignal: SIGRTMIN+3", []),
        ("stopSignal: 15", []),
        ("stopSignal: 65", ['stopSignal: no signal "65"; write it like SIGTERM']),
        ("stopSignal: SIGTREM", ['stopSignal: no signal "SIGTREM"; did you mean "SIGTERM"?']),
        ("stopSignal: sigterm", ['stopSignal: no signal "sigterm"; did you mean "SIGTERM"?']),
    ],
)  # fmt: skip
def test_rules_across_the_fields_of_a_container(lines: str, complaints: list[str]) -> None:
    assert problems(lines) == complaints


@pytest.mark.parametrize(
    "image", ["hello", "hello:1.2", "r.io:5000/a/b_c:x", "hello@sha256:" + "0" * 64, "localhost/a"]
)
def test_names_of_images(image: str) -> None:
    container = pb.Container(image=image)
    assert manifests.validate(container) == ()


@pytest.mark.parametrize("image", ["Hello", "hello:", "hello world", "-a", "a//b", "a@sha256:12", ":1", "a:b:c", "a/"])
def test_what_cannot_be_the_name_of_an_image(image: str) -> None:
    (found,) = manifests.validate(pb.Container(image=image))
    assert found.path == "image"
    assert found.message == "not the name of an image"


@pytest.mark.parametrize(
    ("labels", "right"),
    [
        ({"app": "web", "example.org/tier": "a:b/c@d", "x": ""}, True),
        ({"-a": "b"}, False),
        ({"a b": "c"}, False),
        ({"a=b": "c"}, False),
        ({"a": "b,c"}, False),
        ({"a": "b c"}, False),
        ({"a" * 129: "b"}, False),
        ({"a": "b" * 129}, False),
    ],
)
def test_labels_can_be_selected_by(labels: dict[str, str], right: bool) -> None:
    """What `-l a=b,c=d` could not say is no label."""
    meta = manifests.validate(pb.Meta(name="a", labels=labels))
    template = manifests.validate(pb.TaskTemplate(container=pb.Container(image="a"), labels=labels))
    assert (meta == (), template == ()) == (right, right)


def test_annotations_take_any_text() -> None:
    assert manifests.validate(pb.Meta(name="a", annotations={"note": "any, text = is\nright"})) == ()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (pb.Service(), "meta: missing"),
        (pb.Meta(name="a" * 51), "name: 51 characters, at most 50 are allowed"),
        (pb.Meta(name="a\n"), 'name: "a\\n" is not allowed'),
        (pb.Meta(name="a", labels={f"l{n}": "" for n in range(65)}), "labels: 65 entries, at most 64 are allowed"),
        (pb.Container(image="a", args=["x"] * 1025), "args: 1025 entries, at most 1024 are allowed"),
        (pb.Container(image="a", args=["x" * 131_072]), "args[0]: longer than 131071 bytes"),
        (pb.Container(image="a", args=["é" * 65_536]), "args[0]: longer than 131071 bytes"),
        (pb.Container(image="a", env={"A": "x" * 131_070}), "env.A: name and value are longer than"),
        (pb.Container(image="a", command=["a\0b"]), "command[0]: a text cannot hold a NUL character"),
        (pb.Port(target=80, protocol=7), "protocol: 7 is not a value that is known here"),  # type: ignore[arg-type]
        (pb.ServiceSpec(replicas=100_001), "replicas: 100001 is too big, the most is 100000"),
        (pb.RestartPolicy(window=999), "window: 999ms is too small, the least is 1s"),
        (pb.ServiceSpec(ttl=90_000 * 3_600_000), "ttl: 3750d (90000h) is too big, the most is 3650d (87600h)"),
        (pb.UpdatePolicy(delay=90_060_000), "delay: 1d1h1m (25h1m) is too big, the most is 1d (24h)"),
        (pb.Ulimit(soft=1), "hard: missing"),
    ],
)  # fmt: skip
def test_rules_of_single_fields_hold_without_a_text(message: pb.Service, complaint: str) -> None:
    """The API checks objects that never were YAML."""
    assert any(f"{found.path}: {found.message}".startswith(complaint) for found in manifests.validate(message))


@pytest.mark.parametrize(
    "message",
    [
        pb.ServiceSpec(replicas=100_000, template=pb.TaskTemplate(container=pb.Container(image="a"))),
        pb.Meta(name="a" * 50, labels={f"l{n}": "b" * 128 for n in range(64)}),
        pb.RestartPolicy(window=1000),
        pb.RestartPolicy(window=86_400_000),
        pb.ResourceLimits(cpu=10, memory=4 * 2**20, pids=1),
        pb.Port(target=65_535),
        pb.Container(image="a", args=["x" * 131_071], env={"A": "x" * 131_069}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_bounds_are_inclusive(message: pb.Service) -> None:
    assert manifests.validate(message) == ()


def test_an_object_that_cannot_be_stored_is_refused_as_a_whole() -> None:
    container = pb.Container(image="a", args=["x" * 100_000] * 11)
    (found,) = manifests.validate(container)
    assert found.path == ""
    assert str(checks.MAX_OBJECT_BYTES) in found.message


def test_what_the_system_sets_is_not_checked() -> None:
    service = pb.Service(
        meta=pb.Meta(name="a", id="any thing", version=-1),
        spec=pb.ServiceSpec(template=pb.TaskTemplate(container=pb.Container(image="a"))),
        status=pb.ServiceStatus(message="\0"),
    )
    assert manifests.validate(service) == ()


@settings(deadline=None, max_examples=30)
@given(service=strategies.services())
def test_defaults_break_no_rule(service: pb.Service) -> None:
    assert manifests.validate(manifests.resolve(service)) == ()


def test_some_fields_cannot_change() -> None:
    before = pb.Service(meta=pb.Meta(name="a", namespace="x", labels={"l": "1"}))
    after = pb.Service(meta=pb.Meta(name="b", namespace="x", labels={"l": "2"}))
    assert [found.path for found in manifests.validate_change(before, after)] == ["meta.name"]
    assert manifests.validate_change(before, before) == ()


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("SIGTERM", True), ("TERM", True), ("15", True), ("64", True), ("SIGRTMAX-30", True), ("RTMIN", True),
        ("", False), ("0", False), ("65", False), ("99999999999", False), ("SIG", False), ("SIGFOO", False),
        ("RTMIN+31", False), ("RTMIN+0", False), ("RTMIN-1", False), ("\u0661", False),
    ],
)  # fmt: skip
def test_signals_are_those_of_linux(text: str, known: bool) -> None:
    assert words.is_signal(text) is known


@pytest.mark.parametrize(
    ("update", "path"),
    [
        ({"max_surge": "1", "order": pb.UPDATE_ORDER_STOP_FIRST}, "order"),
        ({"max_surge": "25%", "parallelism": 2}, "parallelism"),
        ({"max_unavailable": "1", "parallelism": 0}, "parallelism"),
        ({"max_surge": "0", "max_unavailable": "0%"}, "maxSurge"),
        ({"max_unavailable": "0"}, "maxUnavailable"),
        ({"max_failure_ratio": "1.5"}, "maxFailureRatio"),
        ({"max_failure_ratio": "-1"}, "maxFailureRatio"),
        ({"max_surge": "half"}, "maxSurge"),
        ({"max_unavailable": "101%"}, "maxUnavailable"),
        ({"progress_deadline": 0}, "progressDeadline"),
        ({"canary": 200_000}, "canary"),
    ],
    ids=str,
)
def test_an_update_that_contradicts_itself_is_refused(update: dict[str, object], path: str) -> None:
    """With the place, and a remedy."""
    problems = manifests.validate(pb.UpdatePolicy(**update))  # type: ignore[arg-type]  # fields by name
    assert [problem.keys[-1] for problem in problems] == [path]
    assert all(problem.message for problem in problems)


@pytest.mark.parametrize(
    "update", [{"max_surge": "25%"}, {"max_surge": "1", "max_unavailable": "0"}, {"max_surge": "1", "parallelism": 1}]
)
def test_an_update_that_says_one_thing_is_taken(update: dict[str, object]) -> None:
    """A parallelism of 1 is what a resolved policy has, whatever else it says."""
    assert manifests.validate(pb.UpdatePolicy(**update)) == ()  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize("update", [{"max_unavailable": "100%"}, {"max_surge": "200%"}])
def test_an_update_may_replace_all_of_them_and_have_any_number_more(update: dict[str, str]) -> None:
    assert manifests.validate(pb.UpdatePolicy(**update)) == ()


@pytest.mark.parametrize(
    ("policy", "complaint"),
    [
        ("{maxUnavailable: 1}", ""),
        ("{minAvailable: 100%}", ""),
        (
            "{maxUnavailable: 1, minAvailable: 2}",
            (
                "8:32: spec.disruption.maxUnavailable: minAvailable says it already, and only one of the two can hold; "
                "remove maxUnavailable or minAvailable"
            ),
        ),
        (
            "{minAvailable: 150%}",
            "8:30: spec.disruption.minAvailable: 150% is more than all of them; write 100% or less, or a number",
        ),
        (
            "{maxUnavailable: 101%}",
            "8:32: spec.disruption.maxUnavailable: 101% is more than all of them; write 100% or less, or a number",
        ),
    ],
)
def test_what_may_be_missing_is_said_once_and_is_part_of_them(policy: str, complaint: str) -> None:
    assert texts.mistakes(texts.container("") + f"  disruption: {policy}\n") == ([complaint] if complaint else [])


FENCED = """
kind: Service
meta: {name: db}
spec:
  onNodeLoss: {fence: true, replaceAfter: %s}
  %s
  template: {container: {image: hello}}
"""


@pytest.mark.parametrize(
    ("after", "more", "complaint"),
    [
        ("9s", "replicas: 1", "spec.onNodeLoss.replaceAfter: is too short for fenced tasks"),
        ("10s", "mode: global", "spec.onNodeLoss.fence: a global service has one task on each node"),
        ("10s", "update: {order: start-first}", "spec.update.order: two tasks would run in one slot"),
        ("10s", "update: {maxSurge: 25%}", "spec.update.maxSurge: two tasks would run in one slot"),
        ("10s", "update: {maxSurge: 0%, maxUnavailable: 1}", ""),
        ("10s", "update: {order: stop-first}", ""),
        ("10s", "replicas: 3", ""),
    ],
)
def test_fenced_tasks_need_time_and_their_slots(after: str, more: str, complaint: str) -> None:
    found = texts.mistakes(FENCED % (after, more))
    assert len(found) == bool(complaint)
    assert all(complaint in one for one in found)


GLOBAL = """
kind: Service
meta: {name: edge}
spec:
  mode: global
  update: %s
  template: {container: {image: hello, ports: [{target: 80, published: 80, mode: %s}]}}
"""
WAITS = "a new task would wait for port 80 of its node, and the old one, which has it, for the new one"


@pytest.mark.parametrize(
    ("update", "mode", "complaint"),
    [
        ("{order: start-first}", "host", f"5:19: spec.update.order: {WAITS}; write stop-first"),
        ("{maxSurge: 1}", "host", f"5:22: spec.update.maxSurge: {WAITS}; write maxUnavailable instead"),
        ("{maxSurge: 0, maxUnavailable: 1}", "host", ""),
        ("{order: stop-first}", "host", ""),
        ("{parallelism: 2}", "host", ""),
        ("{order: start-first}", "ingress", ""),
    ],
)
def test_two_tasks_of_one_node_cannot_have_one_port_of_it(update: str, mode: str, complaint: str) -> None:
    assert texts.mistakes(GLOBAL % (update, mode)) == ([complaint] if complaint else [])


def test_a_fence_alone_says_what_it_needs() -> None:
    (found,) = texts.mistakes((FENCED % ("5s", "replicas: 1")).replace(", replaceAfter: 5s", ""))
    assert "write replaceAfter: 10s or more" in found
