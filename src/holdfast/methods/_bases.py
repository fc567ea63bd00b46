"""The base of all methods, and that of what becomes of weights after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from holdfast.config import Section
from holdfast.errors import HoldfastError
from holdfast.methods._context import Making, MethodContext
from holdfast.types import Example, ModelRef

Entry = Literal["data", "loss", "weights", "ask"]


class Configured:
    """What every kind of method has: its settings, and how they are told.

    Attributes:
        Options: the settings that a study may give.
        version: raised whenever the same settings would lead to another result.
        plugin: the name that it is registered under.
        code: a hash of its file, where it is a class in a file of the user's; else "".
        options: the values of `Options`.
        later: those that the arm applies after it, and that mix in a share of their own.
    """

    entry: ClassVar[Entry]
    Options: ClassVar[type[Section]] = Section
    version: ClassVar[str] = "1"
    plugin: str = ""
    code: str = ""
    options: Any = None
    later: Sequence[Configured] = ()

    def __init__(self, options: Any) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """The settings in words, for the report: ``mine (share 0.1)``, without the defaults."""
        changed = self.options.model_dump(mode="json", exclude_defaults=True)
        words = ", ".join(f"{key} {value}" for key, value in changed.items())
        return f"{self.plugin} ({words})" if words else self.plugin

    def identity(self) -> Mapping[str, object]:
        """What bears on the result: settings, and the content of files rather than their paths."""
        found: Mapping[str, object] = self.options.model_dump(mode="json")
        return found

    def mixed(self, context: MethodContext | None = None) -> float:
        """The share of the final training set that it mixes in; by default none.

        Args:
            context: what it is applied to; None: of any stage where it mixes something in.
        """
        return 0.0

    def share_so_far(self, context: MethodContext) -> float:
        """What `mixed` is of the examples that are there once it has been applied.

        What is mixed in later makes it less of the whole, so that it has to be more here.
        """
        return self.mixed(context) / (1 - sum(one.mixed(context) for one in self.later))


class WeightMethod(Configured):
    """One entry under ``weights:`` of an arm: shares of the change, or new weights of several.

    Attributes:
        version: raised whenever the same settings would lead to other weights.
        factors: shares of the training's change under which the model is measured too.
        partners: other arms whose weights of the same seed and step go in.
        over_seeds: all seeds of the arm go in.
        over_stages: the weights at the end of every stage so far go in (`stages` of the study).
        checkpoints: ``last`` or ``all``: which checkpoints it is applied to.
        averages: decays of the moving averages that the training of these weights must keep.
        products: it takes plain products B·A only, so no other kind of adapter.
        whole: it also makes weights of a model that was trained whole.
        loads: it loads the model to make them.
    """

    entry = "weights"
    factors: tuple[float, ...] = ()
    partners: tuple[str, ...] = ()
    over_seeds: bool = False
    over_stages: bool = False
    checkpoints: str = "last"
    averages: tuple[float, ...] = ()
    products: bool = True
    whole: bool = False
    loads: bool = False

    @property
    def makes(self) -> bool:
        """Whether new weights are made, of several adapters or of one alone."""
        own = type(self)
        return own.make is not WeightMethod.make or own.make_from is not WeightMethod.make_from

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`; by default there is nothing to look at."""

    def check_base(self, base: ModelRef) -> None:
        """Refuse a base that it cannot work with, before anything is asked; by default none.

        Raises:
            ModelError: naming what it lacks.
        """

    def check_targets(self, matrices: Mapping[str, tuple[int, ...]]) -> None:
        """Refuse adapters that it cannot work with, before anything is asked; by default none.

        Args:
            matrices: by the names of the layers that get adapters, the shapes of their weights as
                they are stored.

        Raises:
            ModelError: naming what it lacks.
        """

    def lessons(self) -> tuple[Sequence[Example], int]:
        """What it learns after training, and how often, one example a step; by default nothing."""
        return (), 0

    def make(self, adapters: Sequence[Path], folder: Path) -> Mapping[str, object]:
        """Write one adapter made of several.

        Args:
            adapters: the arm's own first.
            folder: gets ``adapter_config.json`` and ``adapter_model.safetensors``.

        Returns:
            What the stage's record should say of it.
        """
        raise HoldfastError(f"{self.plugin} makes no weights", remedy="please report this")

    def make_from(
        self, making: Making, trained: Sequence[Path], folder: Path
    ) -> Mapping[str, object]:
        """`make` for a method that needs more than adapters; by default it is `make`.

        Args:
            making: the untouched base, and where to work.
            trained: checkpoints: adapters, or whole models where these were trained.
            folder: gets the adapter, or the whole model.
        """
        return self.make(trained, folder)
