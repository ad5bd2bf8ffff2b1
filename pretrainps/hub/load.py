"""Load a model by name: fetch the file, read it, map its keys, compare them, and only then fill the model."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.detectors.registry import detector_entry
from pretrainps.downloads import Cache, Fetched, fetch
from pretrainps.downloads.fetch import confirm, remedied
from pretrainps.errors import ArgumentError, CacheError
from pretrainps.heads import CropModel
from pretrainps.hub.resolve import resolve
from pretrainps.images.pixels import Preprocess, Size
from pretrainps.registry.specs import DetectorSpec, HeadSpec, ModelSpec
from pretrainps.weights import Adapter, LoadReport, NativeCheckpoint, compare, native_checkpoint, require_complete
from pretrainps.weights.advice import advise
from pretrainps.weights.report import Shape
from pretrainps.weights.trunk import in_trunk
from pretrainps.weights.unwrap import unwrap

Head = Literal["embedding", "classifier"]
Model = Backbone | CropModel | PersonSearchDetector[Any]


def load(
    name: str | Path | ModelSpec,
    *,
    head: Head | None = None,
    embedding_dim: int | None = None,
    num_classes: int | None = None,
    arch: str | None = None,
    ignore: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
    prefix: str | None = None,
    device: torch.device | str = "cpu",
    offline: bool | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
    verify: bool = False,
) -> Model:
    """Load a pre-trained model, complete and verified, in eval mode.

    Args:
        name: `pretrainps list` shows the registered names; also `NAME@REVISION`, `timm:NAME`, `hf:owner/repo[@REVISION]`
            and `file:PATH`. A `ModelSpec` is used directly.
        head: `None` for a backbone that returns feature maps (or the head that was saved with the weights); `"embedding"` for
            one unit vector for each crop; `"classifier"` for class scores. A head that is not in the file gets random weights
            and is listed as new in the report.
        embedding_dim: Width of a learned projection before the unit vector; `None` for the pooled features without projection.
        num_classes: Number of classes, with `head="classifier"`.
        arch: The architecture of a bare weight file, if its keys do not show it. For a file with a whole detector, the
        architecture of its backbone, to load the backbone alone.
        ignore: Shell patterns of unwanted keys in the file, such as a classifier's. They are left out before the file is
        recognized. Keys that would be part of the network itself are never left out.
        prefix: Prefix of the keys in the file. `None` takes the declared one, or finds the prefix of a bare weight file, of any
        depth, if it ends in a dot.
        config: Settings of a detector that replace the saved ones, such as `{"score_threshold": 0.2, "min_size": 600}`;
            see `PersonSearchDetector.configured`.
        device: Device of the model; it is checked before anything is downloaded.
        offline: Whether to avoid the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        cache_dir: Cache folder, instead of the environment's.
        progress: Whether to show progress bars.
        verify: Whether to hash a cached file again even if its size and time have not changed.

    Returns:
        A backbone, a model for crops, or a detector, depending on the name. `.spec` describes it, and `.load_report` how the
        file fitted it.

    Raises:
        UnknownModelError: no such name.
        WeightsUnavailableError: no source gave the file (`OfflineError`, `GatedWeightsError` among its kinds).
        IntegrityError: a file is not the expected one.
        CheckpointFormatError: the file is not readable, or is a pickle that would run code.
        StateDictMismatchError: file and model differ in a way that is not declared.
        ArgumentError: settings do not fit the model; the message names them, before anything is downloaded.

    Example:
        >>> import pretrainps
        >>> backbone = pretrainps.load("resnet50-hybrid")  # doctest: +SKIP
        >>> maps = backbone(images)                        # doctest: +SKIP
        >>> maps["c4"].shape                               # doctest: +SKIP
        torch.Size([1, 1024, 56, 94])
    """
    target = _device(device)
    cache = Cache(cache_dir)
    wanted_head = _head_spec(head, embedding_dim, num_classes)
    spec = resolve(name, arch=arch, ignore=ignore, prefix=prefix, cache=cache, offline=offline, progress=progress)
    if spec.detector is not None and wanted_head is not None:
        raise ArgumentError(
            f"{spec.name} is a detector ({spec.detector.kind}), which has its own heads; load it without head=."
        )
    if spec.detector is None and config:
        raise ArgumentError(f"{spec.name} is no detector, and settings (config=, --set) are for those. Leave them out.")
    # batch counters and identity tables start at zero; any other tensor that the file may lack needs its initial value
    may_lack = (*spec.file.expected_missing, *spec.file.new)
    tables = detector_entry(spec.detector.kind).tables if spec.detector is not None else ()
    zeros = [pattern for table in tables for pattern in (table, table.rpartition(".")[0] + ".*")]
    empty = all(pattern.endswith("num_batches_tracked") or pattern in zeros for pattern in may_lack)
    backbone = build_backbone(spec.arch, spec.arch_options, empty=empty)
    # under a head of this package, or in a detector, the backbone's tail has a longer prefix
    before = spec.file.prefix + ("" if spec.head is None and spec.detector is None else "backbone.")
    declared = (*spec.file.ignored, *(before + pattern for pattern in backbone.dropped_keys))
    spec = replace(spec, file=replace(spec.file, ignored=(*declared, *ignore)))
    model: Model = backbone
    if spec.detector is not None:
        model = detector = _assembled(spec, spec.detector, backbone)
        if config:
            detector.config = detector.config.changed(config)
            spec = replace(spec, detector=detector.detector_spec())
    elif spec.head is not None:
        model = CropModel(backbone, _saved_head(spec, spec.head, wanted_head))
    family = model.family if isinstance(model, PersonSearchDetector) else backbone.family
    adapter = None if spec.detector else backbone.adapter
    fetched, checkpoint = _tensors(spec, family, adapter, cache, offline=offline, progress=progress, verify=verify)
    checkpoint, refused = _without_trunk_ignored(model, checkpoint, spec, family, declared)
    with remedied(spec, fetched, cache):
        report = _fill(model, checkpoint, spec, str(fetched.path), refused)
    confirm(spec, fetched, cache)
    if spec.head is None and wanted_head is not None:
        model = CropModel(backbone, wanted_head)
        report = replace(report, new=report.new + tuple(key for key in model.state_dict() if key.startswith("head.")))
    model.spec = replace(spec, sha256=fetched.sha256)  # from now on the hash of the file is known
    model.load_report = report
    return model.eval().to(target)


def _tensors(
    spec: ModelSpec, family: str, adapter: Adapter | None, cache: Cache, *, offline: bool | None, progress: bool, verify: bool
) -> tuple[Fetched, NativeCheckpoint]:
    """Fetch the file and map its tensors to native names; repeat if another process removed it in between."""
    for _ in range(5):
        fetched = fetch(spec, cache=cache, offline=offline, progress=progress, verify=verify, pin=False)
        try:
            with remedied(spec, fetched, cache):
                return fetched, native_checkpoint(
                    spec, fetched, layout_of(family, spec.file.layout), cache, family=family, verify=verify, adapter=adapter
                )
        except FileNotFoundError:
            continue
    raise CacheError(f"{spec.name}: another process keeps removing it from {cache.root}. Wait for it to end, then load again.")


def _device(device: torch.device | str) -> torch.device:
    """Return the device; raise an error before any download if it cannot be used."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError(f"device {str(device)!r} cannot be used here ({reason}). Use 'cpu'.") from error
    return target


