"""Every public name of the package says what it is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import version
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementedBy
from zope.interface.interface import InterfaceClass

import cloudconnect


def our_modules() -> Iterator[ModuleType]:
    """The package and every public module in it; migrations are scripts that Alembic loads."""
    yield cloudconnect
    for found in pkgutil.walk_packages(cloudconnect.__path__, "cloudconnect."):
        parts = found.name.split(".")
        if "migrations" not in parts and not any(part.startswith("_") for part in parts):
            yield importlib.import_module(found.name)


def public(name: str) -> bool:
    """Whether a name is one that others may use."""
    return not name.startswith("_")


def inherited(cls: type, name: str) -> bool:
    """Whether ``name`` is described by a base class or an interface that ``cls`` provides."""
    if any(getattr(vars(base).get(name), "__doc__", None) for base in cls.__mro__[1:]):
        return True
    return any(name in interface for interface in implementedBy(cls))


def undocumented_members(cls: type) -> Iterator[str]:
    """Public methods and properties that ``cls`` itself defines and that nothing describes."""
    for name, member in list(vars(cls).items()):
        if isinstance(member, staticmethod | classmethod):
            member = member.__func__
        described = inspect.isfunction(member) or isinstance(member, property)
        if public(name) and described and not member.__doc__ and not inherited(cls, name):
            yield f"{cls.__module__}.{cls.__qualname__}.{name}"


def undocumented_interface(interface: InterfaceClass) -> Iterator[str]:
    """Methods and attributes of ``interface`` that nothing describes."""
    for name, member in interface.namesAndDescriptions():
        if not member.getDoc():
            yield f"{interface.__module__}.{interface.__name__}.{name}"


def undocumented(module: ModuleType) -> list[str]:
    """The public names that ``module`` defines and that have no docstring."""
    found = [] if module.__doc__ else [module.__name__]
    for name, value in vars(module).items():
        if not public(name) or getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, InterfaceClass):
            found.extend([] if value.getDoc() else [f"{module.__name__}.{name}"])
            found.extend(undocumented_interface(value))
        elif inspect.isclass(value) or inspect.isfunction(value):
            found.extend([] if value.__doc__ else [f"{module.__name__}.{name}"])
            found.extend(undocumented_members(value) if inspect.isclass(value) else [])
    return found


class PublicNameTests(SynchronousTestCase):
    """The package as it stands."""

    def test_version(self) -> None:
        """The package says which release it is, and has no other name that it does not have."""
        self.assertEqual(version("cloudconnect"), cloudconnect.__version__)
        self.assertFalse(hasattr(cloudconnect, "no_such_name"))

    def test_described(self) -> None:
        """Every public module, class, function, method and interface has a docstring."""
        modules = list(our_modules())
        self.assertIn("cloudconnect.keys", [module.__name__ for module in modules])
        self.assertEqual([], [name for module in modules for name in undocumented(module)])


SILENT = """
from zope.interface import Interface

def function(): pass
def _private(): pass

class Class:
    def method(self): pass
    @property
    def value(self): return 1
    @classmethod
    def make(cls): pass
    def _private(self): pass

class IInterface(Interface):
    def method(): pass
"""

DESCRIBED = """
'A module.'
from pathlib import Path
from zope.interface import Interface, implementer

class ISpeaker(Interface):
    'Somebody who speaks.'
    def speak():
        'Say something.'

@implementer(ISpeaker)
class Speaker:
    'One who speaks.'
    def speak(self): pass
    def listen(self):
        'Be quiet.'

class Listener(Speaker):
    'One who also listens.'
    def listen(self): pass
"""


class CheckerTests(SynchronousTestCase):
    """The check above finds what it is for."""

    def found(self, source: str) -> list[str]:
        """What is undocumented in a module with this source."""
        module = ModuleType("made")
        exec(compile(source, "made", "exec"), vars(module))
        return undocumented(module)

    def test_silent(self) -> None:
        """Each kind of public name that says nothing is found, and no private one."""
        names = ["", ".function", ".Class", ".Class.method", ".Class.value", ".Class.make"]
        names += [".IInterface", ".IInterface.method"]
        self.assertEqual([f"made{name}" for name in names], self.found(SILENT))

    def test_described(self) -> None:
        """An interface or a base class describes a method; imports do not count."""
        self.assertEqual([], self.found(DESCRIBED))
