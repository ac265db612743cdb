"""What a text may cost, and what YAML may do in it."""

import itertools
import re
import time

import pytest
import yaml

import manifests
from manifests import documents
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

ONE = "kind: Service\nmeta: {name: a}\nspec: {template: {container: {image: hello}}}\n"


def bomb() -> str:
    """A text of 600 bytes that expands to 10⁹ values."""
    names = "abcdefghi"
    lines = [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in itertools.pairwise(names)]
    return "\n".join(["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]", *lines, ""])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: b\n" * 900_000, "1:1: the file is too big: 4.3 MiB, at most 4 MiB are read; split it"),
        (bomb(), "6:20: aliases expand to more than 500,000 values; split the file"),
        ("[" * 100_000, "1:65: nested deeper than 64 levels"),
        ("{a: " * 5_000, "1:254: nested deeper than 64 levels"),
        ("- &a [*a]", "1:7: *a stands inside of what it stands for; an object cannot hold itself"),
        ("---\n~\n" * 10_001, "20001:1: more than 10000 documents; split the file"),
        (
            "kind: Service\n" + "".join(f"imag{number}: x\n" for number in range(200_000)),
            "201:1: 199802 more mistakes are not shown",
        ),
        ("- 1\n" * 500_000, "500000:3: the file grows to more than 500,000 values; split the file"),
    ],
)
def test_a_text_costs_no_more_than_it_may(text: str | bytes, complaint: str) -> None:
    """Bombs are refused at the place where they explode, before they do."""
    started = time.process_time()
    assert complaint in texts.mistakes(text)
    assert time.process_time() - started < 10


def test_a_hundred_megabytes_are_refused_unread() -> None:
    text = b"# nothing\n" * 10_000_000
    started = time.process_time()
    assert texts.mistakes(text) == ["1:1: the file is too big: 95.4 MiB, at most 4 MiB are read; split it"]
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"a: \xff", "1:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: é\nb: ".encode() + b"\xc3\x28", "2:4: byte 0xc3 is not UTF-8; save the file as UTF-8"),
        (b"\xef\xbb\xbfa: 1\nb: \xff", "2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a: é".encode("utf-16"), "1:1: the file is UTF-16; save it as UTF-8"),
        ("a: é\nb: \x07", '2:4: a control character (U+0007); remove it, or write it in double quotes as "\\u0007"'),
        ("a: x\u2028y", '1:5: a control character (U+2028); remove it, or write it in double quotes as "\\u2028"'),
        ("a:\n\tb: 1", "2:1: a tab; YAML is indented with spaces only"),
        ("a:\n  - b\n \t- c", "3:2: a tab; YAML is indented with spaces only"),
        ("a: @b", "1:4: no value begins with @; put the text in quotes"),
        ("a: b: c", "1:5: a ':' where no value can begin; check the indentation, or quote the text"),
        ("a: [1, 2", '1:4: a list that is not closed; write "," between items and "]" at the end'),
        ("a: {b: 1", '1:4: a mapping that is not closed; write "," between entries and "}" at the end'),
        ('a: "b', "1:4: quotes that are not closed; close them"),
        ("a: 1\nb", "2:1: a key without a ':'; write \"key: value\""),
        ("a: *b", "1:4: no anchor &b for *b; an anchor has to come before its aliases, in the same document"),
        ("a: &x 1\nb: *y", "2:4: no anchor &y for *y; anchors of this document: &x"),
        ("%YAML 3.0\n---\na: 1", "1:1: a version of YAML that is not known; remove the %YAML line"),
        ('a: "\\ud83d\\ude00"', "1:7: half a character; write the character itself, or \\U and eight digits"),
    ],
)
def test_broken_texts_say_where(text: str | bytes, complaint: str) -> None:
    raw = text if isinstance(text, bytes) else text.encode()
    (found,) = texts.mistakes(raw)[-1:]
    assert found == complaint


def test_what_came_before_a_broken_place_is_read_too() -> None:
    """One run shows the mistakes of the documents above, of the broken one, and of the other files."""
    sources = [
        manifests.Source(name="a.yaml", text=b"kind: Servce\n---\na: [\n"),
        manifests.Source(name="b.yaml", text=b"kind: Task\n"),
    ]
    with pytest.raises(manifests.InvalidManifest) as caught:
        manifests.read(sources)
    assert [str(mistake.place) for mistake in caught.value.mistakes] == ["a.yaml:1:7", "a.yaml:4:1", "b.yaml:1:7"]


def test_equal_keys_are_refused_with_both_places() -> None:
    found = texts.mistakes(texts.container('env:\n  A: "1"\n  B: "2"\n  "A": "3"'))
    assert found == ['10:9: duplicate key "A"; the first is at line 8; remove one of the two']


