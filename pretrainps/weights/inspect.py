"""Inspect a weight file: format, architecture and key layout from its keys and shapes. No code in the file is run."""

from __future__ import annotations

import math
import re
import shlex
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pretrainps.detectors import DETECTORS
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.downloads.kinds import FileKind, folder_advice, kind_of, pickled_globals, safetensors_header
from pretrainps.downloads.shards import index_in
from pretrainps.errors import CheckpointFormatError, LayoutError, PretrainPSError
from pretrainps.files import CONFIG, WEIGHTS, sha256_of
from pretrainps.heads import CropModel
from pretrainps.hub.runs import find_weights
from pretrainps.registry.specs import PRETRAINING
from pretrainps.weights import compare, convert
from pretrainps.weights.advice import patterns_of
from pretrainps.weights.key_layouts import OF_PRETRAINING
from pretrainps.weights.read import Contents, contents_of, read_object
from pretrainps.weights.recognize import Recognition, Shape
from pretrainps.weights.recognize_detector import detector_named, identify, skeleton, unrecognized
from pretrainps.weights.report import some
from pretrainps.weights.trunk import likely_architecture
from pretrainps.weights.write import read_metadata

_DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
}
_AVERAGED = re.compile(r"teacher|(?<![a-z])ema(?![a-z])|EMA")
"""What names a copy whose weights are running means."""
_MOST_ELEMENTS = 1 << 59
"""Largest number of elements, so that torch can count the bytes of eight-byte numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """The result of `inspect`."""

    path: Path
    kind: FileKind
    size: int
    sha256: str
    wrapper: tuple[str, ...] = ()
    other_wrappers: tuple[tuple[str, ...], ...] = ()
    """Paths in the file to further tensors (an EMA copy, a student)."""
    side_data: Mapping[str, str] = field(default_factory=dict)
    """Other entries of the tensors' dictionary: key -> description of the value."""
    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    """Number of tensors of each dtype."""
    recognition: Recognition | None = None
    detector: str | None = None
    """A description of the detector, if the keys are of a known one."""
    refusal: str | None = None
    """Why `load` would refuse the file, although its keys and shapes fit."""
    saved_by_us: Mapping[str, Any] | None = None
    """The configuration stored by `save_pretrained`, or by a training in its checkpoints."""
    run: str | None = None
    """A description, if the file is in the folder of a training run."""
    problem: str | None = None
    """Why the tensors could not be read."""
    imports: tuple[str, ...] = ()
    """The names that unpickling would import."""

    @property
    def elements(self) -> int:
        """Number of stored numbers, including batch-norm statistics and counters."""
        return sum(_count(shape) for shape in self.shapes.values())

    @property
    def to_ignore(self) -> list[str]:
        """Shell patterns of the keys that belong to no known part, for the argument `ignore` of `load`."""
        extra = self.recognition.extra if self.recognition else ()
        return patterns_of(extra, self.shapes.keys() - set(extra))

    def to_json(self) -> dict[str, Any]:
        """Return all values in a form for JSON."""
        found = self.recognition
        return {
            "path": str(self.path),
            "kind": self.kind.value,
            "size": self.size,
            "sha256": self.sha256,
            "wrapper": list(self.wrapper),
            "other_wrappers": [list(where) for where in self.other_wrappers],
            "side_data": dict(self.side_data),
            "tensors": len(self.shapes),
            "elements": self.elements,
            "dtypes": dict(self.dtypes),
            "architecture": found.arch if found else None,
            "complete": found.loads and self.refusal is None if found else False,
            "layout": found.file.layout if found else None,
            "prefix": found.file.prefix if found else None,
            "matched_tensors": found.matched if found else 0,
            "loads_as_detector": found.detector.kind if found and found.detector else None,
            "loads_with_head": found.head.kind if found and found.head else None,
            "not_used": list(found.known_extra + found.extra + found.trunk) if found else [],
            "detector": self.detector,
            "run": self.run,
            "saved_by_pretrainps": dict(self.saved_by_us) if self.saved_by_us else None,
            "refusal": self.refusal,
            "problem": self.problem,
            "imports": list(self.imports),
            "keys": {key: list(shape) for key, shape in self.shapes.items()},
        }

    def __str__(self) -> str:
        name = f"file:{self.path}"
        lines = [
            f"{self.path}",
            f"  format        {self.kind.value}, {self.size:,} bytes",
            f"  sha256        {self.sha256}",
        ]
        if self.run:
            lines.append(f"  training      {self.run}")
        if self.imports:
            lines.append(f"  imports       {', '.join(self.imports)}")
        if self.problem:
            return "\n".join([*lines, f"  problem       {self.problem}"])
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in self.dtypes.items())
        lines.append(f"  tensors       {len(self.shapes)} ({dtypes}), {self.elements:,} numbers")
        if self.wrapper:
            others = ", ".join(" > ".join(other) or "the top" for other in self.other_wrappers)
            lines.append(f"  found under   {' > '.join(self.wrapper)}" + (f" (more tensors under: {others})" if others else ""))
        if self.side_data:
            shown = ", ".join(f"{key} ({what})" for key, what in list(self.side_data.items())[:3])
            lines.append(f"  no tensors    {len(self.side_data)}: {shown}{', ...' if len(self.side_data) > 3 else ''}")
        if self.saved_by_us:
            lines.append(f"  saved by      pretrainps, as {self.saved_by_us.get('name', 'unnamed')}")
            whole = (
                "the backbone of a pre-training"
                if self.saved_by_us.get("layout") == PRETRAINING
                else "the model that was saved"
            )
            lines.append(f"  would load    pretrainps.load({name!r}) gives {whole}")
            return "\n".join(lines)
        if self.detector:
            lines.append(f"  detector      {self.detector}")
        if self.recognition is None:
            sample = ", ".join(list(self.shapes)[:3])
            lines.append(f"  architecture  not recognized (first keys: {sample or 'none'})")
            if self.shapes:
                lines.append(f"                {unrecognized(self.shapes, shlex.quote(str(self.path)))}")
            return "\n".join(lines)
        found = self.recognition
        if found.missing:
            missing = f"{', '.join(found.missing[:3])}{', ...' if len(found.missing) > 3 else ''}"
            like = f"{found.detector.kind} on {found.arch}" if found.detector else found.arch
            lines.append(f"  architecture  none complete; like {like} in the {found.file.layout} layout, but with only")
            lines.append(f"                {found.matched} of its tensors ({len(found.missing)} missing: {missing})")
            return "\n".join(lines)
        prefix = f", every key after {found.file.prefix!r}" if found.file.prefix else ""
        if found.trunk:
            other = likely_architecture(self.shapes)
            lines.append(f"  architecture  another one than {found.arch}, which has no {some(found.trunk)}")
            if other is not None:
                lines.append(f"  give arch=    pretrainps.load({name!r}, arch={other!r}): it looks like that")
            return "\n".join(lines)
        whole = f"{found.detector.kind} on {found.arch}" if found.detector else found.arch
        lines.append(f"  architecture  {whole}, all {found.matched} of its tensors")
        lines.append(f"  key layout    {found.file.layout}{prefix}")
        for label, keys in (
            ("not used" if found.detector else "other parts", found.known_extra),
            ("unknown keys", found.extra),
        ):
            if keys:
                shown = ", ".join(f"{key} {list(self.shapes[key])}" for key in keys[:3])
                lines.append(f"  {label:13} {len(keys)}: {shown}{', ...' if len(keys) > 3 else ''}")
        if found.file.new:
            lines.append(f"  start anew    {', '.join(found.file.new)}")
        if self.refusal is not None:
            return "\n".join([*lines, f"  would refuse  {self.refusal}"])
        ignore = f", ignore={self.to_ignore}" if found.extra else ""
        what = f"the {whole} detector" if found.detector else f"a {found.arch} backbone"
        what += f" with its head ({found.head.kind})" if found.head else ""
        lines.append(f"  would load    pretrainps.load({name!r}{ignore}) gives {what}")
        if found.detector:
            lines.append(f"                with arch={found.arch!r}, its backbone alone")
        return "\n".join(lines)


