"""Convert weight files with timm's own filters, and trace the origin of each tensor.

Many of timm's models have a function that converts files of their authors, and of older versions of timm, to the current
names. It may drop buffers, and rename, reshape, split and join tensors. It may also resize a tensor that does not fit, which
would hide that the file is of another model. Such a tensor is passed on unchanged, and the comparison then finds it.
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
"""Functions that move numbers without a change of their values."""
_ASKING = threading.Lock()


@dataclass(frozen=True, slots=True)
class _Origin:
    """The tensors of the file from which a tensor was made."""

    keys: frozenset[str]
    computed: bool = False
    """Whether its numbers differ from theirs."""


class _Trace(TorchFunctionMode):
    """Traces tensors through all functions that are called with them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.held = list(tensors.values())  # an id identifies a tensor only while the tensor exists
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
    """Converts files of one timm model to its current names.

    Args:
        name: timm's name of the model.
        wanted: The tensors of the backbone, with their shapes.
    """

    def __init__(self, name: str, wanted: Mapping[str, tuple[int, ...]]) -> None:
        self.name = name
        self.wanted = dict(wanted)
        self.fingerprint = f"timm {timm.__version__} {name}"

    def __call__(self, tensors: Mapping[str, Tensor], known: tuple[str, ...]) -> Adapted:
        """Return the tensors unchanged if they fit, else converted by timm's filter, if that fits better.

        Args:
            tensors: The tensors of the file.
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
        mine = {key: value.view_as(value) for key, value in tensors.items()}  # two keys may share one tensor object
        trace = _Trace(mine)
        try:
            with trace, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    found = filter_fn(dict(mine), model)
                except TypeError:  # timm's older filters take no model
                    found = filter_fn(dict(mine))
        except Exception:  # a filter may raise anything on a file that it was not written for
            return None
        result, sources = {}, {}
        for key, value in found.items():
            origin = trace.origins.get(id(value), _Origin(frozenset({key} & mine.keys()), True))
            if not isinstance(value, Tensor) or not origin.keys:
                continue  # not made from the file
            (one, *more) = sorted(origin.keys)
            resized = origin.computed and not more and mine[one].numel() != value.numel()
            result[key], sources[key] = mine[one] if resized else value, (one, *more)
        return Adapted(result, sources)


def _model_and_filter(name: str) -> tuple[nn.Module, Filter | None]:
    """Return a timm model, and the filter that timm would apply to its file.

    The filter is an argument of the model's own call of `load_pretrained`, and is taken from that call. A guess by the names of
    functions would be wrong for modules with several filters.
    """
    seen: list[Filter | None] = []
    with _ASKING:
        original = _builder.load_pretrained
        _builder.load_pretrained = lambda *args, filter_fn=None, **kwargs: seen.append(filter_fn)
        try:
            model: nn.Module = timm.create_model(name, pretrained=True)
        except RuntimeError:  # timm has no file of this model
            return timm.create_model(name, pretrained=False), None
        finally:
            _builder.load_pretrained = original
    return model, seen[0] if seen else None
