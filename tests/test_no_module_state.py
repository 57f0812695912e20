"""No package keeps state in a module or a class, so that none of one tenant's can be there for another's call.

Read from the source, so that it holds for what is never imported in a test. What is assigned at module or class level
must be immutable by its form, or be a constant table: in capitals, not empty, made of the immutable, and changed by no
statement of any package. No function rebinds a module's name, sets an attribute of a module, class or function, or has a
default that can change. A function may remember its results only within a bound
and for texts and numbers: it cannot see whose they are.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ROOT = Path(__file__).parents[1]
PACKAGES = ("mediaserver", "admin", "tenancy", "admission", "config", "vault", "sipbridge", "perf")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

IMMUTABLE_CALLS = _words(
    """
    frozenset tuple str bytes int float object range Path Struct struct.Struct re.compile MappingProxyType
    types.MappingProxyType TypeVar ParamSpec NewType Enum timedelta datetime time date ip_network ip_address ZoneInfo
    ConfigDict Field PrivateAttr field auto slice os.sysconf TypeAdapter BeforeValidator AfterValidator StringConstraints property sum max min len
    """
)
"""What returns something that cannot change, or that belongs to each instance (fields of models and dataclasses)."""
IMMUTABLE_METHODS = _words(
    "encode decode split strip join lower upper absolute resolve format hex digest union"
)
"""Methods of the immutable that return the immutable; `split` only where its list becomes a tuple or frozenset."""
MUTATORS = _words(
    """
    append extend insert remove pop popitem clear add discard update setdefault sort reverse fill appendleft popleft
    intersection_update difference_update symmetric_difference_update __setitem__ __delitem__
    """
)
PLAIN_TYPES = frozenset({"str", "int", "float", "bool", "bytes"})
CACHES = frozenset({"cache", "lru_cache", "cached", "alru_cache"})


@dataclass(frozen=True)
class Known:
    """What all packages together tell about a name."""

    frozen: frozenset[str] = frozenset()
    """Classes whose instances cannot change, and functions that by their annotation return the immutable."""
    arrays: frozenset[str] = frozenset()
    """Functions that return an array of numbers."""
    mutated: frozenset[str] = frozenset()
    """Names that some statement changes in place."""


class Findings:
    """The mutable things of one module."""

    def __init__(self, tree: ast.Module, known: Known) -> None:
        self._known = known
        self.found: list[tuple[int, str]] = []
        self._body(tree.body, in_class=False)
        shared = {"cls", *_bound_at_module_level(tree)}
        for node in ast.walk(tree):
            match node:
                case ast.Global(names=names):
                    self._add(node, f"global {', '.join(names)}")
                case ast.Attribute(value=ast.Name(id=name), ctx=ast.Store() | ast.Del()) if name in shared:
                    self._add(node, f"an attribute of {name} is set")
                case ast.Call(func=ast.Name(id="globals" | "vars" | "locals")):
                    self._add(node, "names of a module by their text")
                case ast.Call(func=ast.Name(id="setattr"), args=[ast.Name(id=name), *_]) if name in shared:
                    self._add(node, f"an attribute of {name} is set")
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                    for default in (*node.args.defaults, *node.args.kw_defaults):
                        for reason in self._mutable(default) if default is not None else ():
                            self._add(node, f"a default: {reason}")
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    for decorator in node.decorator_list:
                        if _name(decorator).rpartition(".")[2] in CACHES and not _harmless_cache(
                            node, decorator
                        ):
                            self._add(node, f"{node.name} remembers its results")

    def _add(self, node: ast.stmt | ast.expr, what: str) -> None:
        self.found.append((node.lineno, what))

    def _body(self, body: list[ast.stmt], *, in_class: bool) -> None:
        for statement in body:
            match statement:
                case ast.ClassDef():
                    self._body(statement.body, in_class=True)
                case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                    inner = [each for each in ast.iter_child_nodes(statement) if isinstance(each, ast.stmt)]
                    for handler in getattr(statement, "handlers", []):
                        inner += handler.body
                    self._body(inner, in_class=in_class)
                case (
                    ast.Assign(value=value)
                    | ast.AnnAssign(value=ast.expr() as value)
                    | ast.AugAssign(value=value)
                ):
                    table = not in_class and self._may_be_table(statement)
                    if not _is_all(statement) and not (table and self._is_table(value)):
                        for reason in self._mutable(value):
                            self._add(statement, reason)

    def _may_be_table(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign) -> bool:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [_name(target) for target in targets]
        return len(names) == 1 and names[0].isupper() and names[0] not in self._known.mutated

    def _is_table(self, value: ast.expr) -> bool:
        """Whether a container has something in it, and nothing that could change."""
        match value:
            case ast.List(elts=elements) | ast.Set(elts=elements):
                return bool(elements) and not any(
                    reason for each in elements for reason in self._mutable(each)
                )
            case ast.Dict(values=elements):
                return bool(elements) and not any(
                    reason for each in elements for reason in self._mutable(each)
                )
            case ast.DictComp(value=element) | ast.ListComp(elt=element) | ast.SetComp(elt=element):
                return not any(self._mutable(element))
            case ast.BinOp(left=left, right=right):
                return self._is_table(left) and self._is_table(right)
            case ast.Call():
                name = _name(value.func)
                return name.startswith("np.") or name in self._known.arrays
            case _:
                return False

    def _mutable(self, value: ast.expr) -> Iterator[str]:
        """Why what the expression makes can change."""
        match value:
            case ast.List() | ast.Dict() | ast.Set():
                yield f"a {type(value).__name__.lower()}"
            case ast.ListComp() | ast.DictComp() | ast.SetComp() | ast.GeneratorExp():
                yield f"a {type(value).__name__}"
            case ast.Tuple(elts=elements):
                for element in elements:
                    yield from self._mutable(element)
            case ast.BinOp(left=left):
                # The left operand gives the type: a frozenset less a set is a frozenset.
                yield from self._mutable(left)
            case ast.IfExp(body=body, orelse=orelse):
                yield from self._mutable(body)
                yield from self._mutable(orelse)
            case ast.Call():
                yield from self._call(value)
            case _:
                return

    def _call(self, call: ast.Call) -> Iterator[str]:
        name = _name(call.func)
        short = name.rpartition(".")[2]
        if name in IMMUTABLE_CALLS or short in self._known.frozen:
            # A tuple or frozen object is as immutable as what it is made of; frozenset(...) takes hashables only.
            if short == "tuple" or short in self._known.frozen:
                for argument in [*call.args, *(keyword.value for keyword in call.keywords)]:
                    if not isinstance(argument, ast.GeneratorExp | ast.ListComp):
                        yield from self._mutable(argument)
            return
        if short in IMMUTABLE_METHODS and isinstance(call.func, ast.Attribute):
            if short == "split":
                yield "the list of split()"
            return
        yield f"the result of {name}()"


def _bound_at_module_level(tree: ast.Module) -> Iterator[str]:
    """Modules, classes and functions: what a function shares with every other."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from ((each.asname or each.name).partition(".")[0] for each in names)
            case ast.ClassDef(name=name):
                yield name
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name


