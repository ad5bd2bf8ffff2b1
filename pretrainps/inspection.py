"""Say what a weight file is, from its keys and shapes alone. Nothing in the file is run."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrainps.backbones import ARCHITECTURES, build_backbone
from pretrainps.checkpoint.layouts import FAMILIES
from pretrainps.checkpoint.read import read_object
from pretrainps.checkpoint.write import read_metadata
from pretrainps.errors import CheckpointFormatError, LayoutError, PretrainPSError
from pretrainps.registry.specs import FileFormat
from pretrainps.store.files import sha256_of
from pretrainps.store.kinds import FileKind, kind_of, pickled_globals, safetensors_header

Shape = tuple[int, ...]

_PREFIXES = (
    "",
    "module.",
    "backbone.",
    "module.backbone.",
    "encoder.",
    "encoder_q.",
    "module.encoder_q.",
    "model.",
    "base.",
)
_BATCH_COUNT = "num_batches_tracked"
_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """Which architecture's tensors a file holds, all of them, and under which names."""

    arch: str
    file: FileFormat
    matched: int
    foreign: tuple[str, ...] = ()
    """Keys that belong to the layout's full model, not to the backbone."""
    extra: tuple[str, ...] = ()
    """Keys that belong to nothing known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What `inspect` found."""

    path: Path
    kind: FileKind
    size: int
    sha256: str
    wrapper: tuple[str, ...] = ()
    other_wrappers: tuple[tuple[str, ...], ...] = ()
    """Where else in the file tensors lie (an EMA copy, a student)."""
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    """dtype -> number of tensors."""
    recognition: Recognition | None = None
    detector: str | None = None
    """In words, if the keys are a known detector's."""
    saved_by_us: Mapping[str, Any] | None = None
    """The configuration stored by `save_pretrained`."""
    problem: str | None = None
    """Why the tensors could not be read."""
    imports: tuple[str, ...] = ()
    """What unpickling would import."""

    @property
    def elements(self) -> int:
        """Numbers stored, batch-norm statistics and counters included."""
        return sum(_count(shape) for shape in self.shapes.values())

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        found = self.recognition
        return {
            "path": str(self.path),
            "kind": self.kind.value,
            "size": self.size,
            "sha256": self.sha256,
            "wrapper": list(self.wrapper),
            "other_wrappers": [list(where) for where in self.other_wrappers],
            "tensors": len(self.shapes),
            "elements": self.elements,
            "dtypes": dict(self.dtypes),
            "architecture": found.arch if found else None,
            "layout": found.file.layout if found else None,
            "prefix": found.file.prefix if found else None,
            "matched_tensors": found.matched if found else 0,
            "not_in_the_backbone": list(found.foreign + found.extra) if found else [],
            "detector": self.detector,
            "saved_by_pretrainps": dict(self.saved_by_us) if self.saved_by_us else None,
            "problem": self.problem,
            "imports": list(self.imports),
            "keys": {key: list(shape) for key, shape in self.shapes.items()},
        }

    def __str__(self) -> str:
        lines = [
            f"{self.path}",
            f"  format        {self.kind.value}, {self.size:,} bytes",
            f"  sha256        {self.sha256}",
        ]
        if self.imports:
            lines.append(f"  imports       {', '.join(self.imports)}")
        if self.problem:
            return "\n".join([*lines, f"  problem       {self.problem}"])
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        lines.append(f"  tensors       {len(self.shapes)} ({dtypes}), {self.elements:,} numbers")
        if self.wrapper:
            others = ", ".join(" > ".join(other) for other in self.other_wrappers)
            lines.append(f"  found under   {' > '.join(self.wrapper)}" + (f" (more tensors under: {others})" if others else ""))
        if self.saved_by_us:
            lines.append(f"  saved by      pretrainps, as {self.saved_by_us.get('name', 'unnamed')}")
        if self.detector:
            lines.append(f"  detector      {self.detector}")
        if self.recognition is None:
            sample = ", ".join(list(self.shapes)[:3])
            lines.append(f"  architecture  not recognised (first keys: {sample or 'none'})")
            return "\n".join(lines)
        found = self.recognition
        prefix = f", every key after {found.file.prefix!r}" if found.file.prefix else ""
        lines.append(f"  architecture  {found.arch}, all {found.matched} of its tensors")
        lines.append(f"  key layout    {found.file.layout}{prefix}")
        for label, keys in (("other parts", found.foreign), ("unknown keys", found.extra)):
            if keys:
                shown = ", ".join(f"{key} {list(self.shapes[key])}" for key in keys[:3])
                lines.append(f"  {label:13} {len(keys)}: {shown}{', ...' if len(keys) > 3 else ''}")
        ignore = f", ignore={list(found.extra)}" if found.extra else ""
        lines.append(f"  would load    pretrainps.load('file:{self.path}'{ignore}) gives a {found.arch} backbone")
        return "\n".join(lines)


