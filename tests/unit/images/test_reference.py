"""References: what Docker takes we take, equal images have equal names, and nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images import errors, reference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("web", "docker.io/library/web:latest", "web"),
        ("web:1.2", "docker.io/library/web:1.2", "web:1.2"),
        ("library/web", "docker.io/library/web:latest", "web"),
        ("docker.io/web", "docker.io/library/web:latest", "web"),
        ("index.docker.io/library/web:1", "docker.io/library/web:1", "web:1"),
        ("team/web", "docker.io/team/web:latest", "team/web"),
        ("a/b/c:x", "docker.io/a/b/c:x", "a/b/c:x"),
        ("localhost/web", "localhost/web:latest", "localhost/web"),
        ("localhost:5000/web", "localhost:5000/web:latest", "localhost:5000/web"),
        ("host:5000/web:1", "host:5000/web:1", "host:5000/web:1"),
        ("quay.io/team/web_x", "quay.io/team/web_x:latest", "quay.io/team/web_x"),
        ("[2001:db8::1]:5000/web", "[2001:db8::1]:5000/web:latest", "[2001:db8::1]:5000/web"),
        ("Host/web", "Host/web:latest", "Host/web"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b"),
        (f"web@{DIGEST}", f"docker.io/library/web@{DIGEST}", f"web@{DIGEST}"),
        (f"web:latest@{DIGEST}", f"docker.io/library/web:latest@{DIGEST}", f"web:latest@{DIGEST}"),
        ("a__b---c.d_e", "docker.io/library/a__b---c.d_e:latest", "a__b---c.d_e"),
    ],
)
def test_docker_forms_have_one_canonical_meaning(text: str, full: str, short: str) -> None:
    ref = reference.parse(text)
    assert (ref.full, ref.short) == (full, short)
    assert reference.parse(ref.full) == reference.parse(ref.short) == ref


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no name"),
        ("/", "repository"),
        ("web:", "tag ''"),
        (":1", "no name"),
        ("Web", "lower case"),
        ("team/Web", "lower case"),
        ("web:-x", "tag"),
        ("web:" + "x" * 129, "tag"),
        ("a..b", "repository"),
        ("a___b", "repository"),
        ("-a", "repository"),
        ("a/../b", "repository"),
        ("../../etc/passwd", "registry"),
        ("a//b", "repository"),
        ("web\n", "repository"),
        ("web:1\n", "tag"),
        ("we b", "repository"),
        ("http://host/web", "registry"),
        ("host:port/web", "registry"),
        ("host:123456/web", "registry"),
        ("a" * 64 + ".example/web", "registry"),
        ("a" * 64, "64 hex digits"),
        ("a/" * 127 + "aa", "longer than 255"),
        ("web@sha256:abc", "64 lower-case hex digits"),
        ("web@sha512:" + "a" * 128, "64 lower-case hex digits"),
        ("web@sha256:" + "A" * 64, "64 lower-case hex digits"),
        (f"web@{DIGEST}@{DIGEST}", "64 lower-case hex digits"),
        (f"@{DIGEST}", "no name"),
        ("wéb", "repository"),
        ("web\0", "repository"),
    ],
)
def test_anything_else_is_refused_with_the_part_that_is_wrong(text: str, complaint: str) -> None:
    with pytest.raises(errors.InvalidReference, match="image reference") as caught:
        reference.parse(text)
    assert complaint in str(caught.value)


_PARTS = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
_HOSTS = st.sampled_from(["docker.io", "localhost", "localhost:80", "r.example", "R", "[::1]:5000"])


@given(
    registry=_HOSTS,
    path=st.lists(_PARTS, min_size=1, max_size=4).map("/".join),
    tag=st.none() | st.from_regex(r"[\w][\w.-]{0,10}", fullmatch=True).filter(str.isascii),
    digest=st.none() | st.just(DIGEST),
)
def test_what_is_printed_reads_back_as_the_same_image(
    registry: str, path: str, tag: str | None, digest: str | None
) -> None:
    text = f"{registry}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    ref = reference.parse(text)
    assert reference.parse(ref.full) == ref
    assert reference.parse(ref.short) == ref
    assert reference.parse(ref.tagged).tagged == ref.tagged


@given(st.text(max_size=60))
def test_arbitrary_text_is_a_reference_or_an_invalid_one_and_never_anything_else(text: str) -> None:
    try:
        ref = reference.parse(text)
    except errors.InvalidReference:
        return
    assert ".." not in ref.full.split("/")
    assert ref.full.isprintable()
