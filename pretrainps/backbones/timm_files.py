"""timm's weight files through timm's own filters, with an account of which tensor became which.

Many of timm's models carry a function that turns files of their authors, and of older versions of timm, into their present
names. It may drop buffers and rename, reshape, split and join tensors. It may also resize a tensor that does not fit, which
here would hide that the file is of another model: such a tensor is handed on as it was, and the comparison finds it.
"""

from __future__ import annotations

import fnmatch
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import timm
from timm.models import _builder
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pretrainps.weights.convert import Adapted, Adapter

Filter = Callable[..., dict[str, Tensor]]
_MOVES = frozenset(
    {"view", "reshape", "view_as", "reshape_as", "permute", "transpose", "swapaxes", "swapdims", "movedim", "t", "__get__"}
    | {"cat", "concat", "stack", "chunk", "split", "tensor_split", "unbind", "squeeze", "unsqueeze", "flatten", "unflatten"}
    | {
        "__getitem__",
        "narrow",
        "select",
        "index_select",
        "flip",
        "clone",
        "contiguous",
        "detach",
        "to",
        "type",
        "float",
        "half",
    }
)
"""Functions that put numbers elsewhere and leave them what they are."""
_ASKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Origin:
    """Which tensors of the file a tensor is made of."""

    keys: frozenset[str]
    computed: bool = False
    """Whether its numbers are others than theirs."""


class _Trace(TorchFunctionMode):
    """Follows tensors through whatever is called with them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.held = list(tensors.values())  # an id says which tensor it is only as long as that lives
        self.origins = {id(value): _Origin(frozenset({key})) for key, value in tensors.items()}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [self.origins[id(value)] for value in _tensors((args, kwargs or {})) if id(value) in self.origins]
        if given:
            computed = getattr(func, "__name__", "") not in _MOVES or any(origin.computed for origin in given)
            origin = _Origin(frozenset().union(*(origin.keys for origin in given)), computed)
            for value in _tensors(result):
                self.held.append(value)
                self.origins[id(value)] = origin
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


class TimmFiles(Adapter):
    """Brings files of one timm model under its present names.

    Args:
        name: timm's name of the model.
        wanted: The tensors that the backbone takes, and their shapes.
    """

    def __init__(self, name: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
        self.name = name
        self.wanted = dict(wanted)
        self.fingerprint = f"timm {timm.__version__} {name}"

    def __call__(self, tensors: Mapping[str, Tensor], known: tuple[str, ...]) -> Adapted:
        """Return the tensors as they are if they fit so, else as timm's filter makes them, if that fits better.

        Args:
            tensors: The file's.
            known: Shell patterns of keys that may be left over.
        """
        plain = Adapted(dict(tensors), {key: (key,) for key in tensors})
        if self._misfit(plain, known) == (0, 0):
            return plain
        filtered = self._filtered(tensors)
        return plain if filtered is None else min(plain, filtered, key=lambda adapted: self._misfit(adapted, known))

    def _misfit(self, adapted: Adapted, known: tuple[str, ...]) -> tuple[int, int]:
        found = {key: tuple(value.shape) for key, value in adapted.tensors.items()}
        others = [key for key in found if key not in self.wanted and not any(fnmatch.fnmatchcase(key, each) for each in known)]
        return sum(found.get(key) != shape for key, shape in self.wanted.items()), len(others)

    def _filtered(self, tensors: Mapping[str, Tensor]) -> Adapted | None:
        model, filter_fn = _model_and_filter(self.name)
        if filter_fn is None:
            return None
        mine = {key: value.view_as(value) for key, value in tensors.items()}  # two keys may be of one tensor object
        trace = _Trace(mine)
        try:
            with trace, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    found = filter_fn(dict(mine), model)
                except TypeError:  # timm's older ones take no model
                    found = filter_fn(dict(mine))
        except Exception:  # whatever a filter meets in a file that it was not written for
            return None
        result, sources = {}, {}
        for key, value in found.items():
            origin = trace.origins.get(id(value), _Origin(frozenset({key} & mine.keys()), True))
            if not isinstance(value, Tensor) or not origin.keys:
                continue  # made of nothing in the file: it says nothing of it
            (one, *more) = sorted(origin.keys)
            resized = origin.computed and not more and mine[one].numel() != value.numel()
            result[key], sources[key] = mine[one] if resized else value, (one, *more)
        return Adapted(result, sources)


def _model_and_filter(name: str) -> tuple[nn.Module, Filter | None]:
    """Return a timm model, and the filter that timm would pass its file through.

    A filter is an argument that the model's own function hands to `load_pretrained`, so that is where it is taken: guesses by
    the names of functions would be wrong for modules with several.
    """
    seen: list[Filter | None] = []
    with _ASKING:
        original = _builder.load_pretrained
        _builder.load_pretrained = lambda *args, filter_fn=None, **kwargs: seen.append(filter_fn)
        try:
            model: nn.Module = timm.create_model(name, pretrained=True)
        except RuntimeError:  # a model that timm has no file of
            return timm.create_model(name, pretrained=False), None
        finally:
            _builder.load_pretrained = original
    return model, seen[0] if seen else None
