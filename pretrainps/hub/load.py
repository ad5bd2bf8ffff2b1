"""Load a model by name: fetch, read, map, compare, and only then fill it."""

from __future__ import annotations

import fnmatch
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
from pretrainps.download import Cache, Fetched, fetch
from pretrainps.download.fetch import confirm, remedied
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
            and `file:PATH`. A `ModelSpec` is taken as it is.
        head: `None` for a backbone that returns feature maps (or the head that was saved with the weights);
            `"embedding"` for a unit vector a crop; `"classifier"` for class scores. A head that the file does not hold is
            initialized at random and listed as new in the report.
        embedding_dim: Width of a learned projection before the unit vector; `None` for the pooled features themselves.
        num_classes: Number of classes, with `head="classifier"`.
        arch: The architecture of a bare weight file whose keys do not tell; of a file with a whole detector, its backbone's, to
            get that alone.
        ignore: Shell patterns of keys in the file that are known not to be wanted, such as a classifier's. They are left out
            before the file is recognized. Keys that would be part of the network itself are never left out.
        prefix: What stands before the keys in the file. `None` takes what is declared, or finds the prefix of a bare weight
            file, of any depth, as long as it ends in a dot.
        config: Settings of a detector instead of those it was saved with, such as `{"score_threshold": 0.2, "min_size": 600}`;
            see `PersonSearchDetector.configured`.
        device: Where to put the model; checked before anything is downloaded.
        offline: Never use the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        cache_dir: Cache folder, instead of the environment's.
        progress: Show progress bars.
        verify: Hash a cached file again even though its size and time have not changed.

    Returns:
        A backbone, a model for crops, or a detector, as the name stands for one or the other; `.spec` says what it is and
        `.load_report` how the file fitted it.

    Raises:
        UnknownModelError: no such name.
        WeightsUnavailableError: no source gave the file (`OfflineError`, `GatedWeightsError` among its kinds).
        IntegrityError: a file is not the expected one.
        CheckpointFormatError: unreadable, or a pickle that wants to run code.
        StateDictMismatchError: file and model differ in anything undeclared.
        ArgumentError: settings that do not go together with the model; says which, before anything is downloaded.

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
    # batch counters and identity tables start at zero anyway; any other tensor that the file may lack needs its initial value
    may_lack = (*spec.file.expected_missing, *spec.file.new)
    tables = detector_entry(spec.detector.kind).tables if spec.detector is not None else ()
    zeros = [pattern for table in tables for pattern in (table, table.rpartition(".")[0] + ".*")]
    empty = all(pattern.endswith("num_batches_tracked") or pattern in zeros for pattern in may_lack)
    backbone = build_backbone(spec.arch, spec.arch_options, empty=empty)
    # under a head of ours, or in a detector, the backbone's own tail lies deeper
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
    model.spec = replace(spec, sha256=fetched.sha256)  # whatever was known of the file before, now its hash is
    model.load_report = report
    return model.eval().to(target)


def _tensors(
    spec: ModelSpec, family: str, adapter: Adapter | None, cache: Cache, *, offline: bool | None, progress: bool, verify: bool
) -> tuple[Fetched, NativeCheckpoint]:
    """Fetch the file and bring its tensors under our names; again if another process removed it in between."""
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
    """Return the device, or say before anything is downloaded that it cannot be used."""
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArgumentError(f"device {str(device)!r} cannot be used here ({reason}). Use 'cpu'.") from error
    return target


def _assembled(spec: ModelSpec, detector: DetectorSpec, backbone: Backbone) -> PersonSearchDetector[Any]:
    """Build a detector of the sizes that its configuration names, or say that nobody can."""
    try:
        return assemble(detector.kind, backbone, detector.config, spec.input)
    except (RuntimeError, TypeError, ArithmeticError, MemoryError) as error:  # torch's and Python's words for "too large"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArgumentError(
            f"{spec.name}: a detector with the sizes of its configuration cannot be built ({reason}). Save the model again."
        ) from error


def _saved_head(spec: ModelSpec, saved: HeadSpec, wanted: HeadSpec | None) -> HeadSpec:
    """Return the head that lies in the file, unless another one was asked for."""
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
    """Take from the ignored keys those that would be part of the network itself: without them it would be another one."""
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
    """Compare, and load only if everything undeclared matched."""
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
        unprefixed = set(checkpoint.unprefixed)
        require_complete(report, origin, advise(report, shapes, arch=spec.arch, prefix=spec.file.prefix, unprefixed=unprefixed))
    state = model.state_dict()
    held = {key: checkpoint.tensors[key].to(state[key].dtype) for key in report.matched}
    for key in (*report.expected_missing, *report.new):
        held[key] = torch.zeros_like(state[key], device="cpu") if state[key].is_meta else state[key]
    # assigned, not copied: the parameters are the mapped file's own pages until something writes to them
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
    """Fetch a model's weight file and return where it lies, verified.

    Args:
        name: A name as `load` takes it.
        offline: Never use the network: only check what is cached.
        cache_dir: Cache folder, instead of the environment's.
        progress: Show a progress bar.
        verify: Hash a cached file even though its size and time have not changed.
        force: Download again although it is cached. A pinned sha256 still holds.

    Raises:
        UnknownModelError: no such name.
        WeightsUnavailableError: no source gave the file.
        IntegrityError: a file is not the expected one.
    """
    cache = Cache(cache_dir)
    spec = resolve(name, cache=cache, offline=offline, progress=progress, force=force)
    return fetch(spec, cache=cache, offline=offline, progress=progress, verify=verify, force=force).path


def preprocess(name_or_model: str | Path | ModelSpec | nn.Module, *, size: Size = "crop") -> Preprocess:
    """Return the transform that belongs to a model's weights.

    Args:
        name_or_model: A name as `load` takes it, a spec, or a loaded model.
        size: "crop" for the model's crop size, "scene" to keep each picture's own, or (height, width).

    Raises:
        UnknownModelError: no such name.
        ArgumentError: a module that `pretrainps.load` did not return; or a detector, which does it inside.
    """
    if isinstance(name_or_model, nn.Module):
        spec = getattr(unwrap(name_or_model), "spec", None)
        if not isinstance(spec, ModelSpec):
            raise ArgumentError("this module carries no spec: pretrainps.load did not return it. Give the model's name.")
    else:
        spec = resolve(name_or_model)
    if spec.detector is not None:
        raise ArgumentError(
            f"{spec.name} is a detector: it resizes and normalizes inside and takes (3, H, W) RGB tensors in 0..1. "
            "`pretrainps.images.pixels.to_tensor` makes one of a path, PIL image or array."
        )
    return Preprocess(spec.input, size=size)