def _assembled(spec: ModelSpec, detector: DetectorSpec, backbone: Backbone) -> PersonSearchDetector[Any]:
    """Build a detector with the sizes in its configuration; raise an error if this is impossible."""
    try:
        return assemble(detector.kind, backbone, detector.config, spec.input)
    except (
        RuntimeError,
        TypeError,
        ArithmeticError,
        MemoryError,
    ) as error:  # raised for too large sizes
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArgumentError(
            f"{spec.name}: a detector with the sizes of its configuration cannot be built ({reason}). Save the model again."
        ) from error


def _saved_head(spec: ModelSpec, saved: HeadSpec, wanted: HeadSpec | None) -> HeadSpec:
    """Return the head that is in the file, unless the caller wants another one."""
    same_kind = wanted is None or (wanted.kind == saved.kind and wanted.embedding_dim in (None, saved.embedding_dim))
    if not same_kind or (wanted is not None and wanted.num_classes != saved.num_classes):
        raise ArgumentError(f"{spec.name} was saved with its own head ({saved.kind}); load it without head=.")
    return saved


def _head_spec(head: Head | None, embedding_dim: int | None, num_classes: int | None) -> HeadSpec | None:
    if head is None:
        if embedding_dim is not None or num_classes is not None:
            raise ArgumentError("embedding_dim and num_classes need head='embedding' or head='classifier'.")
        return None
    if head == "classifier" and num_classes is None:
        raise ArgumentError("head='classifier' needs num_classes=.")
    if head == "classifier" and embedding_dim is not None:
        raise ArgumentError("head='classifier' has no embedding_dim.")
    if head == "embedding" and num_classes is not None:
        raise ArgumentError("head='embedding' has no num_classes.")
    if head not in ("embedding", "classifier"):
        raise ArgumentError(f"head must be None, 'embedding' or 'classifier', not {head!r}.")
    return HeadSpec(kind=head, embedding_dim=embedding_dim, num_classes=num_classes)


