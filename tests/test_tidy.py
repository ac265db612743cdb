"""The rules of the house, as tests. Each message names the place and the remedy."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from protos import release, wire
from runtime.cli import main as runtime

ROOT = Path(__file__).parent.parent
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
TEXT = {".cfg", ".in", ".ini", ".json", ".md", ".proto", ".py", ".pyi", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Finding = tuple[int, str]


@cache
def _files() -> tuple[Path, ...]:
    """Every file that is committed, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def _python() -> Iterator[Path]:
    return (path for path in _files() if path.suffix == ".py" and "_pb2" not in path.name)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(_tree(path)) if isinstance(node, Function))


def _tests() -> Iterator[Path]:
    return (path for path in _python() if ROOT / "tests" in path.parents)


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def _report(paths: Iterator[Path], find: Callable[[Path], Iterator[Finding]]) -> list[str]:
    return [f"{_place(path, line)}: {what}" for path in paths for line, what in find(path)]


def _check(findings: list[str]) -> None:
    assert not findings, "\n".join(["", *findings])


def test_files_stay_short() -> None:
    """Near 250 lines is good; 400 is where it stops."""

    def long(path: Path) -> Iterator[Finding]:
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            yield lines, f"more than {MAX_FILE_LINES} lines: split it by what changes together"

    _check(_report(_python(), long))


def test_functions_stay_short() -> None:
    """Near 10 lines is good; 60 is where it stops."""

    def long(path: Path) -> Iterator[Finding]:
        for function in _functions(path):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                yield function.lineno, f"{function.name} has {lines} lines: name its parts and give each a function"

    _check(_report(_python(), long))


def test_modules_say_what_they_are_for() -> None:
    """Before reading a file one knows why it is there."""

    def silent(path: Path) -> Iterator[Finding]:
        if _tree(path).body and ast.get_docstring(_tree(path)) is None:
            yield 1, "begin the module with a docstring: what it is for, and its one or two rules"

    _check(_report(_python(), silent))


def test_background_tasks_have_an_owner() -> None:
    """A task that nobody waits for loses its exception, and may be collected while it runs."""
    unowned = re.compile(r"(^|\.)(asyncio|loop|get_running_loop\(\)|get_event_loop\(\))\.create_task$")

    def bare(path: Path) -> Iterator[Finding]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and unowned.search(ast.unparse(node.func)):
                yield node.lineno, f"{ast.unparse(node.func)}: start it in a TaskGroup"
            # A future that is kept and awaited by whoever made it has an owner; one that is dropped has none.
            dropped = node.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
            if dropped is not None and ast.unparse(dropped.func).endswith("ensure_future"):
                yield node.lineno, "the future is dropped: start it in a TaskGroup"

    tests = set(_tests())
    _check(_report((path for path in _python() if path not in tests), bare))


def test_tests_do_not_sleep() -> None:
    """A sleep is too long on a fast machine and too short on a slow one."""

    def sleeps(path: Path) -> Iterator[Finding]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
                yield node.lineno, "wait for a condition with a bound (tests/support/aio.py, tests/support/waiting.py)"

    _check(_report((path for path in _tests() if path.name.startswith("test_")), sleeps))


def test_exceptions_are_not_swallowed() -> None:
    """What may be ignored is named, so that what nobody thought of is seen."""
    everything = {"", "Exception", "BaseException"}

    def swallowed(path: Path) -> Iterator[Finding]:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ExceptHandler) and all(_is_nothing(statement) for statement in node.body):
                names = {ast.unparse(node.type) if node.type else ""}
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                names = {ast.unparse(argument) for argument in node.args}
            else:
                continue
            if names & everything:
                yield node.lineno, "every exception is dropped here: name those that are expected"

    _check(_report(_python(), swallowed))


def _is_nothing(statement: ast.stmt) -> bool:
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Pass | ast.Continue)


