"""Compare a file's tensors with a model's, and refuse a file that does not fit."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pretrainps.errors import StateDictMismatchError
from pretrainps.weights.advice import advise
from pretrainps.weights.report import LoadReport, SideData


def compare(
    model: nn.Module,
    found: Mapping[str, Tensor],
    *,
    name: str,
    ignored: Iterable[str] = (),
    unprefixed: Iterable[str] = (),
    side_data: Iterable[SideData] = (),
    expected_missing: Iterable[str] = (),
    new: Iterable[str] = (),
) -> LoadReport:
    """Compare a state dict with a model, by key, shape and kind of number. Loads nothing.

    Args:
        model: What is to be filled; its tensors may lie on the meta device.
        found: The file's tensors, in the model's key layout.
        name: The model's name, for the report.
        ignored: Keys that were declared unwanted and left out of `found`; reported as such.
        unprefixed: Keys of the file that were left out undeclared; reported as unexpected.
        side_data: What lies in the file among the tensors and is none.
        expected_missing: Shell patterns of model keys that the file may lack.
        new: Shell patterns of model keys that the file may lack because they start anew.
    """
    side_data = tuple(side_data)
    wanted: dict[str, Tensor] = model.state_dict()
    learned = {key: value.numel() for key, value in model.named_parameters()}
    same_shape = [key for key, value in wanted.items() if key in found and found[key].shape == value.shape]
    matched = [key for key in same_shape if found[key].is_floating_point() == wanted[key].is_floating_point()]
    no_tensor = {entry.native: entry.what for entry in side_data if entry.native in wanted and entry.native not in found}
    absent = [key for key in wanted if key not in found and key not in no_tensor]
    fresh = _matching(absent, new)
    excused = _matching((key for key in absent if key not in fresh), expected_missing)
    return LoadReport(
        name=name,
        matched=tuple(matched),
        expected_missing=tuple(key for key in absent if key in excused),
        ignored=tuple(ignored),
        side_data=tuple(entry.key for entry in side_data if entry.native not in no_tensor),
        no_tensor=tuple((key, what) for key, what in no_tensor.items() if key is not None),
        missing=tuple(key for key in absent if key not in excused and key not in fresh),
        unexpected=(*(key for key in found if key not in wanted), *unprefixed),
        wrong_shape=tuple(
            (key, tuple(found[key].shape), tuple(value.shape))
            for key, value in wanted.items()
            if key in found and found[key].shape != value.shape
        ),
        wrong_kind=tuple(
            (key, str(found[key].dtype).removeprefix("torch."), str(wanted[key].dtype).removeprefix("torch."))
            for key in same_shape
            if found[key].is_floating_point() != wanted[key].is_floating_point()
        ),
        converted=tuple(key for key in matched if found[key].dtype != wanted[key].dtype),
        new=tuple(key for key in absent if key in fresh),
        parameters_loaded=sum(learned.get(key, 0) for key in matched),
        parameters=sum(learned.values()),
    )


def _matching(keys: Iterable[str], patterns: Iterable[str]) -> set[str]:
    known = tuple(patterns)
    return {key for key in keys if any(fnmatch.fnmatchcase(key, pattern) for pattern in known)}


def require_complete(report: LoadReport, origin: str, advice: str = "") -> None:
    """Raise unless everything undeclared matched.

    Args:
        report: The outcome of `compare`.
        origin: Where the tensors came from, for the message.
        advice: What is known about the cause; by default a guess from the report.

    Raises:
        StateDictMismatchError: with the report, and a guess at the cause.
    """
    if report.ok:
        return
    raise StateDictMismatchError(
        f"{origin} does not fit the model, and nothing was loaded.\n{report}\n{advice or advise(report, {})}", report
    )