def _without_trunk_ignored(
    model: nn.Module, checkpoint: NativeCheckpoint, spec: ModelSpec, family: str, declared: Sequence[str]
) -> tuple[NativeCheckpoint, dict[str, Shape]]:
    """Keep keys that would be part of the network itself from being ignored: without them it would be another network."""
    layout, prefix, keys = layout_of(family, spec.file.layout), spec.file.prefix, model.state_dict().keys()
    names = {
        key: layout.native_name(key.removeprefix(prefix))
        for key in checkpoint.declared
        if key.startswith(prefix) and not any(fnmatch.fnmatchcase(key, pattern) for pattern in declared)
    }
    refused = in_trunk((name for name in names.values() if name not in keys), keys)
    ignored = tuple(key for key in checkpoint.ignored if names.get(key) not in refused)
    return replace(checkpoint, ignored=ignored), dict.fromkeys((name for name in names.values() if name in refused), ())


def _fill(
    model: nn.Module, checkpoint: NativeCheckpoint, spec: ModelSpec, origin: str, refused: Mapping[str, Shape]
) -> LoadReport:
    """Compare the tensors, and load them only if there are no undeclared differences."""
    report = compare(
        model,
        checkpoint.tensors,
        name=spec.name,
        ignored=checkpoint.ignored,
        unprefixed=(*checkpoint.unprefixed, *refused),
        side_data=checkpoint.side_data,
        expected_missing=spec.file.expected_missing,
        new=spec.file.new,
    )
    if not report.ok:
        shapes = {key: tuple(value.shape) for key, value in checkpoint.tensors.items()} | dict(refused)
        unprefixed, file = set(checkpoint.unprefixed), shlex.quote(origin)
        advice = advise(report, shapes, arch=spec.arch, prefix=spec.file.prefix, unprefixed=unprefixed, file=file)
        require_complete(report, origin, advice)
    state = model.state_dict()
    held = {key: checkpoint.tensors[key].to(state[key].dtype) for key in report.matched}
    for key in (*report.expected_missing, *report.new):
        held[key] = torch.zeros_like(state[key], device="cpu") if state[key].is_meta else state[key]
    # assigned, not copied: the parameters stay in the pages of the mapped file until something writes to them
    model.load_state_dict(held, strict=True, assign=True)
    return report


def download(
    name: str | Path | ModelSpec,
    *,
    offline: bool | None = None,
    cache_dir: Path | str | None = None,
    progress: bool = True,
    verify: bool = True,
    force: bool = False,
) -> Path:
    """Fetch and verify a model's weight file, and return its path.

    Args:
        name: A name for `load`.
        offline: Whether to avoid the network, and only check the cached file.
        cache_dir: Cache folder, instead of the environment's.
        progress: Whether to show a progress bar.
        verify: Whether to hash a cached file even if its size and time have not changed.
        force: Whether to download again even if the file is cached. A pinned sha256 still holds.

    Raises:
        UnknownModelError: no such name.
        WeightsUnavailableError: no source gave the file.
        IntegrityError: a file is not the expected one.
    """
    cache = Cache(cache_dir)
    spec = resolve(name, cache=cache, offline=offline, progress=progress, force=force)
    return fetch(spec, cache=cache, offline=offline, progress=progress, verify=verify, force=force).path


def preprocess(name_or_model: str | Path | ModelSpec | nn.Module, *, size: Size = "crop") -> Preprocess:
    """Return the preprocessing for a model's weights.

    Args:
        name_or_model: A name for `load`, a spec, or a loaded model.
        size: "crop" for the model's crop size, "scene" to keep the size of each image, or (height, width).

    Raises:
        UnknownModelError: no such name.
        ArgumentError: the module is not from `pretrainps.load`; or it is a detector, which preprocesses images itself.
    """
    if isinstance(name_or_model, nn.Module):
        spec = getattr(unwrap(name_or_model), "spec", None)
        if not isinstance(spec, ModelSpec):
            raise ArgumentError("this module has no spec: pretrainps.load did not return it. Give the model's name.")
    else:
        spec = resolve(name_or_model)
    if spec.detector is not None:
        raise ArgumentError(
            f"{spec.name} is a detector: it resizes and normalizes inside and takes (3, H, W) RGB tensors in 0..1. "
            "`pretrainps.images.pixels.to_tensor` makes one of a path, PIL image or array."
        )
    return Preprocess(spec.input, size=size)
