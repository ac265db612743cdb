"""What changed, in lines that people read."""

from hypothesis import given, settings

import manifests
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import strategies, texts


def changes(before: str, after: str) -> list[str]:
    """What changes when the lines of a container change."""
    (old,), (new,) = texts.read(texts.container(before)), texts.read(texts.container(after))
    return [line.removeprefix("spec.template.container.") for line in manifests.changes(old, new)]


def test_numbers_words_and_texts() -> None:
    assert changes("tty: true\nuser: a\nhostname: web", "hostname: b") == [
        'user: "a" → (none)',
        'hostname: "web" → "b"',
        "tty: true → (none)",
    ]


def test_quantities_are_written_as_in_a_manifest() -> None:
    before = "resources: {limits: {cpu: 1, memory: 64Mi}}"
    after = "resources: {limits: {cpu: 0.5, memory: 1Gi}}\nlogs: {maxSize: 1Mi}"
    assert changes(before, after) == [
        "resources.limits.cpu: 1 → 500m",
        "resources.limits.memory: 64Mi → 1Gi",
        "logs.maxSize: (none) → 1Mi",
    ]


def test_entries_of_maps_and_lists_are_compared_one_by_one() -> None:
    before = "args: [a, b]\nenv: {A: x, B: x}\nports: [{target: 80}]"
    after = "args: [a, c, d]\nenv: {B: y, C: z}\nports: [{target: 80, protocol: udp}, {target: 81}]"
    assert changes(before, after) == [
        'args[1]: "b" → "c"',
        'args[2]: (none) → "d"',
        'env.A: "x" → (none)',
        'env.B: "x" → "y"',
        'env.C: (none) → "z"',
        "ports[0].protocol: (none) → udp",
        "ports[1].target: (none) → 81",
    ]


def test_long_texts_are_cut() -> None:
    (line,) = changes("", f'user: "{"x" * 200}"')
    assert line == f'user: (none) → "{"x" * 79}…"'


def test_a_long_text_that_differs_at_its_end_still_shows_as_changed() -> None:
    assert len(changes(f"user: {'x' * 100}a", f"user: {'x' * 100}b")) == 1


def test_zero_differs_from_nothing_where_the_schema_says_so() -> None:
    nothing, zero = pb.ServiceSpec(), pb.ServiceSpec(replicas=0)
    assert manifests.changes(nothing, zero) == ("replicas: (none) → 0",)


def test_a_message_with_nothing_in_it_is_a_change() -> None:
    before, after = pb.TaskTemplate(), pb.TaskTemplate(restart=pb.RestartPolicy())
    assert manifests.changes(before, after) == ("restart: (none) → {}",)
    assert manifests.changes(after, before) == ("restart: {} → (none)",)


def test_what_the_system_sets_is_no_change() -> None:
    before = pb.Service(meta=pb.Meta(name="a", version=1), status=pb.ServiceStatus(running=1))
    after = pb.Service(meta=pb.Meta(name="a", version=2, id="x"), status=pb.ServiceStatus(running=2))
    assert manifests.changes(before, after) == ()


@settings(deadline=None, max_examples=30)
@given(before=strategies.services(), after=strategies.services())
def test_only_equal_wishes_have_no_change(before: pb.Service, after: pb.Service) -> None:
    assert manifests.changes(before, before) == ()
    assert (manifests.changes(before, after) == ()) == (before == after)
    assert len(manifests.changes(before, after)) == len(manifests.changes(after, before))
