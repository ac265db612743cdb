"""What is written is read back to the same object."""

import json

import yaml
from hypothesis import given, settings

import manifests
from manifests import write
from protos import kinds
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import strategies


def read_back(text: str) -> kinds.StoredObject:
    (value,) = manifests.read([manifests.Source(name="written.yaml", text=text.encode())]).objects
    return value


@settings(deadline=None, max_examples=50)
@given(service=strategies.services())
def test_any_service_is_read_back_from_yaml(service: pb.Service) -> None:
    assert read_back(manifests.to_yaml(service)) == service
    assert json.loads(json.dumps(manifests.to_dict(service))) == manifests.to_dict(service)


@settings(deadline=None, max_examples=20)
@given(node=strategies.nodes())
def test_any_node_is_read_back_from_yaml(node: pb.Node) -> None:
    assert read_back(manifests.to_yaml(node)) == node


@settings(deadline=None)
@given(text=strategies.TEXTS)
def test_other_readers_of_yaml_see_the_same_text(text: str) -> None:
    """A reader that guesses (YAML 1.1) takes no text of ours for a number, a date or a truth."""
    written = "\n".join(write._mapping({"a": text, "b": [text], text or "k": 1}, ""))
    assert yaml.safe_load(written + "\n") == {"a": text, "b": [text], text or "k": 1} | (
        {} if text != "a" else {"a": 1}
    )


def test_what_the_system_set_is_written_and_ignored_when_it_is_read() -> None:
    """What `get -o yaml` prints can be applied again."""
    service = pb.Service(
        meta=pb.Meta(id="s1", name="web", namespace="default", version=7, generation=2, created_at=1_769_860_800_123),
        spec=pb.ServiceSpec(replicas=0, template=pb.TaskTemplate(container=pb.Container(image="hello"))),
        status=pb.ServiceStatus(replicas=3, running=2, message="2 of 3 run: waits"),
    )
    text = manifests.to_yaml(service)
    assert text == (
        "kind: Service\n"
        "meta:\n"
        "  id: s1\n"
        "  name: web\n"
        "  namespace: default\n"
        "  version: 7\n"
        "  generation: 2\n"
        '  createdAt: "2026-01-31T12:00:00.123Z"\n'
        "spec:\n"
        "  replicas: 0\n"
        "  template:\n"
        "    container:\n"
        "      image: hello\n"
        "status:\n"
        "  replicas: 3\n"
        "  running: 2\n"
        '  message: "2 of 3 run: waits"\n'
    )
    wish = pb.Service(meta=pb.Meta(name="web", namespace="default"), spec=service.spec)
    assert read_back(text) == wish


def test_a_task_can_be_printed() -> None:
    """Kinds that nobody writes are printed too, with words for states."""
    task = pb.Task(
        meta=pb.Meta(name="web-1-abcdefgh"),
        desired_state=pb.DESIRED_STATE_RUNNING,
        status=pb.TaskStatus(state=pb.TASK_STATE_PENDING, refusals=[pb.Refusal(filter="resources", nodes=3)]),
    )
    assert manifests.to_yaml(task) == (
        "kind: Task\n"
        "meta:\n"
        "  name: web-1-abcdefgh\n"
        "desiredState: running\n"
        "status:\n"
        "  state: pending\n"
        "  refusals:\n"
        "    - filter: resources\n"
        "      nodes: 3\n"
    )


def test_quantities_need_no_quotes_and_texts_of_several_lines_are_blocks() -> None:
    container = pb.Container(
        image="hello",
        args=["-c", "echo a\n  echo b\n", "no trailing\nline end", "space \nat an end"],
        env={"SWITCH": "on"},
        resources=pb.Resources(limits=pb.ResourceLimits(cpu=2000, memory=64 * 2**20)),
    )
    service = pb.Service(meta=pb.Meta(name="web"), spec=pb.ServiceSpec(template=pb.TaskTemplate(container=container)))
    assert manifests.to_yaml(service).partition("container:\n")[2] == (
        "      image: hello\n"
        "      args:\n"
        '        - "-c"\n'
        "        - |\n"
        "          echo a\n"
        "            echo b\n"
        "        - |-\n"
        "          no trailing\n"
        "          line end\n"
        '        - "space \\nat an end"\n'
        "      env:\n"
        '        SWITCH: "on"\n'
        "      resources:\n"
        "        limits:\n"
        "          cpu: 2\n"
        "          memory: 64Mi\n"
    )
