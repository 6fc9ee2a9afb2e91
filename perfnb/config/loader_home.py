"""A live `torch.utils.data.DataLoader`: a change makes a new loader on the same data; the given one is left alone."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from perfnb.config.dialects.plain import PLAIN
from perfnb.config.home import Home
from perfnb.config.tree import ABSENT, Path, own, refused
from perfnb.errors import ConfigError, NoPlaceError
from perfnb.safe_text import clean

KNOBS: Final = (
    "batch_size",
    "num_workers",
    "prefetch_factor",
    "pin_memory",
    "persistent_workers",
    "drop_last",
    "in_order",
)
"""Arguments of a DataLoader that are knobs."""

_USUAL_PREFETCH: Final = 2  # torch/utils/data/dataloader.py: where there are workers and nothing is said


def loader_class() -> Any:
    """`torch.utils.data.DataLoader` where torch was imported; None elsewhere."""
    return getattr(sys.modules.get("torch.utils.data"), "DataLoader", None)


class LoaderHome(Home):
    """A live DataLoader: a change makes a new one from its arguments, `.value`."""

    def __init__(self, value: Any) -> None:
        super().__init__(value, PLAIN)

    @property
    def kind(self) -> str:
        """What kind of home it is."""
        return "DataLoader"

    @cached_property
    def tree(self) -> dict[str, Any]:
        """Knobs of the loader; batch size and drop_last only where they are its own, not those of a batch sampler."""
        names = [name for name in KNOBS if hasattr(self.value, name)]
        if self._batches_itself:
            return {name: getattr(self.value, name) for name in names}
        return {name: getattr(self.value, name) for name in names if name not in ("batch_size", "drop_last")}

    @property
    def text(self) -> str:
        """The call that makes the loader, one argument per line; objects by their class."""
        lines = [f"    {name}={_shown(value)},\n" for name, value in self._arguments().items()]
        return f"DataLoader(\n{''.join(lines)})\n"

    @property
    def words(self) -> str:
        """The home in words."""
        return "the DataLoader"

    def with_edits(self, edits: Mapping[Path, Any]) -> LoaderHome:
        """A new loader with other arguments: same data, sampler, collate function and generator."""
        return self._made({str(path[0]): value for path, value in edits.items()})

    def with_knobs(self, values: Mapping[str, Any]) -> LoaderHome:
        """A new loader in which knobs have other values, all set at once: some exist only together."""
        for knob, value in values.items():
            if not self.holds(knob):
                raise self.no_place(knob, value)
        return self._made(values)

    def _made(self, values: Mapping[str, Any]) -> LoaderHome:
        kind = loader_class()
        if inspect.getattr_static(type(self.value), "__init__") is not inspect.getattr_static(kind, "__init__"):
            name = clean(type(self.value).__name__, 80)
            message = f"the loader is a {name}, whose own arguments are not known: make it anew with"
            raise NoPlaceError(message, tuple(f"{knob}={_shown(value)}" for knob, value in values.items()))
        arguments = self._arguments() | dict(values)
        if arguments.get("num_workers") == 0 and self.tree.get("num_workers"):
            self._without_workers(arguments, values)
        if arguments.get("num_workers") and not self.tree.get("num_workers") and "prefetch_factor" not in values:
            arguments.pop("prefetch_factor", None)
        dataset = arguments.pop("dataset")
        try:
            return LoaderHome(type(self.value)(dataset, **arguments))
        except Exception as error:  # torch checks the arguments, and may call the user's own sampler and dataset
            what = "DataLoader"
            raise refused(what, error) from error

    def _without_workers(self, arguments: dict[str, Any], values: Mapping[str, Any]) -> None:
        """What only workers have goes with them, but only where undo would bring it back as it was."""
        needs = {"prefetch_factor": (_USUAL_PREFETCH, None), "persistent_workers": (False, False)}
        kept = [name for name, (usual, _) in needs.items() if name not in values and arguments.get(name) not in (usual, None)]
        if kept:
            held = " and ".join(f"{name}={_shown(arguments[name])}" for name in kept)
            wanted = ", ".join(f'Change("{name}", {_shown(arguments[name])}, {needs[name][1]})' for name in kept)
            message = (
                f"the DataLoader has {held}, which need workers: change them with num_workers, {wanted}; nothing was changed"
            )
            raise ConfigError(message)
        if "prefetch_factor" not in values:
            arguments["prefetch_factor"] = None

    @property
    def _batches_itself(self) -> bool:
        """Whether the loader made its batch sampler from batch_size and drop_last."""
        return self.value.batch_size is not None or self.value.batch_sampler is None

    def _arguments(self) -> dict[str, Any]:
        """Arguments that make a loader like this one."""
        loader = self.value
        known = [name for name in inspect.signature(loader_class().__init__).parameters if name not in ("self", "shuffle")]
        arguments = {name: getattr(loader, name) for name in known if hasattr(loader, name)}
        left_out = {"batch_sampler"} if self._batches_itself else {"batch_size", "drop_last", "sampler"}
        if _is_iterable(loader.dataset):
            left_out |= {"sampler", "batch_sampler"}
        if arguments.get("pin_memory_device", ABSENT) == "":
            left_out.add("pin_memory_device")
        return {name: value for name, value in arguments.items() if name not in left_out}


def _is_iterable(dataset: Any) -> bool:
    kind = getattr(sys.modules.get("torch.utils.data"), "IterableDataset", None)
    return kind is not None and isinstance(dataset, kind)


def _shown(value: Any) -> str:
    value = own(value)
    if value is None or type(value) in (bool, int, float, str):
        return ascii(value)
    name = getattr(value, "__name__", None)
    return f"<{clean(name if isinstance(name, str) else type(value).__name__, 80)}>"
