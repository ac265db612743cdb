"""Objects out of documents, and every mistake at once with its place."""

import time

import pytest

import manifests
from manifests import mistakes as bounds
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

BAD = """
apiVersion: orch/v1
kind: Service
meta:
  name: Hello
  labels: {a: b, "-x": y}
spec:
  replicas: 1_000
  template:
    container:
      imagee: hello
      env:
        ANSWER: no
        1A: x
        Z:
      tty: yes
      ports:
        - {target: 0, published: 80}
        - {target: 80, protocol: TPC}
      resources: {limits: {memory: 1Mi, cpu: 0.5}, reservations: {cpu: 1, memory: 010}}
      ulimits: {nofil: {soft: 0, hard: 0}, core: {soft: 5}}
      stopSignal: SIGTREM
    restart: {condition: onFailures, window: 10}
  stop_grace_period: 3s
  onNodeLoss:
    replaceAfter:5s
---
kind: Servce
---
kind: Task
---
- a
---
kind: Node
meta: {name: n1, namespace: x}
metadata: x
"""

ALL_OF_THEM = """\
4:9: meta.name: "Hello" is not allowed; write small letters, digits and '-', beginning and ending with a letter or digit
5:18: meta.labels.-x: not a label's name; write at most 128 letters, digits and . _ / - , beginning and ending with a \
letter or digit
7:13: spec.replicas: 1_000 is not written as a plain whole number; write 1000
10:7: spec.template.container.imagee: unknown field; did you mean "image"?
13:9: spec.template.container.env.1A: not a variable's name; write letters, digits and _ . - , beginning with a letter \
or _
14:9: spec.template.container.env.Z: has no value; write "" for an empty text, or remove it
15:12: spec.template.container.tty: "yes" is not true or false; write true, without quotes
17:20: spec.template.container.ports[0].target: 0 is too small, the least is 1
18:34: spec.template.container.ports[1].protocol: "TPC" is not a known word; did you mean "tcp"?
19:36: spec.template.container.resources.limits.memory: 1Mi is too small, the least is 4Mi
19:72: spec.template.container.resources.reservations.cpu: 1 is more than the limit, 500m
19:83: spec.template.container.resources.reservations.memory: 010 begins with a zero; write 10, or 8 if it is octal
20:17: spec.template.container.ulimits.nofil: not a limit of a process; did you mean "nofile"?
20:44: spec.template.container.ulimits.core.hard: missing
21:19: spec.template.container.stopSignal: no signal "SIGTREM"; did you mean "SIGTERM"?
22:26: spec.template.restart.condition: "onFailures" is not a known word; did you mean "on-failure"?
22:46: spec.template.restart.window: not a duration: '10'; write it like 10s, 1m30s or 250ms
23:3: spec.stop_grace_period: unknown field; it belongs to spec.template
25:5: spec.onNodeLoss: a single value instead of a mapping; write a space after the ':'
27:7: kind: unknown kind "Servce"; did you mean "Service"?
29:7: kind: a Task is made by the system; manifests hold Service, Node, Network
31:1: a list instead of an object; begin with "kind: Service"
34:29: meta.namespace: a Node belongs to the whole cluster; remove it
35:1: metadata: unknown field; did you mean "meta"?"""


def test_every_mistake_is_told_at_once_with_its_place() -> None:
    assert "\n".join(texts.mistakes(BAD)) == ALL_OF_THEM