@pytest.mark.parametrize("tag", ["!!str", "!!python/object/apply:os.system", "!mine", "!"])
def test_tags_are_refused(tag: str) -> None:
    (found,) = texts.mistakes(texts.container(f"hostname: {tag} web"))
    assert found == f'7:17: a tag "{tag}"; remove it; the type of each field is known'


@pytest.mark.parametrize("key", ["[a]", "{a: b}"])
def test_keys_are_words(key: str) -> None:
    assert "8:11: a list or mapping as a key; a key is one word" in texts.mistakes(
        texts.container(f"env:\n  ? {key}\n  : b")
    )


def test_aliases_stand_for_what_they_name() -> None:
    container = texts.read_container("command: &all [a, b]\nargs: *all\nenv: {A: &x one, B: *x}")
    assert (list(container.command), list(container.args)) == (["a", "b"], ["a", "b"])
    assert container.env == {"A": "one", "B": "one"}


def test_an_anchor_ends_with_its_document() -> None:
    assert texts.mistakes(f"x-a: &a web\n{ONE}---\nkind: Service\nmeta: {{name: *a}}\n") == [
        "7:14: no anchor &a for *a; an anchor has to come before its aliases, in the same document"
    ]


def test_two_anchors_of_one_name_are_refused() -> None:
    assert texts.mistakes(texts.container("env: {A: &a x, B: &a y}")) == [
        "7:25: duplicate anchor &a; the first is at line 7; give one of them another name"
    ]


def test_what_stands_beside_a_merge_wins_and_the_earlier_of_two_merged_wins() -> None:
    (service,) = texts.read("""
        kind: Service
        x-first: &first {A: first, B: first, C: first}
        x-second: &second {B: second, C: second, D: second}
        meta: {name: web}
        spec:
          template:
            container:
              image: hello
              env:
                A: own
                <<: [*first, *second]
                C: own
    """)
    assert isinstance(service, pb.Service)
    assert service.spec.template.container.env == {"A": "own", "B": "first", "C": "own", "D": "second"}


def test_merges_go_through_merges() -> None:
    container = texts.read_container("env:\n  <<: {A: a, <<: {A: no, B: b}}")
    assert container.env == {"A": "a", "B": "b"}


def test_a_quoted_merge_key_is_a_key() -> None:
    (found,) = texts.mistakes(texts.container('env: {"<<": x}'))
    assert "not a variable's name" in found


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ("env:\n  <<: text", "8:13: << merges mappings only; write <<: *name, where &name is at a mapping"),
        ("env:\n  <<: {A: a}\n  <<: {B: b}", "9:9: a second <<; the first is at line 8; write <<: [*a, *b]"),
    ],
)
def test_merges_take_mappings(lines: str, complaint: str) -> None:
    assert texts.mistakes(texts.container(lines)) == [complaint]


def test_a_mistake_in_something_shared_is_told_once_where_it_is() -> None:
    found = texts.mistakes("""
        kind: List
        x-container: &container {imag: hello}
        items:
          - {kind: Service, meta: {name: a}, spec: {template: {container: *container}}}
          - {kind: Service, meta: {name: b}, spec: {template: {container: *container}}}
    """)
    assert found == ['2:26: spec.template.container.imag: unknown field; did you mean "image"?']


def test_a_mistake_that_is_reached_on_two_ways_is_told_once() -> None:
    assert texts.mistakes(texts.container("command: &all [[a]]\nargs: *all")) == [
        "7:22: spec.template.container.command[0]: a list instead of a text"
    ]


def test_empty_documents_are_nothing() -> None:
    assert texts.read("# nothing\n---\n---\n~\n---\n") == ()
    assert texts.read(b"") == ()
    assert len(texts.read(b"\xef\xbb\xbf" + ONE.replace("\n", "\r\n").encode())) == 1


@pytest.mark.parametrize("text", [ONE, "a: &x [1, 'b', \"c\", |\n d]\n", "- - a\n  - {b: *c}\n", bomb()])
def test_both_parsers_of_pyyaml_give_the_same_events(text: str) -> None:
    """The C parser is for speed only: where it is missing, the same is read."""

    def events(loader: type) -> list[tuple[object, ...]]:
        try:
            return [
                (
                    type(event),
                    re.findall(r"line \d+, column \d+", str(event.start_mark)),
                    getattr(event, "value", None),
                )
                for event in yaml.parse(text, Loader=loader)
                if not isinstance(event, yaml.StreamEndEvent | yaml.DocumentEndEvent)
            ]
        except yaml.MarkedYAMLError:
            return []

    assert events(yaml.CSafeLoader) == events(yaml.SafeLoader)


def test_the_parser_in_use_is_the_fast_one() -> None:
    assert documents._PARSER is yaml.CSafeLoader
