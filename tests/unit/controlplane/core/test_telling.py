"""What is told of a change to everybody who may look: every field of it, and no value that may be a password."""

import pytest

from controlplane.core import apply, revisions, telling
from protos.orch.v1 import control_pb2 as api
from protos.orch.v1 import objects_pb2 as pb
from tests.support import build
from tests.support.build import NOW_MS

PASSWORD = "hunter2"


def confidential(value: str) -> pb.Service:
    """A service that has the value wherever a password may be."""
    made = build.service()
    template = made.spec.template
    template.init.add(name="first")
    template.sidecars.add(name="beside")
    for container in (template.container, template.init[0], template.sidecars[0]):
        container.env["PASSWORD"] = container.env["DB.PASSWORD"] = value
    template.container.probes.liveness.http.headers["Authorization"] = value
    template.container.lifecycle.pre_stop.http.headers["X.Key"] = value
    return made


PLACES = {
    "spec.template.container.env.PASSWORD",
    'spec.template.container.env["DB.PASSWORD"]',
    "spec.template.init[0].env.PASSWORD",
    'spec.template.init[0].env["DB.PASSWORD"]',
    "spec.template.sidecars[0].env.PASSWORD",
    'spec.template.sidecars[0].env["DB.PASSWORD"]',
    "spec.template.container.probes.liveness.http.headers.Authorization",
    'spec.template.container.lifecycle.preStop.http.headers["X.Key"]',
}


@pytest.mark.parametrize("before", [confidential("old"), build.service()], ids=["changed", "added"])
def test_an_event_and_the_history_tell_where_a_password_changed_but_not_which(
    before: pb.Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (telling, revisions):
        monkeypatch.setattr(module, "MAX_CHANGES", 100)
    after = confidential(PASSWORD)
    event = telling.of_apply(apply.Result(before=before, after=after, action=api.APPLY_ACTION_CHANGED))
    first, _ = revisions.current(before, [], NOW_MS)
    second, _ = revisions.current(after, [first], NOW_MS)
    lines = {f"spec.template.{line}" for line in second.changes}
    assert set(event[1].split("; ")) >= PLACES
    assert lines >= PLACES
    assert PASSWORD not in event[1] + "".join(lines)
    assert "old" not in event[1] + "".join(lines)


def test_a_label_that_is_called_env_is_told_with_its_value() -> None:
    before, after = build.service(), build.service()
    after.meta.labels["env"] = "test"
    assert telling.of_meta(before, after) == ("Labelled", 'meta.labels.env: (none) → "test"')


def test_of_many_changes_the_first_are_told_and_the_number_of_the_others() -> None:
    before, after = build.service(), build.service()
    for number in range(telling.MAX_CHANGES + 2):
        after.meta.labels[f"label-{number}"] = "x"
    _, told = telling.of_meta(before, after)
    assert told.count("label-") == telling.MAX_CHANGES
    assert told.endswith("; and 2 more")