def test_a_mistake_has_parts_for_programs() -> None:
    with pytest.raises(manifests.InvalidManifest) as caught:
        texts.read(texts.container("imagee: x"))
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.column) == ("m.yaml", 7, 7)
    assert (mistake.path, mistake.message) == ("spec.template.container.imagee", "unknown field")
    assert mistake.hint == 'did you mean "image"?'
    assert str(caught.value) == str(mistake)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("meta: {name: web}", '1:1: kind: an object has to say its kind; write kind: "Service", "Node" or "Network"'),
        (
            "kind:\nmeta: {name: web}",
            '1:1: kind: an object has to say its kind; write kind: "Service", "Node" or "Network"',
        ),
        ("kind: service", '1:7: kind: unknown kind "service"; did you mean "Service"?'),
        ("kind: Deployment", '1:7: kind: unknown kind "Deployment"; kinds are Service, Node, Network'),
        ("kind: Revision", "1:7: kind: a Revision is made by the system; manifests hold Service, Node, Network"),
        ("kind: [Service]", '1:1: kind: an object has to say its kind; write kind: "Service", "Node" or "Network"'),
        (
            "apiVersion: v1\nkind: Node\nmeta: {name: a}",
            "1:13: apiVersion: a version that is not known here; this is orch/v1",
        ),
        ("just text", '1:1: a single value instead of an object; begin with "kind: Service"'),
        ("kind: Node", "1:1: meta: missing"),
        ("kind: Service\nspec: {template: {container: {image: a}}}", "1:1: meta: missing"),
        ("kind: Node\nmeta:", "2:1: meta: missing"),
        ("kind: Node\nmeta: {}", "2:1: meta.name: missing"),
        ("kind: Node\nmeta: {name: }", "2:8: meta.name: missing"),
        ("kind: List\nitems: {}", "2:8: items: a List needs a list of objects"),
        ("kind: List\nitems: [a]", "2:9: items[0]: a single value instead of an object"),
        ("kind: List\nitem: []\nitems: []", "2:1: item: unknown field; a List has items only"),
    ],
)
def test_documents_that_are_no_objects(text: str, complaint: str) -> None:
    assert texts.mistakes(text) == [complaint]


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("working_dir: /", '7:7: spec.template.container.working_dir: unknown field; did you mean "workingDir"?'),
        ("WorkingDir: /", '7:7: spec.template.container.WorkingDir: unknown field; did you mean "workingDir"?'),
        ("memory: 64Mi", "7:7: spec.template.container.memory: unknown field; "),
        ("replaceAfter: 5s", "7:7: spec.template.container.replaceAfter: unknown field; it belongs to spec.onNodeLoss"),
        ("command: ls -l", "7:16: spec.template.container.command: a single value instead of a list; "),
        (
            "env: [PASSWORD=hunter2]",
            "7:12: spec.template.container.env: a list instead of a mapping; write it as {PASSWORD: value}",
        ),
        ("env: ['a b']", "7:12: spec.template.container.env: a list instead of a mapping; write it as {NAME: value}"),
        ("secrets: [a]", "7:7: spec.template.container.secrets: unknown field; there are no secrets yet"),
        ("configs: [a]", "7:7: spec.template.container.configs: unknown field; there are no configs yet"),
        ("env: {A: [b]}", "7:16: spec.template.container.env.A: a list instead of a text"),
        ("ports: [80]", "7:15: spec.template.container.ports[0]: a single value instead of a mapping"),
        ("workingDir: tmp", '7:19: spec.template.container.workingDir: "tmp" is not allowed; write an absolute path'),
        ("hostname: {a: b}", "7:17: spec.template.container.hostname: a mapping instead of a text"),
        ('user: "a\\0b"', "7:13: spec.template.container.user: a text cannot hold a NUL character"),
        ("logs: {maxFiles: 0}", "7:24: spec.template.container.logs.maxFiles: 0 is too small, the least is 1"),
    ],
)
def test_fields_that_are_wrong(lines: str, complaint: str) -> None:
    (found,) = texts.mistakes(texts.container(lines))
    assert found.startswith(complaint)


def test_what_it_depends_on_is_no_list() -> None:
    text = texts.container("").replace("spec:", "spec:\n  dependsOn: [db, cache]")
    assert texts.mistakes(text) == [
        "4:14: spec.dependsOn: a list instead of a mapping; write it as {db: ready}",
    ]


def test_a_field_that_could_not_be_read_is_not_also_called_missing() -> None:
    assert texts.mistakes("kind: Service\nmeta: {name: web}\nspec: {template: {container: []}}") == [
        "3:30: spec.template.container: a list instead of a mapping"
    ]


def test_what_is_missing_is_told_at_what_it_is_missing_from() -> None:
    assert texts.mistakes("kind: Service\nmeta: {name: web}\nspec:\n  template:\n    container: {tty: true}\n") == [
        "5:5: spec.template.container.image: missing"
    ]


def test_an_object_may_be_written_once() -> None:
    """In all sources together, since one of the two would win without a word."""
    text = "kind: Service\nmeta: {name: web}\nspec: {template: {container: {image: hello}}}\n"
    sources = [manifests.Source(name=name, text=text.encode()) for name in ("a.yaml", "b.yaml")]
    with pytest.raises(manifests.InvalidManifest) as caught:
        manifests.read(sources)
    assert str(caught.value) == (
        'b.yaml:2:14: meta.name: Service "default/web" is here twice; the first is at a.yaml:2:14; '
        "remove or rename one of them"
    )


