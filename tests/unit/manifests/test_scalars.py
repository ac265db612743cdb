"""The schema decides what a scalar means, so YAML's guesses do not happen."""

import pytest

import manifests
from protos.orch.v1 import objects_pb2 as pb
from tests.unit.manifests import texts

AS_WRITTEN = [
    "no",
    "off",
    "Yes",
    "true",
    "0777",
    "0o17",
    "0x1F",
    "1e3",
    "1_000",
    "1.10",
    "12",
    "1:30",
    ".inf",
    "2026-01-31",
]


@pytest.mark.parametrize("written", AS_WRITTEN)
def test_a_text_is_what_was_written(written: str) -> None:
    """Country codes, versions, file modes and truths need no quotes where a text is asked for."""
    assert texts.read_container(f"env: {{A: {written}}}").env == {"A": written}
    assert texts.read_container(f"args: [{written}]").args == [written]


def test_a_key_is_what_was_written() -> None:
    """`on` and `no` are names of variables like any other."""
    assert texts.read_container("env: {no: a, on: b, y: c}").env == {"no": "a", "on": "b", "y": "c"}


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_null_means_left_out(null: str) -> None:
    """The image's command stays, a nested message stays absent, a text stays empty."""
    container = texts.read_container(f"command: {null}\nworkingDir: {null}\nresources: {null}\ntty: {null}")
    assert container == pb.Container(image="hello")


def test_a_quoted_null_is_a_text() -> None:
    assert texts.read_container('args: ["null", "~", ""]').args == ["null", "~", ""]


def test_null_where_a_value_is_asked_for_is_refused() -> None:
    """An empty text and a forgotten one look the same, so the writer has to say."""
    assert texts.mistakes(texts.container("env:\n  A:\n  B: ~\nargs:\n  -\n")) == [
        '8:9: spec.template.container.env.A: has no value; write "" for an empty text, or remove it',
        '9:9: spec.template.container.env.B: has no value; write "" for an empty text, or remove it',
        '11:10: spec.template.container.args[0]: an empty item; write "" for an empty text, or remove it',
    ]
    assert texts.mistakes(texts.container("image: ~")) == [
        '7:7: duplicate key "image"; the first is at line 6; remove one of the two'
    ]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("1_000", "1_000 is not written as a plain whole number; write 1000"),
        ("0777", "0777 begins with a zero; write 777, or 511 if it is octal"),
        ("0999", "0999 begins with a zero; write 999"),
        ("0x1F", "0x1F is not written as a plain whole number; write 31"),
        ("0o17", "0o17 is not written as a plain whole number; write 15"),
        ("0b11", "0b11 is not written as a plain whole number; write 3"),
        ("1e3", "1e3 is not written as a plain whole number; write 1000"),
        ("3.0", "3.0 is not written as a plain whole number; write 3"),
        ("3.5", '"3.5" is not a whole number'),
        ("+3", '"+3" is not a whole number'),
        ("three", '"three" is not a whole number'),
        ("1:30", '"1:30" is not a whole number'),
        (".inf", '".inf" is not a whole number'),
        ('"3"', '"3" is a text, not a whole number; write the number without quotes'),
        ("-1", "-1 is too small; the least is 0"),
        ("4294967296", "4294967296 is too big; the most is 100000"),
        ("99999999999999999999", "99999999999999999999 is too big; the most is 100000"),
        ("9" * 100_000, f'"{"9" * 59}…" is too big; the most is 100000'),
        ("-" + "9" * 100_000, f'"-{"9" * 58}…" is too small; the least is 0'),
        ("100001", "100001 is too big, the most is 100000"),
        ("[3]", "a list instead of a whole number"),
        ("{a: 3}", "a mapping instead of a whole number"),
    ],
)
def test_a_number_is_a_plain_one(written: str, complaint: str) -> None:
    """Ways to write a number that YAML 1.1 and 1.2 read differently are refused, with what was probably meant."""
    text = texts.container("").replace("spec:", f"spec:\n  replicas: {written}")
    assert texts.mistakes(text) == [f"4:13: spec.replicas: {complaint}"]


@pytest.mark.parametrize(
    ("field", "written", "value"),
    [
        ("memory", "64Mi", 64 * 2**20),
        ("memory", '"64Mi"', 64 * 2**20),
        ("memory", "1.5Gi", 3 * 2**29),
        ("memory", "10000000", 10_000_000),
        ("cpu", "0.5", 500),
        ("cpu", "500m", 500),
        ("cpu", "2", 2000),
        ("cpu", '"2"', 2000),
    ],
)
def test_quantities_have_units(field: str, written: str, value: int) -> None:
    limits = texts.read_container(f"resources: {{limits: {{{field}: {written}}}}}").resources.limits
    assert getattr(limits, field) == value