def test_nothing_is_left_for_later() -> None:
    """What is missing stands in the issue tracker, not in the code."""
    # The words are put together here so that this file does not hold them.
    words = re.compile("|".join(rf"\b{word}\b" for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X")))
    error = "NotImplemented" + "Error"

    def unfinished(path: Path) -> Iterator[Finding]:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if words.search(line) or error in line:
                yield number, "finish it, or leave it out"

    _check(_report((path for path in _python()), unfinished))


@pytest.mark.parametrize(("page", "least"), [("docs/security.md", 20), ("docs/threat-model.md", 10)])
def test_the_table_of_attacks_names_tests_that_exist(page: str, least: int) -> None:
    """The pages promise them."""
    text = (ROOT / page).read_text().replace("`escapes/", "`tests/integration/runtime/escapes/")
    paths, names = re.findall(r"`(tests/[\w/]+(?:\.py|/))`", text), re.findall(r"`(test_\w+)`", text)
    known = {function.name for path in _tests() for function in _functions(path)}
    gone = [path for path in paths if not (ROOT / path).exists()] + [name for name in names if name not in known]
    assert len(paths) > least
    assert not gone, f"{page}: there is no {', '.join(gone)}; name the test that shows it now"


def test_a_release_has_one_number() -> None:
    """Wherever it stands, since not everything can read the others: the runtime is installed without the rest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert project == release.VERSION, "protos/release.py: write the version of pyproject.toml"
    assert project == runtime.VERSION, "runtime/cli/main.py: write the version of pyproject.toml"
    assert project in wire.released(), f"record what it speaks: python -m protos.wire {project}"
    assert f"\n## {project}\n" in (ROOT / "CHANGELOG.md").read_text(), f"CHANGELOG.md: tell what is new in {project}"


def test_no_registry_is_named() -> None:
    """Where packages come from is the machine's own affair: pip's and apt's configuration decide."""
    hosts = re.compile(
        "|".join(("py" + r"pi\.org", "pythonhosted" + r"\.org", r"deb\.debian" + r"\.org", "npm" + r"js\."))
    )

    def named(path: Path) -> Iterator[Finding]:
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if hosts.search(line):
                yield number, "name the package, not the place that it comes from"

    _check(_report((path for path in _files() if path.suffix in TEXT), named))


def test_every_test_checks_something() -> None:
    """A test that cannot fail is worse than none: it is counted."""
    helpers = _asserting_helpers()

    def idle(path: Path) -> Iterator[Finding]:
        for function in _functions(path):
            if function.name.startswith("test_") and not _asserts(function, helpers):
                yield function.lineno, f"{function.name} asserts nothing: check the state of the world"

    _check(_report((path for path in _tests() if path.name.startswith("test_")), idle))


@cache
def _asserting_helpers() -> frozenset[str]:
    """Names of functions of the tests that assert, or that call one which does."""
    known: frozenset[str] = frozenset()
    functions = [function for path in _tests() for function in _functions(path)]
    while True:
        found = frozenset(function.name for function in functions if _asserts(function, known))
        if found == known:
            return known
        known = found


def _asserts(function: Function, helpers: frozenset[str]) -> bool:
    return any(_is_check(node, helpers) for node in ast.walk(function))


def _is_check(node: ast.AST, helpers: frozenset[str]) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = ast.unparse(node.func)
    return name in {"pytest.raises", "pytest.fail"} or name.rpartition(".")[2] in helpers


@pytest.mark.parametrize(
    ("code", "checks"),
    [
        ("def test_a(): assert x", True),
        ("def test_a():\n with pytest.raises(E): f()", True),
        ("def test_a(): f()", False),
        ("def test_a(): helper()", True),
    ],
)
def test_a_test_is_recognised_as_checking_something(*, code: str, checks: bool) -> None:
    """The rule above can fail."""
    function = ast.parse(code).body[0]
    assert isinstance(function, Function)
    assert _asserts(function, frozenset({"helper"})) is checks
