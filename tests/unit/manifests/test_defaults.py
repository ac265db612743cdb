"""What holds where a manifest says nothing."""

from hypothesis import given, settings

import manifests
from manifests import defaults
from protos import schema
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import strategies


def test_a_template_gets_every_default() -> None:
    """What is absent and has defaults is made; what has none stays absent."""
    template = pb.TaskTemplate(container=pb.Container(image="a", ports=[pb.Port(target=80)]))
    assert manifests.resolve(template) == pb.TaskTemplate(
        container=pb.Container(
            image="a",
            ports=[pb.Port(target=80, protocol=pb.PROTOCOL_TCP, mode=pb.PUBLISH_MODE_INGRESS)],
            resources=pb.Resources(limits=pb.ResourceLimits(pids=4096)),
            logs=pb.LogPolicy(max_size=10 * 2**20, max_files=3),
            shm_size=64 * 2**20,
            image_pull_policy=pb.IMAGE_PULL_POLICY_MISSING,
        ),
        restart=pb.RestartPolicy(condition=pb.RESTART_CONDITION_ANY, attempts=5, window=300_000),
        stop_grace_period=10_000,
        drain_seconds=2,
    )


def test_what_was_said_stays() -> None:
    """A zero that was written is not the same as nothing."""
    template = pb.TaskTemplate(stop_grace_period=0, restart=pb.RestartPolicy(attempts=0, window=7000))
    resolved = manifests.resolve(template)
    assert (resolved.stop_grace_period, resolved.restart.attempts, resolved.restart.window) == (0, 0, 7000)


def test_what_a_person_has_to_say_is_not_made_up() -> None:
    """A missing container stays missing; `validate` says so."""
    assert not manifests.resolve(pb.TaskTemplate()).HasField("container")
    assert not manifests.resolve(pb.Service()).HasField("meta")


def test_a_question_that_is_not_asked_is_not_made_up() -> None:
    """A probe has defaults, but what it asks is for a person to say."""
    assert not manifests.resolve(pb.Container(image="a")).HasField("probes")
    asked = pb.Container(probes=pb.Probes(readiness=pb.Probe(http=pb.HttpProbe(port="80"))))
    resolved = manifests.resolve(asked).probes
    assert [field.name for field, _ in resolved.ListFields()] == ["readiness"]
    assert (resolved.readiness.http.path, resolved.readiness.interval) == ("/", 10_000)
    assert not resolved.readiness.HasField("tcp")


def test_the_original_is_not_changed() -> None:
    spec = pb.ServiceSpec()
    resolved = manifests.resolve(spec)
    assert spec == pb.ServiceSpec()
    assert resolved.mode == pb.SERVICE_MODE_REPLICATED
    assert resolved.on_node_loss.replace_after == 5000
    assert not resolved.HasField("replicas")


def test_objects_of_the_whole_cluster_get_no_namespace() -> None:
    assert manifests.resolve(pb.Service(meta=pb.Meta(name="a"))).meta.namespace == "default"
    node = manifests.resolve(pb.Node(meta=pb.Meta(name="a")))
    assert (node.meta.namespace, node.spec.availability) == ("", pb.AVAILABILITY_ACTIVE)


@settings(deadline=None, max_examples=30)
@given(service=strategies.services())
def test_resolving_twice_is_resolving_once(service: pb.Service) -> None:
    resolved = manifests.resolve(service)
    assert manifests.resolve(resolved) == resolved


def test_no_default_can_be_mistaken_for_nothing() -> None:
    """A default is never the zero of a field without presence, which would be filled in for ever."""
    for message in (pb.Service, pb.Node, pb.Network):
        stack = [message.DESCRIPTOR]
        while stack:
            for field in schema.fields_by_yaml_name(stack.pop()).values():
                if field.message_type is not None and not schema.rules(field).system:
                    stack.append(field.message_type)
                value = defaults.default(field)
                assert value is None or value or field.has_presence, field.full_name
