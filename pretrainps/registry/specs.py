"""The frozen dataclasses of the registry: all facts about a model that are known before its file is read.

A `ModelSpec` is data. It comes from a TOML file, from the `config.json` that `save_pretrained` writes, or from the inspection
of a weight file. Nothing here imports torch, and reading a registry runs no code of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from pretrainps.errors import RegistryError

Task = Literal["backbone", "detector"]
Colour = Literal["rgb", "bgr"]
Evidence = Literal["documented", "assumed"]
Interpolation = Literal["bilinear", "bicubic"]

LARGEST_HEAD = 10_000_000
"""Most classes or dimensions of a head; a larger number is a mistake, and would exhaust the memory."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA256_PREFIX = re.compile(r"[0-9a-f]{8,63}")


def safe_file_name(name: str, where: str) -> str:
    """Return `name` after a check that it is a plain relative path that stays below its folder.

    Raises:
        RegistryError: `name` is empty or absolute, or has a drive, a backslash or `..`.
    """
    path = PurePosixPath(name)
    if not name or "\\" in name or ":" in name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise RegistryError(
            f"{where}: the file name {name!r} leaves its folder. Use a plain relative name such as 'resnet50.pth'."
        )
    return name


class _InFolder:
    """Base of sources with the file's original name in the attribute `file`."""

    __slots__ = ()
    file: str

    @property
    def filename(self) -> str:
        """The name the file has in the cache."""
        return PurePosixPath(self.file).name


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSource(_InFolder):
    """A file in a Hugging Face Hub model repository."""

    repo: str
    """The repository as `owner/name`."""
    file: str
    """Path of the file inside the repository."""
    revision: str = "main"
    """Branch, tag or 40-hex commit. The actual commit is recorded at first download."""

    def __str__(self) -> str:
        return f"hub {self.repo}/{self.file}@{self.revision}"


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSource:
    """A file behind a plain URL, or one member of a tar archive behind it."""

    url: str
    member: str | None = None
    """Path of the wanted file inside the archive. Size, hash, pin and cache refer to this file, not to the archive."""

    def __str__(self) -> str:
        """Return the URL without user and password, because it is written to records and messages."""
        scheme, _, rest = self.url.partition("://")
        host, slash, path = rest.partition("/")
        address = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
        return address if self.member is None else f"{self.member} out of the archive {address}"

    @property
    def filename(self) -> str:
        """The name the file has in the cache."""
        if self.member is not None:
            return PurePosixPath(self.member).name
        return PurePosixPath(self.url.split("?")[0].split("#")[0]).name or "weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class DriveSource(_InFolder):
    """A file shared on Google Drive."""

    id: str
    file: str
    """The name for the local file; Drive's own name is not needed."""

    def __str__(self) -> str:
        return f"Google Drive {self.id}"


@dataclass(frozen=True, kw_only=True, slots=True)
class BundledSource(_InFolder):
    """A file inside an installed package: this one, or a plug-in."""

    file: str
    package: str = "pretrainps"

    def __str__(self) -> str:
        return f"bundled with {self.package}: {self.file}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalSource:
    """A file on this machine; it is read at its own path and never copied."""

    path: str

    def __str__(self) -> str:
        return f"file {self.path}"

    @property
    def filename(self) -> str:
        """The file's own name."""
        return PurePosixPath(self.path.replace("\\", "/")).name


Source = HubSource | HttpSource | DriveSource | BundledSource | LocalSource


