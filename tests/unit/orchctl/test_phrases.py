"""Single facts in words."""

import pytest

from orchctl import amounts, health, pages, phrases, tables
from protos.orch.v1 import objects_pb2 as pb
from tests.support import samples


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (-5000, "0s"),
        (999, "0s"),
        (59_000, "59s"),
        (60_000, "1m"),
        (130_000, "2m10s"),
        (10 * 60_000 + 5000, "10m"),
        (3_600_000, "1h"),
        (2 * 3_600_000 + 5 * 60_000, "2h5m"),
        (25 * 3_600_000, "1d1h"),
        (400 * 86_400_000, "400d"),
    ],
)
def test_an_age_is_precise_while_it_is_young(milliseconds: int, text: str) -> None:
    assert amounts.age(milliseconds) == text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0"), (1023, "1023"), (1536, "1.5Ki"), (20 << 20, "20Mi"), (4 << 30, "4.0Gi"), (5000 << 40, "5000Ti")],
)
def test_a_size_is_near_enough_to_compare(size_bytes: int, text: str) -> None:
    assert amounts.size(size_bytes) == text


def test_a_service_without_a_number_of_replicas_asks_for_one() -> None:
    assert phrases.asked(pb.Service()) == 1


def test_a_task_that_is_told_to_stop_and_lives_is_stopping() -> None:
    assert phrases.task_state(samples.task(1, desired=pb.DESIRED_STATE_SHUTDOWN)) == "STOPPING"
    ended = samples.task(1, state=pb.TASK_STATE_SHUTDOWN, desired=pb.DESIRED_STATE_SHUTDOWN)
    assert phrases.task_state(ended) == "SHUTDOWN"


def test_refusals_count_while_a_task_waits_only() -> None:
    """What no node took once does not explain a task that runs."""
    refusals = [pb.Refusal(filter="resources", nodes=2)]
    assert phrases.task_message(samples.task(1, message="fine", refusals=refusals)) == "fine"
    assert phrases.task_message(samples.task(1, state=pb.TASK_STATE_PENDING, refusals=refusals)) == (
        "no node takes it: 2 nodes: resources"
    )


def test_ports_show_outside_and_inside() -> None:
    ports = [pb.Port(target=80, published=8080), pb.Port(target=53, protocol=pb.PROTOCOL_UDP)]
    assert phrases.ports(ports) == "8080→80/tcp 53/udp"


def test_probes_are_told_with_what_was_left_out() -> None:
    """Each question in one line, with the schema's defaults; a template without any has none."""
    template = pb.TaskTemplate(drain_seconds=90)
    template.container.ports.add(target=80)
    asked = template.container.probes
    asked.startup.tcp.port = "web"
    asked.readiness.MergeFrom(
        pb.Probe(interval=500, timeout=10, failure_threshold=1, success_threshold=2, start_period=5_000)
    )
    asked.readiness.tcp.port = "8"
    readiness = "TCP connection to port 8, every 500ms within 10ms, until 1 bad answer, after them 2 good ones"
    assert health.facts(template) == [
        ("Startup", "TCP connection to port web, every 10s within 1s, until 3 bad answers"),
        ("Readiness", f"{readiness}, none counts before 5s"),
        ("Drains for", "1m30s"),
    ]
    assert health.facts(pb.TaskTemplate()) == [("Drains for", "")]


def test_a_node_whose_agent_is_restarted_says_since_when_and_for_how_long() -> None:
    node = samples.node()
    assert phrases.node_state_now(node, samples.NOW_MS) == "READY"
    node.status.state, node.status.since = pb.NODE_STATE_DISCONNECTED, samples.NOW_MS - 4_000
    assert phrases.node_state_now(node, samples.NOW_MS) == "DISCONNECTED"
    node.status.expected_by = samples.NOW_MS + 26_000
    said = "RESTARTING (its agent went in order 4s ago, expected within 30s)"
    assert phrases.node_state_now(node, samples.NOW_MS) == said
    view = tables.View(now_ms=samples.NOW_MS)
    assert any(line.split(maxsplit=1) == ["State:", said] for line in pages.node(node, [], view))


def test_rules_show_who_is_let_in_where() -> None:
    assert phrases.allow_rule(pb.AllowRule(**{"from": "api"}, ports=["http", "443"])) == "api to http, 443"
    assert phrases.allow_rule(pb.AllowRule(**{"from": "other/api"})) == "other/api to all ports"
    assert phrases.source(pb.EndpointSource(service="other/api")) == "other/api to all ports"


def test_the_first_few_addresses_are_shown() -> None:
    tasks = [pb.EndpointTask(address=f"10.0.0.{number}", ready=number != 2) for number in range(1, 7)]
    assert phrases.ready_addresses(tasks) == "10.0.0.1, 10.0.0.3, 10.0.0.4 and 2 more"
    assert phrases.ready_of_all(tasks) == "5/6"
    assert phrases.ready_addresses([]) == ""
