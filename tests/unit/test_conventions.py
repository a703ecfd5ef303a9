"""Do the house rules hold that no linter knows?

Each rule is a short function over the syntax tree of every module, with a test that it can find what it forbids.
"""

import ast
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("shared", "services", "ops", "deploy", "benchmarks")

#: Where SQL may stand. `shared/database.py`, `relay.py` and `listener.py` only ask trivial things (`SELECT 1`, locks, NOTIFY);
#: `lag` counts what is late; the embedded Postgres makes roles and databases; a benchmark counts what the services wrote.
SQL_HOMES = (
    "services/*/store.py",
    "services/*/store/*.py",
    "shared/database.py",
    "shared/inbox.py",
    "shared/listener.py",
    "shared/migrate.py",
    "shared/outbox.py",
    "shared/relay.py",
    "ops/audit*.py",
    "ops/audit/*.py",
    "ops/lag.py",
    "ops/actions.py",
    "ops/console/store.py",
    "ops/dead_letters/store.py",
    "ops/reconcile/store.py",
    "ops/repair/store.py",
    "ops/replay/store.py",
    "ops/timeline/store.py",
    "ops/webhooks/store.py",
    "deploy/local/postgres.py",
    "benchmarks/*.py",
)

#: The edges, where a unit of work begins and ends; a benchmark of a handler plays its edge. Everything else is handed
#: a transaction.
EDGES = (
    "shared/batcher.py",
    "shared/consumer.py",
    "shared/database.py",
    "shared/migrate.py",
    "services/*/api.py",
    "services/*/main.py",
    "services/*/worker.py",
    "ops/*.py",
    "ops/*/*.py",
    "benchmarks/*.py",
)

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}

_SQL = re.compile(
    r"\b(SELECT\b.+\bFROM|SELECT\s+(pg_|set_config|\$?\d)|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM"
    r"|CREATE\s+(TABLE|INDEX)|ALTER\s+TABLE|DROP\s+TABLE|TRUNCATE\s|LOCK\s+TABLE)",
    re.DOTALL,
)

Rule = Callable[[ast.Module], Iterator[int]]


def modules(*packages: str) -> list[str]:
    """Return the paths of all modules of some packages, from the root of the project."""
    return sorted(
        str(path.relative_to(ROOT)) for package in packages for path in (ROOT / package).rglob("*.py")
    )


def breaches(rule: Rule, paths: list[str], *, besides: tuple[str, ...] = ()) -> list[str]:
    """Return where a rule is broken, as `path:line`."""
    return [
        f"{path}:{line}"
        for path in paths
        if not any(fnmatch(path, home) for home in besides)
        for line in rule(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    ]


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string literal or of the fixed parts of an f-string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "…" for part in node.values)
    return None


def docstrings(tree: ast.Module) -> set[int]:
    """Return the ids of the nodes that are docstrings: they may talk about SQL."""
    bodies = [
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}


def sql_literals(tree: ast.Module) -> Iterator[int]:
    """Find string literals that are SQL."""
    spoken = docstrings(tree)
    for node in ast.walk(tree):
        text = text_of(node)
        if text is not None and id(node) not in spoken and _SQL.search(text):
            yield node.lineno  # type: ignore[attr-defined] # every literal has a line


def sql_put_together(tree: ast.Module) -> Iterator[int]:
    """Find SQL made of parts: f-strings, `%`, `+` and `.format`."""
    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr() if any(isinstance(part, ast.FormattedValue) for part in node.values):
                parts: list[ast.expr] = [node]
            case ast.BinOp(left=left, op=ast.Mod() | ast.Add(), right=right):
                parts = [left, right]
            case ast.Call(func=ast.Attribute(value=value, attr="format")):
                parts = [value]
            case _:
                continue
        if any(_SQL.search(text_of(part) or "") for part in parts):
            yield node.lineno


