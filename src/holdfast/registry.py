"""Finds plug-ins by name: built in, from another package, or in a Python file of the user's own.

Each kind of plug-in (tasks, judges, engines, methods) has one `Registry`: a literal dict from name
to ``module:attribute``, so that nothing is imported until it is asked for. Other packages add
theirs as entry points of the group ``holdfast.<kind>``; ``path/to/file.py:Class`` names a class in
a file, whose code is run. Wherever a plug-in is named, all three forms hold (`docs/plugins.md`).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from holdfast.errors import HoldfastError, StudyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint, EntryPoints

PAGE = "docs/plugins.md has a whole example"
OWN = "; your own: path/to/file.py:Class"
Kind = TypeVar("Kind")
REMEMBERED_S = 5.0
"""So long the entry points of other packages are not looked for again."""


@dataclass(frozen=True, slots=True)
class PlugIn(Generic[Kind]):
    """A class that was found.

    Attributes:
        make: the class; `build` calls it.
        name: that it is registered under; of a class in a file its `name`, or the class's.
        code: a hash of its file; "" where it was installed.
        where: it is named, for messages.
    """

    make: type[Kind]
    name: str
    code: str = ""
    where: str = ""

    @property
    def options(self) -> type[BaseModel]:
        """The section of a study that holds its settings; it was looked at when it was found."""
        found: type[BaseModel] = inspect.getattr_static(self.make, "Options", BaseModel)
        return found

    def build(self, *args: object, **options: object) -> Kind:
        """An instance that knows its `plugin` (the name) and its `code`.

        Raises:
            StudyError: a class in a file of the user's cannot be made so.
        """
        make: Callable[..., Kind] = self.make
        try:
            made = make(*args, **options)
        except HoldfastError:
            raise
        except Exception as error:
            if not self.code:
                raise
            raise StudyError(
                f"{self.name} cannot be made: {type(error).__name__}: {error}",
                where=self.where,
                remedy=f"correct its __init__ in {inspect.getfile(self.make)}; {PAGE}",
            ) from error
        object.__setattr__(made, "plugin", self.name)
        object.__setattr__(made, "code", self.code)
        return made


@dataclass(frozen=True, slots=True)
class Registry(Generic[Kind]):
    """All plug-ins of one kind.

    Attributes:
        kind: in the plural; the entry points' group is ``holdfast.<kind>``.
        bases: every plug-in derives from one of them.
        known: those of this package: name to ``module:attribute``.
        hint: ends the remedy for an unknown name.
    """

    kind: str
    bases: tuple[type[Kind], ...]
    known: Mapping[str, str]
    hint: str = ""

    def find(self, name: str, where: str = "", folder: Path | None = None) -> PlugIn[Kind]:
        """The plug-in that a name means.

        Args:
            name: registered, an entry point's, or ``path/to/file.py:Class``.
            where: for messages.
            folder: from which a relative path is taken; None: the working folder.

        Raises:
            StudyError: no such name, or two of it; a file that cannot be run or has no such class;
                a class of another kind, or one that lacks a member.
        """
        if names_file(name):
            return self._in_file(name, where, folder)
        points = self._entry_points(name, where)
        if name in self.known:
            module, _, attribute = self.known[name].partition(":")
            return self._checked(getattr(import_module(module), attribute), name, "", where)
        if points:
            return self._checked(_load(points[0], where), name, "", where)
        names = sorted(self.names())
        raise StudyError(
            f"no {self.kind.rstrip('s')} is called {name!r}{nearest(name, names)}",
            where=where,
            remedy=f"known: {', '.join(names)}{self.hint or OWN}",
        )

    def names(self) -> list[str]:
        """Everything that is registered, files apart; this package's first, in its order."""
        return list(dict.fromkeys([*self.known, *sorted(point.name for point in self._points())]))

    def _entry_points(self, name: str, where: str) -> list[EntryPoint]:
        """The entry point of a name: one, or none.

        Raises:
            StudyError: the name is that of two things; says of which distributions.
        """
        every = {(_owner(one), one.value): one for one in self._points() if one.name == name}
        owners = ["holdfast itself"] * (name in self.known) + [owner for owner, _ in every]
        if len(owners) > 1:
            raise StudyError(
                f"two {self.kind} are called {name!r}: of {owners[0]} and of {owners[1]}",
                where=where,
                remedy=f"uninstall {owners[1]}, or have it register another name in its group "
                f"holdfast.{self.kind}",
            )
        return list(every.values())

    def _points(self) -> EntryPoints:
        from importlib.metadata import entry_points  # takes longer than all else of this module

        window = int(time.monotonic() / REMEMBERED_S)
        return _points_of(f"holdfast.{self.kind}", entry_points, tuple(sys.path), window)

    def _in_file(self, name: str, where: str, folder: Path | None) -> PlugIn[Kind]:
        path, _, attribute = name.rpartition(":")
        module, code = _run(path, where, folder)
        found = getattr(module, attribute, None)
        if found is None:
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise StudyError(
                f"{path} has no class {attribute!r}{nearest(attribute, classes)}",
                where=where,
                remedy="write path/to/file.py:Class",
            )
        plugin = self._checked(found, name, code, where)
        own = inspect.getattr_static(plugin.make, "name", "")
        called = own if isinstance(own, str) and own else plugin.make.__name__
        return PlugIn(plugin.make, called, code, where)

    def _checked(self, found: object, name: str, code: str, where: str) -> PlugIn[Kind]:
        """Refuse what is no class of this kind, or no whole one."""
        bases = " or ".join(f"{base.__module__}.{base.__name__}" for base in self.bases)
        if not isinstance(found, type):
            raise StudyError(
                f"{name} is no class, but {type(found).__name__}",
                where=where,
                remedy=f"name a class that derives from {bases}; {PAGE}",
            )
        if not issubclass(found, self.bases):
            raise StudyError(
                f"{name} does not derive from {bases}",
                where=where,
                remedy=f"write `class {found.__name__}({self.bases[0].__name__}):`; {PAGE}",
            )
        missing: Sequence[str] = sorted(getattr(found, "__abstractmethods__", ()))
        if missing:
            raise StudyError(f"{name} lacks {', '.join(missing)}", where=where, remedy=PAGE)
        options = inspect.getattr_static(found, "Options", BaseModel)
        if not (isinstance(options, type) and issubclass(options, BaseModel)):
            raise StudyError(
                f"the Options of {name} are no section of a study",
                where=where,
                remedy=f"write `class Options(Section):` (holdfast.config.Section); {PAGE}",
            )
        return PlugIn(found, name, code, where)