def test_the_same_name_in_two_namespaces_is_two_objects() -> None:
    one = "kind: Service\nmeta: {name: web}\nspec: {template: {container: {image: hello}}}\n"
    other = one.replace("name: web", "name: web, namespace: other")
    assert [value.meta.namespace for value in texts.read(f"{one}---\n{other}")] == ["default", "other"]


def test_objects_without_a_namespace_get_that_of_the_call() -> None:
    text = texts.container("") + "---\nkind: Node\nmeta: {name: n}\n"
    service, node = manifests.read([manifests.Source(name="a", text=text.encode())], namespace="team").objects
    assert (service.meta.namespace, node.meta.namespace) == ("team", "")


def test_what_the_system_sets_is_ignored_whatever_it_is() -> None:
    """A newer version may print what this one does not know."""
    plain = texts.read(texts.container(""))
    text = texts.container("") + "status: {newer: [1, 2]}\n"
    assert texts.read(text.replace("{name: web}", "{name: web, id: x, version: 7, createdAt: never}")) == plain


def test_keys_with_x_are_ignored_at_the_top_only() -> None:
    assert texts.read(texts.container("") + "x-notes: {a: [b]}\n") == texts.read(texts.container(""))
    assert len(texts.mistakes(texts.container("x-notes: a"))) == 1


def test_a_list_holds_objects() -> None:
    item = "{kind: Node, meta: {name: %s}}"
    found = texts.read(f"apiVersion: orch/v1\nkind: List\nitems:\n- {item % 'a'}\n- {item % 'b'}\n")
    assert [value.meta.name for value in found] == ["a", "b"]


REBALANCED = "kind: Service\nmeta: {name: web}\nspec:\n  rebalance: %s\n  template: {container: {image: hello}}\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("off", pb.RebalancePolicy(mode=pb.REBALANCE_MODE_OFF)),
        ('"on"', pb.RebalancePolicy(mode=pb.REBALANCE_MODE_ON)),
        ("{mode: off}", pb.RebalancePolicy(mode=pb.REBALANCE_MODE_OFF)),
        ("{maxMovesPerMinute: 2}", pb.RebalancePolicy(max_moves_per_minute=2)),
    ],
)
def test_a_message_may_be_written_in_short(written: str, meant: pb.RebalancePolicy) -> None:
    """And is printed so, where nothing else is in it."""
    (value,) = texts.read(REBALANCED % written)
    assert isinstance(value, pb.Service)
    assert value.spec.rebalance == meant
    assert texts.read(manifests.to_yaml(value)) == (value,)
    assert ("rebalance: " in manifests.to_yaml(value)) == bool(meant.mode), "in one line"


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("onn", '4:14: spec.rebalance.mode: "onn" is not a known word; did you mean "on"?'),
        ("{maxMovesPerMinute: 0}", "4:34: spec.rebalance.maxMovesPerMinute: 0 is too small, the least is 1"),
        ("[off]", "4:14: spec.rebalance: a list instead of a mapping"),
    ],
)
def test_what_is_wrong_in_short_is_told_as_at_length(written: str, complaint: str) -> None:
    assert texts.mistakes(REBALANCED % written) == [complaint]


def test_a_place_can_be_asked_for_later() -> None:
    """The API refuses by path; `apply` says where that was written."""
    text = texts.container("env: {A: b}").encode()
    (written,) = manifests.read([manifests.Source(name="m.yaml", text=text)]).written
    assert str(written.place_of(("spec", "template", "container", "env", "A"))) == "m.yaml:7:16"
    assert str(written.place_of(("spec", "template", "container", "args"))) == "m.yaml:5:5"
    assert str(written.place_of(())) == "m.yaml:1:1"


def test_the_number_of_mistakes_is_bounded() -> None:
    found = texts.mistakes(texts.container("\n".join(f"wrong{number}: x" for number in range(1000))))
    assert len(found) == bounds.MAX_MISTAKES + 1
    assert found[-1].endswith("800 more mistakes are not shown")


def test_a_thousand_services_are_read_in_a_moment() -> None:
    text = "".join(f"---\n{texts.container('env: {A: b}').replace('web', f'web-{number}')}" for number in range(1000))
    started = time.process_time()
    found = texts.read(text)
    taken = time.process_time() - started
    assert len(found) == 1000
    assert all(isinstance(value, pb.Service) for value in found)
    assert taken < 5, f"1,000 documents took {taken:.1f} s of processor time"
