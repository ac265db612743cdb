"""The reference documentation comes from the schema."""

import pytest

from manifests import explain, fields
from protos import kinds

RESTART = """\
service.spec.template.restart: RestartPolicy
  What happens when the container ends.
  The agent restarts a container in place, at once, then after 1 s × 2ⁿ up to 60 s. After `attempts`
  restarts within `window` the task is FAILED and the leader makes another.

  condition: "any", "on-failure" or "never", default any
      After which end the container is started again.
  attempts: a whole number, default 5, at most 1000
      How many restarts in place there may be within `window`. 0: the first end is the task's.
  window: a duration like 10s or 1m30s, default 5m, at least 1s, at most 24h
      How far back restarts are counted.
"""  # noqa: RUF001 - the formula in the protos has a multiplication sign


def test_a_message_shows_its_fields_with_their_rules() -> None:
    assert explain.explain("service.spec.template.restart") == RESTART


def test_an_enum_shows_its_words() -> None:
    page = explain.explain("service.spec.template.restart.condition")
    assert page.startswith('service.spec.template.restart.condition: "any", "on-failure" or "never", default any\n')
    assert "  never\n      The task ends with its container.\n" in page


def test_lists_and_maps_show_what_they_hold() -> None:
    assert "list of Port" in explain.explain("service.spec.template.container.ports")
    assert "mapping of names to Ulimit" in explain.explain("service.spec.template.container.ulimits")
    assert "required" in explain.explain("service.spec.template.container.ports.target")


def test_no_path_lists_the_kinds() -> None:
    page = explain.explain()
    assert all(kind.name in page for kind in kinds.KINDS)
    assert "task (made by the system)" in page


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("sevice", 'no kind "sevice"; did you mean "service"?'),
        (
            "deployment",
            'no kind "deployment"; kinds are service, revision, task, node, image, network, event, endpoints, cluster',
        ),
        ("service.spec.tempalte", 'service.spec has no field "tempalte"; did you mean "template"?'),
        ("service.spec.replicas.x", "service.spec.replicas has no fields; leave out what follows"),
    ],
)
def test_an_unknown_path_names_one_that_is_near(path: str, complaint: str) -> None:
    with pytest.raises(explain.UnknownPath) as caught:
        explain.explain(path)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("kind", kinds.KINDS, ids=lambda kind: kind.name)
def test_every_field_has_a_page_that_fits_a_terminal(kind: kinds.Kind) -> None:
    for path in fields.paths(kind.message.DESCRIPTOR):
        page = explain.explain(".".join([kind.name, *path]))
        assert all(len(line) <= explain.WIDTH for line in page.splitlines()), page
