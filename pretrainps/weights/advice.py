"""Advice for a file that does not fit its model: the likely cause, and a call that works."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Collection, Mapping, Sequence

from pretrainps.weights.prefixes import shared_prefixes
from pretrainps.weights.report import LoadReport, Shape, some
from pretrainps.weights.trunk import in_trunk, likely_architecture


def advise(
    report: LoadReport,
    shapes: Mapping[str, Shape],
    *,
    arch: str = "",
    prefix: str = "",
    unprefixed: Collection[str] = (),
    file: str = "FILE",
) -> str:
    """Return one or two sentences on why a file does not fit its model, and what to do.

    Args:
        report: The outcome of `compare`, which is not ok.
        shapes: The file's tensors, under native names if they have one.
        arch: The architecture of the model.
        prefix: The prefix that was removed from the file's keys.
        unprefixed: Unexpected keys that did not have that prefix.
        file: The file's path, quoted for a shell.
    """
    if report.no_tensor:
        return (
            f"{report.no_tensor[0][0]} is a tensor of the model. Save it as a plain one (.to_dense(), .dequantize(), "
            "torch.as_tensor(...)) before torch.save, or ask for such a file."
        )
    look = f" `pretrainps inspect {file}` says what it is."
    model_keys = (*report.matched, *report.missing, *(key for key, *_ in (*report.wrong_shape, *report.wrong_kind)))
    found = shared_prefixes(report.unexpected, set(report.missing)) if report.missing and not report.matched else []
    if found:
        before, _ = found[0]
        every = all(key.startswith(before) for key in report.unexpected)
        return (
            f"{'Every key carries' if every else 'The keys carry'} the prefix {prefix + before!r}, which is not declared for "
            f"this file: load it with prefix={prefix + before!r} (--prefix {shlex.quote(prefix + before)})."
        )
    inside = in_trunk((key for key in report.unexpected if key not in unprefixed), model_keys)
    trunk = [key for key in report.unexpected if key in inside]
    other = likely_architecture(shapes)
    other = None if other == arch else other
    if trunk or (report.wrong_shape and other):
        what = f"{some(trunk)} would be part of the network itself, so the file" if trunk else "The file"
        name = f" It looks like a {other.removeprefix('timm:')}: load it with arch={other!r} (--arch {other})." if other else ""
        return f"{what} is of another architecture, and nothing of it may be left out.{name}" + ("" if name else look)
    if report.unexpected and not (report.missing or report.wrong_shape or report.wrong_kind):
        extra = [key if key in unprefixed else prefix + key for key in report.unexpected]
        patterns = patterns_of(extra, [prefix + key for key in report.matched])
        return (
            f"The file has more than the model: {some(extra)}, perhaps a classifier. If that is not wanted, load it with "
            f"ignore={patterns} ({' '.join(f'--ignore {shlex.quote(pattern)}' for pattern in patterns)})."
        )
    return f"It may be another architecture or key layout.{look}"


def patterns_of(keys: Sequence[str], kept: Collection[str]) -> list[str]:
    """Return shell patterns that match some keys of a file and none of the others, if possible one for each whole module.

    Args:
        keys: The keys to match.
        kept: The file's other keys.
    """
    patterns: dict[str, None] = {}
    for key in keys:
        parts = key.split(".")
        modules = (".".join(parts[: depth + 1]) + "." for depth in range(min(len(parts) - 1, 8)))
        whole = next((module for module in modules if not any(other.startswith(module) for other in kept)), None)
        patterns[glob.escape(key) if whole is None else f"{glob.escape(whole)}*"] = None
    return list(patterns)