@dataclass(frozen=True, kw_only=True, slots=True)
class InputConvention:
    """A network's input convention: colour order, scale and normalization.

    A pixel in 0..1, RGB, becomes `(x * scale - mean) / std` after its channels are put in `colour` order; `mean` and
    `std` are in that order and in that scale.
    """

    colour: Colour
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    scale: float = 1.0
    """1 for pixels in 0..1, 255 for pixels in 0..255."""
    size: tuple[int, int] = (256, 128)
    """Height and width of a person crop, in pixels. Scenes keep their own size."""
    interpolation: Interpolation = "bilinear"
    status: Evidence
    """`documented` by the weights' authors (in text or code), or `assumed` by this package."""
    evidence: str
    """The place where it is documented, or the reason for the assumption."""

    def __post_init__(self) -> None:
        if self.colour not in ("rgb", "bgr"):
            raise RegistryError(f"input.colour must be 'rgb' or 'bgr', not {self.colour!r}.")
        if self.status not in ("documented", "assumed"):
            raise RegistryError(f"input.status must be 'documented' or 'assumed', not {self.status!r}.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise RegistryError(f"input.interpolation must be 'bilinear' or 'bicubic', not {self.interpolation!r}.")
        if self.scale not in (1.0, 255.0):
            raise RegistryError(f"input.scale must be 1 or 255, not {self.scale}.")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise RegistryError(f"input.mean and input.std must be finite, and std positive, not {self.mean}, {self.std}.")
        if min(self.size) < 1:
            raise RegistryError(f"input.size must be at least one pixel a side, not {self.size}.")


PRETRAINING = "pretraining"
"""The key layout of a pre-training's checkpoints: a backbone in two parts, and heads."""
ASSUMED_INPUT = InputConvention(
    colour="rgb",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    status="assumed",
    evidence="nothing says; `pretrainps check-input` can tell from batch-norm statistics",
)
"""RGB with ImageNet's statistics: the convention for weights of unknown origin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Licence:
    """The terms of use of the weights, and the place where they are stated."""

    id: str
    """SPDX-like identifier in the Hub's spelling (`apache-2.0`), or `other`."""
    stated_in: str
    """The place where it is stated, in words."""
    note: str = ""
    """Further terms, mainly those of the training data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """The origin of the weights."""

    authors: str
    paper: str
    url: str
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedResult:
    """One published or measured number."""

    dataset: str
    metric: str
    value: float
    model: str
    """The whole model that was evaluated, because a backbone is not evaluated alone."""
    source: str
    """The publication of the number, or the command that measured it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadSpec:
    """The head on top of a backbone, for weights that include one."""

    kind: Literal["embedding", "classifier"]
    embedding_dim: int | None = None
    """Width of the learned projection; `None` for the pooled features without projection."""
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("embedding", "classifier"):
            raise RegistryError(f"head.kind must be 'embedding' or 'classifier', not {self.kind!r}.")
        if self.kind == "classifier" and self.num_classes is None:
            raise RegistryError("a classifier head needs num_classes.")
        if self.kind == "embedding" and self.num_classes is not None:
            raise RegistryError("an embedding head has no num_classes.")
        for width in (self.embedding_dim, self.num_classes):
            if width is not None and not 1 <= width <= LARGEST_HEAD:
                raise RegistryError(f"a head's width must be in 1..{LARGEST_HEAD:,}, not {width:,}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectorSpec:
    """The person-search detector of the weights."""

    kind: str
    """A key of `pretrainps.detectors.DETECTORS`."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of that detector's config that differ from their defaults; they are checked when it is built."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """The form of the model's tensors in the file. All changes that the loader may make to keys are declared here."""

    layout: str = "native"
    """Key layout (`pretrainps export-weights --help` lists them); `native` is the package's own."""
    wrapper: tuple[str, ...] = ()
    """Dictionary keys above the tensors, the outermost first: `("state_dict",)`."""
    prefix: str = ""
    """Prefix that is removed from all keys that have it; keys without it must then be listed in `ignored`."""
    ignored: tuple[str, ...] = ()
    """Shell patterns of keys (as in the file, below the wrapper) that are known but not used."""
    expected_missing: tuple[str, ...] = ()
    """Shell patterns of the model's keys that the file may lack; they keep their initial values."""
    new: tuple[str, ...] = ()
    """Shell patterns of the model's keys that were removed from the file and start anew, such as identity tables."""
    tensors: int | None = None
    """Number of tensors that the model takes from the file, if known beforehand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """A file to fetch before a spec is known, such as the `config.json` that describes the weights."""

    name: str
    sources: tuple[Source, ...]
    sha256: str | None = None
    sha256_prefix: str | None = None
    published_size: float | None = None
    is_json: bool = False
    """Whether it is a configuration rather than weights."""

    def __post_init__(self) -> None:
        _check_sources(self.name, self.sources)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """Everything known about one set of weights."""

    name: str
    title: str
    arch: str
    """The architecture to build, a key of `pretrainps.backbones.ARCHITECTURES` or `timm:NAME`."""
    summary: str
    input: InputConvention
    licence: Licence
    provenance: Provenance
    sources: tuple[Source, ...]
    """The sources, tried in this order."""
    task: Task = "backbone"
    arch_options: dict[str, Any] = field(default_factory=dict)
    head: HeadSpec | None = None
    detector: DetectorSpec | None = None
    file: FileFormat = FileFormat()
    parameters: int | None = None
    """Number of learned parameters, without batch-norm statistics."""
    sha256: str | None = None
    """The published sha256 of the file. `None` if none is published; the file is then pinned at first download."""
    sha256_prefix: str | None = None
    """The first hex digits of the sha256, if the publisher's file name has them."""
    published_size: float | None = None
    """The rounded size in MB (10^6 bytes) that the source shows; a file that differs by more than 5 % is refused."""
    results: tuple[PublishedResult, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in ("backbone", "detector"):
            raise RegistryError(f"{self.name}: task must be 'backbone' or 'detector', not {self.task!r}.")
        if (self.task == "detector") != (self.detector is not None) or (self.head and self.detector):
            raise RegistryError(f"{self.name}: a detector has task = 'detector', a [detector] table, and no head.")
        if not self.sources:
            raise RegistryError(f"{self.name}: no source. Give at least one [[sources]] entry.")
        if self.sha256 is not None and not _SHA256.fullmatch(self.sha256):
            raise RegistryError(f"{self.name}: sha256 must be 64 lower-case hex digits, not {self.sha256!r}.")
        if self.sha256_prefix is not None and not _SHA256_PREFIX.fullmatch(self.sha256_prefix):
            raise RegistryError(f"{self.name}: sha256_prefix must be 8 to 63 lower-case hex digits.")
        _check_sources(self.name, self.sources)


def _check_sources(name: str, sources: tuple[Source, ...]) -> None:
    for source in sources:
        if isinstance(source, HubSource | DriveSource | BundledSource):
            safe_file_name(source.file, name)
        if isinstance(source, HttpSource) and source.member is not None:
            safe_file_name(source.member, name)
        if not isinstance(source, LocalSource):
            safe_file_name(source.filename, name)
        if isinstance(source, HttpSource) and not source.url.startswith(("https://", "http://")):
            raise RegistryError(f"{name}: {source.url!r} is no http(s) URL.")