def inspect(path: Path | str) -> Inspection:
    """Return a description of a file. For a file that cannot be read, `problem` has the reason.

    Args:
        path: Any file; a folder from `save_pretrained` or of a training run; a checkpoint of a run; or a folder with the index
        of a sharded checkpoint.

    Raises:
        PretrainPSError: there is no such file, or no weights in the folder.
    """
    seen = look(path)
    if seen.problem is not None:
        return seen
    found = identify(seen.shapes, seen.wrapper)
    seen = replace(seen, recognition=found, detector=_detector(found, seen.shapes))
    if found is None or not found.loads or seen.saved_by_us is not None:  # the file's own configuration describes it
        return seen
    return replace(seen, refusal=_refusal(seen, found))


def look(path: Path | str) -> Inspection:
    """Return the contents of a file, without recognition of the architecture.

    Args:
        path: As for `inspect`.

    Raises:
        PretrainPSError: there is no such file, or no weights in the folder.
    """
    path = Path(str(path).removeprefix("file:")).expanduser()
    trained = find_weights(path)
    if trained is not None:
        path = trained.path
    elif path.name == CONFIG and (path.parent / WEIGHTS).is_file():
        path = path.parent / WEIGHTS
    if (path / WEIGHTS).is_file():
        path = path / WEIGHTS
    elif path.is_dir():
        path = index_in(path) or path
    if not path.is_file():
        what = (
            (folder_advice(path) or "it is a folder. Give a weight file.")
            if path.is_dir()
            else "it does not exist. Give a weight file."
        )
        raise PretrainPSError(f"{path}: {what}")
    kind = kind_of(path)
    base = Inspection(path=path, kind=kind, size=path.stat().st_size, sha256=sha256_of(path), shapes={}, dtypes={})
    base = replace(base, run=trained.words if trained is not None else None)
    if kind in (FileKind.TORCH_ZIP, FileKind.TORCH_LEGACY, FileKind.TORCHSCRIPT, FileKind.PICKLE, FileKind.UNPACKED):
        base = replace(base, imports=tuple(sorted(pickled_globals(path))))
    try:
        if kind is FileKind.SAFETENSORS:
            wrapper: tuple[str, ...] = ()
            shapes, dtypes = _header_tensors(path)
            ours = read_metadata(path).get("config") if trained is None else trained.config
            if isinstance(ours, Mapping) and ours.get("layout") == PRETRAINING:
                OF_PRETRAINING.to_native({key: torch.empty(0, device="meta") for key in shapes})
        else:
            (wrapper, contents), *others = _find_tensors(read_object(path))
            base, ours = replace(base, other_wrappers=tuple(where for where, _ in others)), None
            tensors = contents.tensors
            base = replace(base, side_data=contents.side_data)
            shapes = {key: tuple(value.shape) for key, value in tensors.items()}
            dtypes = _counted(str(value.dtype).removeprefix("torch.") for value in tensors.values())
    except (CheckpointFormatError, LayoutError) as error:
        return replace(base, problem=str(error).removeprefix(f"{path}: "))
    saved_by_us = ours if isinstance(ours, Mapping) else None
    return replace(base, wrapper=wrapper, shapes=shapes, dtypes=dtypes, saved_by_us=saved_by_us)