def inspect(path: Path | str) -> Inspection:
    """Say what a file is. A file that cannot be read is described too, with the reason in `problem`.

    Args:
        path: Any file.

    Raises:
        PretrainPSError: there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise PretrainPSError(f"{path} is {'a folder' if path.is_dir() else 'not there'}. Give a weight file.")
    kind = kind_of(path)
    base = Inspection(path=path, kind=kind, size=path.stat().st_size, sha256=sha256_of(path), shapes={}, dtypes={})
    if kind in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.TORCHSCRIPT, FileKind.PICKLE):
        base = replace(base, imports=tuple(sorted(pickled_globals(path))))
    try:
        if kind is FileKind.SAFETENSORS:
            wrapper: tuple[str, ...] = ()
            shapes, dtypes = _header_tensors(path)
            ours = read_metadata(path).get("config")
        else:
            (wrapper, tensors), *others = _find_tensors(read_object(path))
            base, ours = replace(base, other_wrappers=tuple(where for where, _ in others)), None
            shapes = {key: tuple(value.shape) for key, value in tensors.items()}
            dtypes = _counted(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    except CheckpointFormatError as error:
        return replace(base, problem=str(error).removeprefix(f"{path}: "))
    return replace(
        base,
        wrapper=wrapper,
        shapes=shapes,
        dtypes=dtypes,
        recognition=recognise(shapes, wrapper),
        detector=_detector(shapes),
        saved_by_us=ours if isinstance(ours, Mapping) else None,
    )


def recognise(shapes: Mapping[str, Shape], wrapper: tuple[str, ...] = ()) -> Recognition | None:
    """Find the architecture and key layout that the shapes complete; `None` if they complete none.

    Every tensor of the architecture must be there with its shape (batch counters excepted, which old files lack). Of
    several candidates the one with the most tensors wins, then the one that leaves the fewest keys over.
    """
    best: Recognition | None = None
    for candidate in _candidates(shapes, wrapper):
        if best is None or _rank(candidate) > _rank(best):
            best = candidate
    return best


def _rank(found: Recognition) -> tuple[int, int, int]:
    return found.matched, -len(found.extra), -len(found.foreign) - len(found.file.prefix)


def _candidates(shapes: Mapping[str, Shape], wrapper: tuple[str, ...]) -> Iterator[Recognition]:
    for prefix in _PREFIXES:
        if not any(key.startswith(prefix) for key in shapes):
            continue
        inside = {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}
        outside = [key for key in shapes if not key.startswith(prefix)]
        meta = {key: torch.empty(shape, device="meta") for key, shape in inside.items()}
        for arch, architecture in ARCHITECTURES.items():
            if not any(architecture.telltale in key for key in inside):
                continue
            wanted = _wanted(arch)
            for layout in list(FAMILIES[architecture.family].values())[1:]:  # the first, native, repeats one of the others
                foreign = [key for key in meta if any(fnmatch.fnmatchcase(key, p) for p in layout.foreign)]
                own = {key: value for key, value in meta.items() if key not in set(foreign)}
                native = _mapped(layout.to_native, own)
                have = {key for key, shape in wanted.items() if key in native and tuple(native[key].shape) == shape}
                if any(key not in have and not key.endswith(_BATCH_COUNT) for key in wanted):
                    continue
                # which file keys were consumed: those whose removal would lose a match
                used = {key for key in own if set(_mapped(layout.to_native, {key: own[key]})) & have}
                extra = [*(prefix + key for key in own if key not in used), *outside]
                lacks_counts = len(have) < len(wanted)
                yield Recognition(
                    arch=arch,
                    file=FileFormat(
                        layout=layout.name,
                        wrapper=wrapper,
                        prefix=prefix,
                        expected_missing=(f"*{_BATCH_COUNT}",) if lacks_counts else (),
                        tensors=len(have),
                    ),
                    matched=len(have),
                    foreign=tuple(prefix + key for key in foreign),
                    extra=tuple(extra),
                )


def _mapped(to_native: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        mapped: dict[str, Tensor] = to_native(tensors)
    except (RuntimeError, LayoutError):  # a tensor of another shape, or two keys that become one: not this layout
        return {}
    return mapped


@cache
def _wanted(arch: str) -> dict[str, Shape]:
    return {key: tuple(value.shape) for key, value in build_backbone(arch, empty=True).state_dict().items()}


def _find_tensors(found: Any) -> list[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Return every dictionary of tensors in an object with the path to it, the one to take first.

    That is the one with the most tensors; of equally large ones an averaged copy, which is what its authors evaluate.
    """
    places: list[tuple[tuple[str, ...], dict[str, Tensor]]] = []
    queue: list[tuple[tuple[str, ...], Any]] = [((), found)]
    while queue:
        where, here = queue.pop(0)
        if not isinstance(here, Mapping):
            continue
        tensors = {key: value for key, value in here.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if tensors:
            places.append((where, tensors))
        if len(where) < 3:
            queue.extend(((*where, key), value) for key, value in here.items() if isinstance(key, str))
    places.sort(key=lambda place: (-len(place[1]), not any("teacher" in key or "ema" in key for key in place[0])))
    return places or [((), {})]


def _header_tensors(path: Path) -> tuple[dict[str, Shape], dict[str, int]]:
    entries = {key: value for key, value in safetensors_header(path).items() if key != "__metadata__"}
    shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    return shapes, _counted(_DTYPE_NAMES.get(entry["dtype"], entry["dtype"]) for entry in entries.values())


def _counted(names: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _detector(shapes: Mapping[str, Shape]) -> str | None:
    """Name a person-search detector by the keys that only it has."""
    bare = {key.removeprefix("module."): shape for key, shape in shapes.items()}
    if not any(key.startswith("roi_heads.embedding_head.") for key in bare):
        return None
    if "roi_heads.faster_rcnn_predictor.cls_score.weight" in bare and any("reid_head" in key for key in bare):
        name = "SeqNet"
    elif "roi_heads.box_predictor.cls_score.weight" in bare:
        name = "NAE"
    else:
        return "a person-search detector of the NAE family"
    table, queue = bare.get("roi_heads.reid_loss.lut"), bare.get("roi_heads.reid_loss.cq")
    sizes = f", {table[0]} identities, a queue of {queue[0]}" if table and queue else ""
    return f"{name}{sizes}"


def _count(shape: Shape) -> int:
    return int(torch.Size(shape).numel())