def _name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{_name(value)}.{attr}"
        case ast.Call(func=func) | ast.Subscript(value=func):
            return _name(func)
        case _:
            return "?"


def _is_all(statement: ast.stmt) -> bool:
    """``__all__`` is a list by the language's convention and read by nobody but imports."""
    return isinstance(statement, ast.Assign) and [_name(target) for target in statement.targets] == [
        "__all__"
    ]


def _harmless_cache(node: ast.FunctionDef | ast.AsyncFunctionDef, decorator: ast.expr) -> bool:
    """Bounded, and asked with nothing but texts and numbers."""
    bounded = isinstance(decorator, ast.Call) and any(
        each.arg == "maxsize" and isinstance(each.value, ast.Constant) and isinstance(each.value.value, int)
        for each in decorator.keywords
    )
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    plain = all(each.annotation is not None and _name(each.annotation) in PLAIN_TYPES for each in arguments)
    return bounded and plain and bool(arguments) and node.args.vararg is None and node.args.kwarg is None


def what_is_known(trees: Iterable[ast.Module]) -> Known:
    """Gather from all packages which names stand for the immutable and which are changed."""
    bases: dict[str, list[str]] = {}
    frozen: set[str] = {"Enum", "StrEnum", "IntEnum", "NamedTuple", "StrictModel"}
    arrays: set[str] = set()
    mutated: set[str] = set()
    for tree in trees:
        module_level = set(tree.body)
        for node in ast.walk(tree):
            match node:
                case ast.ClassDef():
                    bases[node.name] = [_name(base).rpartition(".")[2] for base in node.bases]
                    if any(_makes_frozen(decorator) for decorator in node.decorator_list):
                        frozen.add(node.name)
                case ast.FunctionDef(name=name, returns=ast.expr() as returns):
                    kind = _name(returns)
                    if kind in PLAIN_TYPES or kind in ("tuple", "frozenset"):
                        frozen.add(name)
                    elif kind == "npt.NDArray":
                        arrays.add(name)
                case ast.Subscript(value=changed, ctx=ast.Store() | ast.Del()):
                    mutated.add(_last(changed))
                case ast.AugAssign(target=changed) if node not in module_level:
                    mutated.add(_last(changed))
                case ast.Call(func=ast.Attribute(value=changed, attr=method)) if method in MUTATORS:
                    mutated.add(_last(changed))
    size = -1
    while size != len(frozen):
        size = len(frozen)
        frozen |= {name for name, parents in bases.items() if frozen.intersection(parents)}
    return Known(frozenset(frozen), frozenset(arrays), frozenset(mutated))


def _makes_frozen(decorator: ast.expr) -> bool:
    return (
        isinstance(decorator, ast.Call)
        and _name(decorator) == "dataclass"
        and any(each.arg == "frozen" and ast.unparse(each.value) == "True" for each in decorator.keywords)
    )


