"""What other programs may use says what it is given, in which units, what it raises, and whence.

The packages that strangers reuse: transports, testing and wire.
"""

# mypy: allow-untyped-calls
# (trial's methods have no types)

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy

PACKAGES = ("cloudconnect.transports", "cloudconnect.testing", "cloudconnect.wire")

#: How a docstring says where what it describes comes from.
SOURCE = re.compile(r"\bSource\b|\bRFC \d|docs/[a-z/-]+\.rst|revision \d|C2SP")

#: Errors that say that our own side is wrong, or that a subclass is to do it.
UNSAID = {"NotImplementedError", "AssertionError"}


def modules() -> Iterator[ModuleType]:
    """Every module of the packages."""
    for name in PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.walk_packages(package.__path__, f"{name}."):
            yield importlib.import_module(found.name)


def bases_describe(cls: type, name: str) -> bool:
    """Whether a base class or an interface of ``cls`` has, and so describes, method ``name``."""
    if any(name in vars(base) for base in cls.__mro__[1:-1]):
        return True
    return any(name in interface for interface in implementedBy(cls))


def describes(docstring: str, parameter: str) -> bool:
    """Whether a docstring says what a parameter is."""
    field = rf":(param|ivar) {parameter}:|``{parameter}(``|\.)"
    return re.search(field, docstring) is not None


def raised(function: ast.AST) -> Iterator[str]:
    """Names of the exception classes that ``function`` itself raises."""
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rsplit(".")[-1]
            if name[0].isupper():
                yield name


def gaps(tree: ast.Module, module: Any) -> Iterator[str]:
    """Parameters and errors of public functions and methods that no docstring describes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield from gaps_in(
                node, ast.get_docstring(node) or "", f"{module.__name__}.{node.name}"
            )
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            cls = getattr(module, node.name)
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and speaks_for_itself(cls, method):
                    docstring = ast.get_docstring(method) or ""
                    if method.name == "__init__":
                        docstring += ast.get_docstring(node) or ""
                    name = f"{cls.__module__}.{node.name}.{method.name}"
                    yield from gaps_in(method, docstring, name)


def speaks_for_itself(cls: Any, method: ast.FunctionDef) -> bool:
    """Whether a method of ``cls`` is public and nobody else describes it: no base, no property."""
    if method.name == "__init__":
        return True
    if method.name.startswith(("_", "test_")) or not isinstance(cls, type):
        return False
    setter = any(ast.unparse(item).endswith(".setter") for item in method.decorator_list)
    return not (setter or bases_describe(cls, method.name))


def gaps_in(function: ast.FunctionDef, docstring: str, name: str) -> Iterator[str]:
    """The same of one function."""
    arguments = function.args.args + function.args.kwonlyargs
    for argument in arguments:
        if argument.arg not in ("self", "cls") and not describes(docstring, argument.arg):
            yield f"{name}: parameter {argument.arg}"
    for error in raised(function):
        if error not in UNSAID and error not in docstring and "CloudConnectError" not in docstring:
            yield f"{name}: raises {error}"


class DocstringTests(SynchronousTestCase):
    """The public names of the packages that others reuse."""

    def test_parameters_and_errors(self) -> None:
        """Each parameter and each error is described, by the name itself or what it implements."""
        found = [
            gap
            for module in modules()
            for gap in gaps(ast.parse(inspect.getsource(module)), module)
        ]
        self.assertEqual([], found)

    def test_sources(self) -> None:
        """Each module says where what it does comes from: a standard, a page, an interface."""
        found = [m.__name__ for m in modules() if not SOURCE.search(inspect.getsource(m))]
        self.assertEqual([], found)

    def test_finds(self) -> None:
        """The check finds a parameter and an error that nobody describes."""
        tree = ast.parse(
            "def f(size, kind):\n"
            '    """Does it.\n\n    :param kind: which\n    """\n'
            "    raise ValueError(size)\n"
        )
        name = ModuleType("m")
        self.assertEqual(["m.f: parameter size", "m.f: raises ValueError"], list(gaps(tree, name)))