def _refusal(seen: Inspection, found: Recognition) -> str | None:
    """Run all checks of loading without filling a model, and return the reason for a refusal, if any."""
    model = skeleton(found)
    family = (model.backbone if isinstance(model, CropModel) else model).family
    file = replace(found.file, ignored=(*found.file.ignored, *seen.to_ignore))
    try:
        checkpoint = convert(seen.path, file, layout_of(family, file.layout))
    except PretrainPSError as error:
        return str(error).removeprefix(f"{seen.path}: ")
    report = compare(
        model,
        checkpoint.tensors,
        name=seen.path.name,
        ignored=checkpoint.ignored,
        unprefixed=checkpoint.unprefixed,
        side_data=checkpoint.side_data,
        expected_missing=file.expected_missing,
        new=file.new,
    )
    return None if report.ok else str(report).partition("\n")[2].strip()


def _find_tensors(found: Any) -> list[tuple[tuple[str, ...], Contents]]:
    """Return every dictionary of tensors in an object with the path to it, the preferred one first.

    That is the one with the most weights; of equally many those of an averaged copy, which is what its authors evaluate.
    Counters say nothing: averagers add one, and some leave out those of batch norms.
    """
    places: list[tuple[tuple[str, ...], Contents]] = []
    queue: deque[tuple[tuple[str, ...], Any]] = deque([((), found)])
    seen: set[int] = set()
    while queue:
        where, here = queue.popleft()
        if not isinstance(here, Mapping) or id(here) in seen:  # a pickle may put a dictionary into itself
            continue
        seen.add(id(here))
        contents = contents_of(here)
        if contents.tensors:
            places.append((where, contents))
        if len(where) < 3:
            queue.extend(((*where, key), value) for key, value in here.items() if isinstance(key, str))
    # MMEngine changes the two when it saves: its state_dict is the averaged copy
    swapped = isinstance(found, Mapping) and {"message_hub", "ema_state_dict"} <= found.keys()
    places.sort(key=lambda place: (-_weights(place[1]), any(map(_AVERAGED.search, place[0])) == swapped))
    return places or [((), contents_of(found) if isinstance(found, Mapping) else Contents({}))]


def _weights(contents: Contents) -> int:
    return sum(value.is_floating_point() and value.ndim > 0 for value in contents.tensors.values())


def _header_tensors(path: Path) -> tuple[dict[str, Shape], dict[str, int]]:
    entries = {key: value for key, value in safetensors_header(path).items() if key != "__metadata__"}
    shapes = {key: tuple(entry["shape"]) for key, entry in entries.items()}
    for key, shape in shapes.items():
        if math.prod(max(1, length) for length in shape) > _MOST_ELEMENTS:  # one length is 0, or the file would be too short
            raise CheckpointFormatError(f"{path}: {key!r} has a shape that no tensor can have: {str(list(shape))[:80]}.")
    return shapes, _counted(_DTYPE_NAMES.get(entry["dtype"], entry["dtype"]) for entry in entries.values())


def _counted(names: Iterator[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _detector(found: Recognition | None, shapes: Mapping[str, Shape]) -> str | None:
    """Return the name of a person-search detector with the sizes of its tables."""
    if found is None or found.detector is None:
        kind = detector_named(shapes) if found is None else None
        return DETECTORS[kind].title if kind is not None else None
    entry = DETECTORS[found.detector.kind]
    if found.file.new:
        return f"{entry.title}, without {' and '.join(found.file.new)}"
    sizes = entry.config.from_mapping(found.detector.config)
    queue = getattr(sizes, "queue_size", None)  # not every detector remembers people without an identity
    return f"{entry.title}, {sizes.num_identities} identities" + ("" if queue is None else f", a queue of {queue}")


def _count(shape: Shape) -> int:
    return int(torch.Size(shape).numel())