@pytest.mark.parametrize(
    ("field", "written", "complaint"),
    [
        ("memory", "010000000", "010000000 begins with a zero; write 10000000, or 2097152 if it is octal"),
        ("memory", "1_000_000", "not a number of bytes: '1_000_000'; write it like 64Mi, 1.5Gi or 500k"),
        ("memory", "64mi", "not a number of bytes: '64mi'; write it like 64Mi, 1.5Gi or 500k"),
        ("memory", "1e6", "not a number of bytes: '1e6'; write it like 64Mi, 1.5Gi or 500k"),
        ("memory", "-64Mi", "not a number of bytes: '-64Mi'; write it like 64Mi, 1.5Gi or 500k"),
        ("memory", "0.1", "'0.1' is not a whole number of bytes that fits in 63 bits"),
        ("memory", "9999999Pi", "9999999Pi is too big; the most is 64Ti"),
        ("memory", "99999Ei", "99999Ei is too big; the most is 64Ti"),
        ("memory", "8Ei", "8Ei is too big; the most is 64Ti"),
        ("memory", "1Ei", "1Ei is too big, the most is 64Ti"),
        ("cpu", "99999999999999999999", "99999999999999999999 is too big; the most is 1024"),
        ("memory", "1Mi", "1Mi is too small, the least is 4Mi"),
        ("memory", "0", "0 is too small, the least is 4Mi"),
        ("cpu", "0.0001", "'0.0001' is not a whole number of thousandths of a processor that fits in 63 bits"),
        ("cpu", "half", "not a number of processors: 'half'; write it like 0.5, 2 or 500m"),
        ("cpu", "2000", "2000 is too big, the most is 1024"),
    ],
)
def test_bad_quantities_show_a_right_one(field: str, written: str, complaint: str) -> None:
    found = texts.mistakes(texts.container(f"resources:\n  limits:\n    {field}: {written}"))
    assert found == [f"9:{13 + len(field)}: spec.template.container.resources.limits.{field}: {complaint}"]


@pytest.mark.parametrize("written", ["10", "1:30", "10 s", "ten", "-5s"])
def test_a_duration_has_a_unit(written: str) -> None:
    (found,) = texts.mistakes(
        f"kind: Service\nmeta: {{name: w}}\nspec:\n  onNodeLoss: {{replaceAfter: {written}}}\n"
        "  template: {container: {image: hello}}\n"
    )
    hint = "write it like 10s, 1m30s or 250ms"
    assert found == f"4:30: spec.onNodeLoss.replaceAfter: not a duration: '{written}'; {hint}"


def test_zero_is_a_wish_where_it_differs_from_nothing() -> None:
    """`attempts: 0` and `replaceAfter: 0s` are not the same as leaving them out."""
    (service,) = texts.read("""
        kind: Service
        meta: {name: web}
        spec:
          replicas: 0
          onNodeLoss: {replaceAfter: 0s}
          template:
            restart: {attempts: 0}
            stopGracePeriod: 0
            container: {image: hello, ulimits: {core: {soft: 0, hard: 0}}}
    """)
    assert isinstance(service, pb.Service)
    assert service.spec.HasField("replicas")
    assert service.spec.on_node_loss.HasField("replace_after")
    assert service.spec.template.restart.HasField("attempts")
    assert service.spec.template.HasField("stop_grace_period")
    assert service.spec.template.container.ulimits["core"].HasField("hard")


@pytest.mark.parametrize(("written", "value"), [("true", True), ("false", False)])
def test_true_and_false(written: str, value: bool) -> None:
    assert texts.read_container(f"tty: {written}").tty is value


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("yes", '"yes" is not true or false; write true, without quotes'),
        ("On", '"On" is not true or false; write true, without quotes'),
        ("True", '"True" is not true or false; write true, without quotes'),
        ('"true"', '"true" is not true or false; write true, without quotes'),
        ("no", '"no" is not true or false; write false, without quotes'),
        ("0", '"0" is not true or false; write false, without quotes'),
        ("maybe", '"maybe" is not true or false'),
        ("[]", "a list instead of true or false"),
    ],
)
def test_only_true_and_false_are_true_and_false(written: str, complaint: str) -> None:
    assert texts.mistakes(texts.container(f"tty: {written}")) == [f"7:12: spec.template.container.tty: {complaint}"]


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("PROTOCOL_TCP", '"PROTOCOL_TCP" is not a known word; did you mean "tcp"?'),
        ("upd", '"upd" is not a known word; did you mean "udp"?'),
        ("sctp", 'SCTP is not supported; write "tcp" or "udp"'),
        ("1", '"1" is not a known word; write "tcp" or "udp"'),
        ("unspecified", '"unspecified" is not a known word; write "tcp" or "udp"'),
        ("{}", 'a mapping instead of "tcp" or "udp"'),
    ],
)
def test_words_are_those_of_the_schema(written: str, complaint: str) -> None:
    found = texts.mistakes(texts.container(f"ports:\n  - target: 80\n    protocol: {written}"))
    assert found == [f"9:21: spec.template.container.ports[0].protocol: {complaint}"]


@pytest.mark.parametrize("written", ["client-ip", "clientIP", "CLIENT_IP", '"Client-IP"', "clientip"])
def test_a_word_may_be_written_in_any_case_and_without_its_signs(written: str) -> None:
    """What is printed is the one that the documentation has."""
    manifest = texts.container("").replace("spec:", f"spec:\n  sessionAffinity: {written}")
    (service,) = texts.read(manifest)
    assert isinstance(service, pb.Service)
    assert service.spec.session_affinity == pb.SESSION_AFFINITY_CLIENT_IP
    assert "sessionAffinity: client-ip\n" in manifests.to_yaml(service)


def test_texts_may_have_several_lines() -> None:
    container = texts.read_container("args:\n  - |\n    echo a\n      echo b\n  - >-\n    one\n    line\n")
    assert container.args == ["echo a\n  echo b\n", "one line"]
