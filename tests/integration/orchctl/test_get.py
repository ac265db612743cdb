"""`get` and `describe` with the real program: tables, documents, and what cannot be found."""

import json
from collections.abc import Callable

import grpc

from manifests import reader
from manifests.documents import Source
from protos.orch.v1 import control_pb2 as control
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples
from tests.support.fake_control import FakeControl
from tests.support.orchctl import Result

Run = Callable[..., Result]


def test_get_shows_a_table(run: Run, fake: FakeControl) -> None:
    fake.put(samples.node())
    fake.put(samples.task(1))
    lines = run("get", "tasks").out.splitlines()
    assert lines[0].split() == ["NAME", "NODE", "STATE", "READY", "RESTARTS", "ADDRESS", "AGE", "MESSAGE"]
    assert lines[1].split()[:4] == ["hello-1-aaaaaaaa", "n1", "RUNNING", "yes"]


def test_what_only_rows_show_is_asked_for_with_rows_only(run: Run, fake: FakeControl) -> None:
    fake.put(samples.task(1))
    for form, kinds in (("json", ["task"]), ("name", ["task"]), ("wide", ["task", "node"])):
        fake.requests.clear()
        assert run("get", "tasks", "-o", form).code == 0
        assert [request.kind for request in fake.asked(control.ListRequest)] == kinds
    fake.requests.clear()
    assert run("get", "tasks", "-o", "name", "--sort-by", "node").code == 0
    assert [request.kind for request in fake.asked(control.ListRequest)] == ["task", "node"]


def test_what_yaml_shows_can_be_applied_again(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    fake.put(samples.service("web"))
    shown = run("get", "services", "-o", "yaml").out
    values = reader.read([Source(name="shown", text=shown.encode())]).objects
    assert [value.meta.name for value in values] == ["hello", "web"]
    assert run("apply", "-f", "-", "--detach", stdin=shown).out == "service/hello unchanged\nservice/web unchanged\n"


def test_a_pipe_gets_exactly_what_is_stored(run: Run, fake: FakeControl) -> None:
    """Signs that a terminal is kept from, too: what was shown can be applied again."""
    service = samples.service()
    service.spec.template.container.env["ODD"] = "\u202e turned, \x9b, \x1b[2J, tab\t, two\nlines, \u2028, yes"
    fake.put(service)
    shown = run("get", "svc", "-o", "yaml").out
    (value,) = reader.read([Source(name="shown", text=shown.encode())]).objects
    assert isinstance(value, pb.Service)
    assert value.spec == service.spec
    (listed,) = json.loads(run("get", "svc", "-o", "json").out)
    assert listed["spec"]["template"]["container"]["env"] == dict(service.spec.template.container.env)


def test_json_is_a_list_or_the_one_that_was_named(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    assert [each["meta"]["name"] for each in json.loads(run("get", "svc", "-o", "json").out)] == ["hello"]
    assert json.loads(run("get", "svc", "hello", "-o", "json").out)["spec"]["replicas"] == 3
    assert json.loads(run("get", "tasks", "-o", "json").out) == []


def test_names_can_be_passed_on(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    name = run("get", "svc", "-o", "name").out.strip()
    assert name == "service/hello"
    assert run("delete", name).code == 0
    assert fake.find("service", "default", "hello") is None


def test_an_empty_list_is_told_and_no_failure(run: Run) -> None:
    result = run("get", "services")
    assert (result.code, result.out, result.err) == (0, "", "no services in namespace default\n")


def test_what_was_named_has_to_be_there(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    result = run("get", "svc", "hello", "nope")
    assert result.code == 1
    assert "hello" in result.out
    assert result.err == "orchctl: there is no service 'nope' in namespace default\n"


def test_all_namespaces_have_a_column(run: Run, fake: FakeControl) -> None:
    elsewhere = samples.service("far")
    elsewhere.meta.namespace = "shop"
    fake.put(elsewhere)
    assert run("get", "svc").out == ""
    assert run("get", "svc", "-A").out.splitlines()[1].split()[:2] == ["shop", "far"]


def test_describe_and_inspect_show_pages(run: Run, fake: FakeControl) -> None:
    fake.put(samples.service())
    fake.put(samples.PENDING)
    fake.put(samples.node())
    page = run("describe", "service", "hello").out
    assert "3 of 3 ready" in page
    assert "not enough memory" in page
    assert "10.112.1.0/24" in run("node", "inspect", "n1").out


def test_a_refusal_shows_message_and_hint(run: Run) -> None:
    result = run("describe", "service", "nope")
    assert result.code == 1
    assert result.err == "orchctl: there is no service 'nope'\nhint: look at the list\n"


def test_every_field_of_a_refusal_is_a_line(run: Run, fake: FakeControl, hello: str) -> None:
    error = control.Error(
        message="2 mistakes",
        fields=[
            control.FieldError(object="Service default/hello", path="spec.replicas", message="too many"),
            control.FieldError(message="whatever"),
        ],
    )
    fake.refuses["Apply"] = (grpc.StatusCode.INVALID_ARGUMENT, error)
    result = run("apply", "-f", hello)
    assert result.code == 2
    assert result.err.splitlines() == [
        "Service default/hello: spec.replicas: too many",
        "whatever",
        "orchctl: 2 mistakes",
    ]