def transactions(tree: ast.Module) -> Iterator[int]:
    """Find calls of `.transaction(`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "transaction"
        ):
            yield node.lineno


def missing_opening(tree: ast.Module) -> Iterator[int]:
    """Find modules whose docstring does not open with one sentence that ends on its line."""
    first = (ast.get_docstring(tree) or "").splitlines()[:1]
    if not first or not first[0].rstrip().endswith((".", "?")):
        yield 1


def silent_tests(tree: ast.Module) -> Iterator[int]:
    """Find test functions without a docstring that says the expected behaviour in a sentence."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            said = ast.get_docstring(node) or ""
            if not said.split("\n\n")[0].rstrip().endswith("."):
                yield node.lineno


# --- the rules ------------------------------------------------------------------------------------------------------


def test_sql_stands_only_where_sql_lives() -> None:
    """All statements of a service are in its store; shared has few places, and operators have the audit."""
    assert breaches(sql_literals, modules(*PACKAGES), besides=SQL_HOMES) == []


def test_no_sql_is_put_together_from_parts() -> None:
    """Statements are literals with parameters: nothing to inject into, and each can be read and explained."""
    assert breaches(sql_put_together, modules(*PACKAGES)) == []


def test_transactions_are_opened_only_at_the_edges() -> None:
    """Handlers, stores and domains are handed their transaction."""
    assert breaches(transactions, modules(*PACKAGES), besides=EDGES) == []


def test_every_module_opens_with_one_line() -> None:
    """The first line of each module says by itself which question it answers."""
    assert breaches(missing_opening, modules(*PACKAGES, "tests")) == []


def test_every_test_says_what_it_expects() -> None:
    """Each test has a docstring whose first paragraph is a sentence."""
    assert breaches(silent_tests, modules("tests")) == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    """What belongs nowhere else has a better name than `utils`."""
    files = [Path(path) for path in modules(*PACKAGES, "tests")]

    assert [str(file) for file in files if VAGUE_NAMES & {file.stem, *file.parent.parts}] == []


def test_migrations_are_numbered_sql_in_every_service() -> None:
    """Each service has them, beside no Python."""
    folders = sorted((ROOT / "services").glob("*_service"))

    assert [folder.name for folder in folders] == ["inventory_service", "order_service", "payment_service"]
    for folder in folders:
        names = sorted(path.name for path in (folder / "migrations").iterdir())
        assert names
        assert all(re.fullmatch(r"\d{4}_[a-z0-9_]+\.sql", name) for name in names), names


# --- the rules can find what they forbid ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        (sql_literals, 'await tx.execute("SELECT 1")'),
        (sql_literals, 'await tx.execute("""\n  DELETE FROM outbox\n""")'),
        (sql_literals, 'query = f"INSERT INTO {table} VALUES (1)"'),
        (sql_literals, 'await tx.fetchval("SELECT pg_advisory_lock($1)", 1)'),
        (sql_put_together, 'tx.execute(f"DELETE FROM {table}")'),
        (sql_put_together, 'tx.execute("DELETE FROM %s" % table)'),
        (sql_put_together, 'tx.execute("DELETE FROM " + table)'),
        (sql_put_together, 'tx.execute("DELETE FROM {}".format(table))'),
        (transactions, "async with database.transaction() as tx:\n    pass"),
        (missing_opening, "import os"),
        (missing_opening, '"""Opens\nwith two lines."""'),
        (silent_tests, "async def test_nothing():\n    pass"),
        (silent_tests, 'def test_nothing():\n    """TODO"""'),
    ],
)
def test_a_rule_finds_what_it_forbids(rule: Rule, code: str) -> None:
    """A rule that finds nothing anywhere would hold for ever."""
    tree = ast.parse(
        f"async def wrapped():\n{indent(code)}" if "await" in code or "async with" in code else code
    )

    assert [*rule(tree)]


def indent(code: str) -> str:
    """Return code one level deeper."""
    return "\n".join(f"    {line}" for line in code.splitlines())


def test_a_docstring_may_talk_about_sql() -> None:
    """Prose is no statement."""
    tree = ast.parse('def f():\n    """Do as SELECT a FROM b does."""')

    assert [*sql_literals(tree)] == []
