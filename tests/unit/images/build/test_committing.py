"""How an image that was made of a container starts."""

import json
from typing import Any

import pytest

from images import errors
from images.build import committing, configuration
from images.build.configuration import Settings

BASE = Settings(
    config={
        "Env": ["PATH=/bin", "A=1"],
        "Cmd": ["serve"],
        "Entrypoint": ["/init"],
        "Labels": {"one": "1"},
        "WorkingDir": "/srv",
    }
)


def after(*changes: str) -> dict[str, Any]:
    return dict(committing.applied(BASE, committing.read_changes(changes)).config)


@pytest.mark.parametrize(
    ("change", "entry", "expected"),
    [
        ('CMD ["httpd", "-f"]', "Cmd", ["httpd", "-f"]),
        ("CMD httpd -f", "Cmd", ["/bin/sh", "-c", "httpd -f"]),
        ("cmd httpd", "Cmd", ["/bin/sh", "-c", "httpd"]),
        ('ENTRYPOINT ["/other"]', "Entrypoint", ["/other"]),
        ("ENV B=$A-$A C='x y'", "Env", ["PATH=/bin", "A=1", "B=1-1", "C=x y"]),
        ("ENV A 2", "Env", ["PATH=/bin", "A=2"]),
        ("EXPOSE 80 53/udp", "ExposedPorts", {"80/tcp": {}, "53/udp": {}}),
        ("LABEL two=2", "Labels", {"one": "1", "two": "2"}),
        ("USER 1000:1000", "User", "1000:1000"),
        ("VOLUME /data", "Volumes", {"/data": {}}),
        ("WORKDIR data", "WorkingDir", "/srv/data"),
        ("STOPSIGNAL SIGINT", "StopSignal", "SIGINT"),
        ("ONBUILD RUN make", "OnBuild", ["RUN make"]),
        ("HEALTHCHECK NONE", "Healthcheck", {"Test": ["NONE"]}),
        ('SHELL ["/bin/bash", "-c"]', "Shell", ["/bin/bash", "-c"]),
    ],
)
def test_a_change_is_an_instruction_of_a_dockerfile(change: str, entry: str, expected: object) -> None:
    assert after(change)[entry] == expected


def test_changes_build_on_each_other_and_leave_the_rest() -> None:
    """Each has the variables of those before; an ENTRYPOINT drops the base's CMD, but not one that was said."""
    found = after("ENV B=2", "ENV C=$B", 'CMD ["run"]', 'ENTRYPOINT ["/other"]')
    assert found["Env"] == ["PATH=/bin", "A=1", "B=2", "C=2"]
    assert (found["Cmd"], found["WorkingDir"]) == (["run"], "/srv")
    assert after('ENTRYPOINT ["/other"]')["Cmd"] == []
    assert after() == BASE.config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("RUN make", "change 1:1: RUN changes more than settings; these may be: CMD, ENTRYPOINT, ENV"),
        ("COPY a b", "COPY changes more than settings"),
        ("ARG A=1", "ARG changes more than settings"),
        ("CDM x", "there is no instruction CDM"),
        ("ENV", "ENV"),
        ("", "change 1: an empty text is not one instruction"),
        ("USER a\nUSER b", "is not one instruction"),
    ],
)
def test_what_is_none_is_refused_by_its_place(change: str, words: str) -> None:
    with pytest.raises(errors.InvalidDockerfile) as raised:
        after(change)
    assert words in str(raised.value)


def test_author_and_message_stand_in_the_history() -> None:
    event = configuration.Event(created="c", created_by="by", empty=False, author="Ann", comment="why")
    assert event.as_json() == {"created": "c", "created_by": "by", "author": "Ann", "comment": "why"}


def test_documents_that_do_not_belong_together_are_no_base() -> None:
    manifest = {
        "schemaVersion": 2,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": "sha256:" + "0" * 64,
            "size": 2,
        },
        "layers": [],
    }
    with pytest.raises(errors.DigestMismatch, match="other bytes have come"):
        committing.parse_base(json.dumps(manifest).encode(), b"{}")