@lru_cache(maxsize=32)
def _points_of(
    group: str, read: Callable[..., EntryPoints], path: tuple[str, ...], window: int
) -> EntryPoints:
    """The entry points of a group; a study of a thousand arms asks for them ten thousand times.

    Args:
        group: of entry points.
        read: `importlib.metadata.entry_points`.
        path: where packages are looked for.
        window: changes when what was found is to be forgotten: notebooks live long.
    """
    return read(group=group)


def names_file(name: str) -> bool:
    """Whether a name is ``path/to/file.py:Class``."""
    return name.rpartition(":")[0].endswith(".py")


def anchored(value: Any, folder: Path | None) -> Any:
    """Settings in which every relative ``file.py:Class``, also as a key, is taken from a folder.

    Args:
        value: what YAML gave.
        folder: None: the working folder, so that nothing is changed.
    """
    if folder is None:
        return value
    if isinstance(value, Mapping):
        return {anchored(key, folder): anchored(inner, folder) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [anchored(inner, folder) for inner in value]
    return in_folder(value, folder) if isinstance(value, str) and names_file(value) else value


def in_folder(name: str, folder: Path) -> str:
    """``file.py:Class`` with its path taken from a folder."""
    path, _, attribute = name.rpartition(":")
    return f"{folder / Path(path).expanduser()}:{attribute}"


def _load(point: EntryPoint, where: str) -> object:
    try:
        return point.load()
    except Exception as error:
        raise StudyError(
            f"the entry point {point.name!r} of {_owner(point)} cannot be loaded: "
            f"{type(error).__name__}: {error}",
            where=where,
            remedy=f"update or uninstall {_owner(point)}",
        ) from error


def _owner(point: EntryPoint) -> str:
    """The distribution that an entry point is of, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else f"module {point.module}"


def _run(path: str, where: str, folder: Path | None) -> tuple[ModuleType, str]:
    """The module that a file's code makes, once for each content, and the content's hash.

    Only for what the user wrote into a study or a command: nothing else may bring a path here.

    Raises:
        StudyError: no such file, or it cannot be run.
    """
    origin = (folder or Path()).resolve()
    try:
        file = (origin / Path(path).expanduser()).resolve()
        there = file.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, somebody's home, a circle
        there = False
    if not there:
        raise StudyError(
            f"no such file: {path[:200]}",
            where=where,
            remedy=f"correct the path; it is taken from {origin}",
        )
    source = file.read_bytes()
    code = hashlib.sha256(source).hexdigest()[:16]
    name = f"holdfast_file_{file.stem}_{code}"
    if name in sys.modules and sys.modules[name].__file__ == str(file):
        return sys.modules[name], code
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None:
        raise StudyError(f"cannot be read as Python: {path}", where=where, remedy="name a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks a class's annotations up here
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)  # the very text that was hashed
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise StudyError(
            f"{path} cannot be run: {type(error).__name__}: {error}",
            where=where,
            remedy=f"`python {path}` shows where",
        ) from error
    return module, code


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean X?)``, or nothing when no name is close."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
