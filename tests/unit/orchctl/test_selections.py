"""However many services are waited for, one watch is enough, and the control plane takes it."""

import pytest

from controlplane.api import watch
from orchctl import waiting
from orchctl.progress import Target
from tests.support import samples


@pytest.mark.parametrize("count", [1, waiting.MOST_SERVICES, waiting.MOST_SERVICES + 1, 200])
def test_a_watch_of_many_services_stays_within_what_is_taken(count: int) -> None:
    targets = [Target.of(samples.service(f"s{number}")) for number in range(count)]
    selections = waiting._selections(targets)
    assert len(selections) <= watch.MAX_SELECTIONS
    watched = [each.service for each in selections if each.kind == "task"]
    assert watched == [""] or len(watched) == count
