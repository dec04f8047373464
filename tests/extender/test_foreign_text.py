"""Texts of foreign exceptions hold what their library worked on, tokens included: nothing of ours may publish them.

What may be published of an exception is `extender.errors.kind_of`. The first test reads the source: wherever an
exception that need not be our own is formatted, it fails. tests/extender/test_logs.py looks at tracebacks.
"""

import ast
import asyncio
import builtins
import importlib
import io
import json
import logging
import socket
import ssl
import threading
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
import urllib3
import yaml

import extender
import policy
from extender import logs
from extender.errors import SourceError, kind_of
from policy.errors import SchedulerError

SECRET = "eyJhbGciOiJSUzI1NiJ9.secret"
NAMES = {"error", "exc", "exception", "failure", "raised"}
"""What exceptions are called here where no handler says so."""


def modules() -> Iterator[Path]:
    for package in (extender, policy):
        yield from Path(package.__path__[0]).rglob("*.py")


def module_of(path: Path) -> ModuleType:
    root = next(Path(p.__path__[0]).parent for p in (extender, policy) if path.is_relative_to(p.__path__[0]))
    return importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"))


def ours(expression: ast.expr | None, module: ModuleType) -> bool:
    """Whether every exception type that the expression names is of our own tree."""
    if expression is None:
        return False
    parts = expression.elts if isinstance(expression, ast.Tuple) else [expression]
    if any(isinstance(part, ast.BinOp) for part in parts):  # X | None
        parts = [side for part in parts if isinstance(part, ast.BinOp) for side in (part.left, part.right)]
        parts = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is None)]
    for part in parts:
        try:
            # In a tuple, since a part may be starred.
            named = eval(f"({ast.unparse(part)},)", {**vars(builtins), **vars(module)})  # noqa: S307 # our own source
        except NameError:
            return False
        kinds: list[object] = []
        for kind in named:
            found = getattr(module, kind, None) if isinstance(kind, str) else kind
            kinds += found if isinstance(found, tuple) else (found,)
        if not all(isinstance(each, type) and issubclass(each, SchedulerError) for each in kinds):
            return False
    return True


class Formatting(ast.NodeVisitor):
    """Collects the lines that format an exception that need not be our own."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.known: list[dict[str, bool]] = [{}]
        self.found: list[int] = []

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self.known.append({node.name: ours(node.type, self.module)} if node.name else {})
        self.generic_visit(node)
        self.known.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        arguments = [*node.args.args, *node.args.kwonlyargs]
        self.known.append({it.arg: ours(it.annotation, self.module) for it in arguments if it.arg in NAMES})
        self.generic_visit(node)
        self.known.pop()

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef  # noqa: N815 - the names that ast gives

    def foreign(self, node: ast.expr) -> bool:
        while isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "args"):
            node = node.value
        if not isinstance(node, ast.Name):
            return False
        scope = next((names for names in reversed(self.known) if node.id in names), None)
        return False if scope is None else not scope[node.id]

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:
        parts = node.value.values if isinstance(node.value, ast.BoolOp) else [node.value]
        self.found += [node.lineno for part in parts if self.foreign(part)]
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("str", "repr", "format"):
            self.found += [node.lineno for argument in node.args if self.foreign(argument)]
        self.generic_visit(node)


def test_no_text_of_a_foreign_exception_is_formatted() -> None:
    found = []
    for path in modules():
        if path.name in ("errors.py", "__main__.py"):
            continue  # the first makes the rule, and the other runs the command
        formatting = Formatting(module_of(path))
        formatting.visit(ast.parse(path.read_text()))
        found += [f"{path}:{line}: use extender.errors.kind_of" for line in formatting.found]
    assert found == []


def test_the_search_finds_what_it_is_for() -> None:
    source = f"""
try:
    pass
except OSError as error:
    f"{{error}}", str(error), repr(error), f"{{error.reason or error}}", f"{{error.args[0]}}"
except {SourceError.__name__} as error:
    f"{{error}}"
lambda error: repr(error)
def f(error: Exception) -> str: return str(error)
def g(error: SourceError | None) -> str: return str(error)
"""
    module = ModuleType("m")
    vars(module).update(SourceError=SourceError)
    formatting = Formatting(module)
    formatting.visit(ast.parse(source))
    assert sorted(formatting.found) == [5, 5, 5, 5, 5, 8, 9]


def refused() -> None:
    socket.create_connection(("127.0.0.1", 1), timeout=1.0)


def wrapped() -> None:
    try:
        refused()
    except OSError as error:
        raise urllib3.exceptions.ProtocolError(SECRET, error) from error


def undecodable() -> None:
    msgspec.json.decode(b'{"a": "' + SECRET.encode() + b'"}', type=dict[str, int])


def bad_yaml() -> None:
    yaml.safe_load(f"token: {SECRET}\n  - x: [")


def bad_toml() -> None:
    tomllib.loads(f"token = {SECRET}")


def bad_json() -> None:
    json.loads(f'{{"token": {SECRET}}}')


def bad_text() -> None:
    (SECRET.encode() + b"\xff").decode("utf-8")


def certificate() -> None:
    error = ssl.SSLCertVerificationError(1, SECRET)
    error.verify_message = "unable to get local issuer certificate"
    raise error


def unknown() -> None:
    raise ValueError(SECRET)


def group() -> None:
    raise ExceptionGroup(SECRET, [ValueError(SECRET)])


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        (refused, "Connection refused"),
        (wrapped, "ProtocolError: Connection refused"),
        (undecodable, "Expected `int`, got `str` - at `$[...]`"),
        (bad_yaml, "ScannerError (line 2, column 6)"),
        (bad_toml, "TOMLDecodeError (at line 1, column 9)"),
        (bad_json, "Expecting value (line 1, column 11)"),
        (bad_text, "UnicodeDecodeError: not utf-8 at byte 27"),
        (certificate, "certificate verify failed: unable to get local issuer certificate"),
        (unknown, "ValueError"),
        (group, "ExceptionGroup"),
    ],
)
def test_of_a_foreign_exception_its_kind_is_told(failing: Callable[[], None], told: str) -> None:
    kind = ""
    try:
        failing()
    except Exception as error:
        kind = kind_of(error)
    assert kind == told


def test_of_our_own_exceptions_the_text_is_told() -> None:
    assert kind_of(SourceError("the file a holds no token")) == "the file a holds no token"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the service logs, with its own configuration; that of the tests is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_what_asyncio_says_of_a_lost_task_has_no_foreign_text(log: io.StringIO) -> None:
    async def lose() -> None:
        async def fail() -> None:
            raise ValueError(SECRET)

        task = asyncio.create_task(fail())
        await asyncio.wait((task,))
        asyncio.get_running_loop().call_exception_handler(
            {"message": "lost", "exception": task.exception(), "future": task}
        )

    asyncio.run(lose())
    assert "lost" in log.getvalue()
    assert SECRET not in log.getvalue()


def test_an_exception_that_ends_a_thread_or_the_process_is_logged_without_foreign_text(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.log_uncaught()
    thread = threading.Thread(target=unknown)
    thread.start()
    thread.join()
    try:
        unknown()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert log.getvalue().count('"exception": "ValueError"') == 2
    assert SECRET not in log.getvalue() + capsys.readouterr().err
