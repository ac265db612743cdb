"""Files of options: what stands in them is what the command line would say, and mistakes are told with their places."""

import argparse
from collections.abc import Sequence

import pytest

from agent import options as agent_options
from controlplane import arguments as instance_options
from controlplane import member
from manifests import configuration
from manifests.documents import Source
from manifests.mistakes import InvalidManifest

PARSERS = {
    "agent": agent_options.parser,
    "controlplane": instance_options.parser,
    "etcd": member.parser,
}
NODE = "name: n1\nserver: 10.0.0.1:7400\naddress: 10.0.0.2\nstate: /var/lib/orch/agent\n"


def read(text: str, *given: str) -> argparse.Namespace:
    """What an agent would be told."""
    parser = agent_options.parser()
    return parser.parse_args(configuration.arguments(parser, Source(name="agent.yaml", text=text.encode()), given))


def mistakes(text: str, *given: str) -> Sequence[str]:
    with pytest.raises(InvalidManifest) as wrong:
        read(text, *given)
    return [str(one) for one in wrong.value.mistakes]


def test_a_key_means_what_the_option_means() -> None:
    """Numbers, texts that YAML would take for others, and lists."""
    told = read(NODE + "blob-port: 7500\nlabel: [zone=a, disk=ssd]\nimages-max-age: 0s\n")
    assert (told.name, told.blob_port, told.images_max_age) == ("n1", 7500, 0)
    assert told.label == ["zone=a", "disk=ssd"]
    assert read(NODE.replace("n1", "no")).name == "no"


def test_one_value_is_a_list_of_one() -> None:
    assert read(NODE + "label: zone=a\n").label == ["zone=a"]


def test_the_command_line_wins() -> None:
    """Over a value, and over all of a list."""
    told = read(NODE + "label: [zone=a, disk=ssd]\n", "--name", "n2", "--label=zone=b")
    assert (told.name, told.label) == ("n2", ["zone=b"])
    assert read(NODE.replace("name: n1\n", ""), "--name=n3").name == "n3", "what is missing there may be said here"


def test_all_mistakes_are_told_at_once_each_with_its_place_and_remedy() -> None:
    told = mistakes("name: n1\nserver: [a, b]\nadress: 10.0.0.2\nblob-port: many\nlabel:\n  - zone\nstate:\n")
    meaning = configuration.options(agent_options.parser())
    assert told == [
        f"agent.yaml:1:1: address is missing; {meaning['address'].help}",
        "agent.yaml:2:1: server: a list instead of one value; give one",
        'agent.yaml:3:1: adress: unknown key; did you mean "address"?',
        "agent.yaml:4:12: blob-port: 'many' is not a whole number; "
        + (meaning["blob-port"].help or "") % {"default": 7402},
        "agent.yaml:6:5: label: 'zone' must be NAME=VALUE; NAME=VALUE, for a new node",
        "agent.yaml:7:1: state: nothing instead of a value; write a value, or leave out state",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- name\n", "agent.yaml:1:1: a list instead of keys with values; write one key a line, such as `name: n1`"),
        (NODE + "---\nname: n2\n", "a second document"),
        (NODE + "log-level: loud\n", """'loud' is not "debug", "info" or "warning\""""),
        (NODE + "label: {zone: a}\n", "a mapping instead of a value"),
        (NODE + "name: n2\n", "duplicate key"),
        ("name: [\n", "agent.yaml:2:1"),
        (NODE + "config: other.yaml\n", "unknown key"),
    ],
)
def test_what_is_no_configuration_is_told(text: str, said: str) -> None:
    assert any(said in one for one in mistakes(text)), mistakes(text)


@pytest.mark.parametrize("program", PARSERS)
def test_a_written_file_has_every_key_with_its_meaning_and_reads_back(program: str) -> None:
    """As `orchctl cluster init` and `node join` write them; texts with quotes and backslashes, too."""
    parser = PARSERS[program]()
    known = configuration.options(parser)
    said = {key: ['a "b" \\ c: #d'] for key, action in known.items() if action.required and not action.type}
    said |= {"listen": ["10.0.0.1:7400", "[::1]:7400"]} if "listen" in known else {}
    text = configuration.written(parser, said, "What it is for.")
    assert configuration.values(parser, Source(name="f", text=text.encode())) == said
    lines = text.splitlines()
    for key, action in known.items():
        place = next(number for number, line in enumerate(lines) if line.lstrip("#").startswith(f"{key}:"))
        assert lines[place - 1].startswith("# "), f"{key} has no meaning above it"
        assert action.help, f"--{key} says nothing of what it means"


@pytest.mark.parametrize("program", PARSERS)
def test_the_comments_of_a_written_file_are_right_when_they_are_made_keys(program: str) -> None:
    """Who takes the # away from a key with a default gets the default."""
    parser = PARSERS[program]()
    for key, action in configuration.options(parser).items():
        if not isinstance(action.default, str | int) or action.nargs == 0 or action.default == "":
            continue
        text = configuration.written(parser, {}, "").replace(f"\n#{key}:", f"\n{key}:")
        assert configuration.values(parser, Source(name="f", text=text.encode()))[key] == [str(action.default)]