def _last(node: ast.expr) -> str:
    return _name(node).rpartition(".")[2]


TREES = MappingProxyType({path: ast.parse(path.read_text(), str(path)) for path in MODULES})
KNOWN = what_is_known(TREES.values())


def test_there_is_something_to_read() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(PACKAGES)
    assert {"TenantContext", "TenantConfig", "Reject"} <= KNOWN.frozen


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_or_class_holds_state(path: Path) -> None:
    found = Findings(TREES[path], KNOWN).found
    assert not found, "\n".join(f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in found)


FROZEN_CLASS = ast.parse("@dataclass(frozen=True)\nclass Frozen: ...")


@pytest.mark.parametrize(
    "source",
    [
        "CALLS = {}",
        "CALLS = []",
        "TABLE = {'a': []}",
        "TABLE = {'a': 1}\ndef f():\n    TABLE['b'] = 2",
        "TABLE = {'a': 1}\ndef f():\n    del TABLE['a']",
        "TABLE = {'a': 1}\ndef f():\n    module.TABLE.update(b=2)",
        "TABLE = ['a']\ndef f():\n    TABLE.append('b')",
        "table = {'a': 1}",
        "class A:\n    TABLE = {'a': 1}",
        "@lru_cache\ndef f(x: str): ...",
        "@lru_cache(maxsize=9)\ndef f(x: Tenant): ...",
        "calls = []",
        "calls: dict[str, int] = {}",
        "names = {1, 2}",
        "pair = (1, [2])",
        "try:\n    x = 1\nexcept ValueError:\n    x = []",
        "if True:\n    x = {}",
        "class A:\n    seen = []",
        "class A:\n    class B:\n        seen: set[int] = set()",
        "queue = asyncio.Queue()",
        "tenants = defaultdict(list)",
        "words = 'a b'.split()",
        "current = ContextVar('current')",
        "gate = AdmissionGate(slots=1)",
        "context = Frozen([1])",
        "limits = [n for n in range(3)]",
        "a = b = []",
        "def f():\n    global x\n    x = 1",
        "@functools.lru_cache(maxsize=3)\ndef f(): ...",
        "class A:\n    @cache\n    def f(self): ...",
        "total = 0\ntotal += load()",
        "def f(tenant, seen={}): ...",
        "def f(*, seen=[]): ...",
        "f = lambda tenant, seen={}: seen",
        "import tenancy.registry\ndef f(tenant):\n    tenancy.registry = tenant",
        "from tenancy import registry\ndef f(tenant):\n    registry.current = tenant",
        "class A: ...\ndef f(tenant):\n    A.current = tenant",
        "class A:\n    @classmethod\n    def f(cls, tenant):\n        cls.current = tenant",
        "def f(tenant):\n    f.current = tenant",
        "class A: ...\ndef f(tenant):\n    setattr(A, 'current', tenant)",
        "def f(tenant):\n    globals()['current'] = tenant",
    ],
)
def test_state_is_found(source: str) -> None:
    tree = ast.parse(source)
    assert Findings(tree, what_is_known([tree, FROZEN_CLASS])).found


@pytest.mark.parametrize(
    ("place", "own", "shared"),
    [
        ("tenancy/registry.py", "self._configs", "_CONFIGS: OrderedDict[str, TenantConfig] = OrderedDict()"),
        ("mediaserver/calls.py", "self._active", "ACTIVE: dict[int, ActiveCall] = {}"),
        ("mediaserver/webrtc/edge.py", "self._calls", "CALLS: dict[str, ActiveCall] = dict()"),
    ],
)
def test_tenants_data_would_be_found_in_the_modules_that_hold_them(place: str, own: str, shared: str) -> None:
    """The very table that an object has, moved to its module."""
    source = (ROOT / place).read_text()
    assert own in source
    name = shared.partition(":")[0]
    moved = f"{source.replace(own, name)}\n{shared}\n"
    assert not Findings(ast.parse(source), KNOWN).found
    assert Findings(ast.parse(moved), KNOWN).found


@pytest.mark.parametrize(
    "source",
    [
        "LIMIT = 3 * 20",
        "NAMES = ('a', 'b')",
        "NAMES: Final = frozenset({'a'})",
        "TABLE = MappingProxyType({'a': 1})",
        "PATTERN = re.compile('a')",
        "DEFAULT = Frozen(1)",
        "TABLE = {'a': 1} | {'b': 2}",
        "TABLE: dict[str, tuple[int, ...]] = {'a': (1, 2)}",
        "@lru_cache(maxsize=9)\ndef f(x: str) -> int: ...",
        "def words(x: str) -> tuple[str, ...]: ...\nw = words('a b')",
        "__all__ = ['a']",
        "class A:\n    x: list[int] = field(default_factory=list)",
        "def f():\n    seen = []",
        "Alias = dict[str, int]",
    ],
)
def test_what_cannot_change_is_let_pass(source: str) -> None:
    tree = ast.parse(source)
    assert not Findings(tree, what_is_known([tree, FROZEN_CLASS])).found
