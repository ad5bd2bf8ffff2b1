"""Model cards for the Hub, generated from the spec alone, so that card and registry cannot disagree.

`python -m pretrainps.hub.cards FOLDER` writes the card of every registered model; a test checks that `model_cards/` is
current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pretrainps.files import write_text
from pretrainps.registry import ModelSpec, registry
from pretrainps.registry.specs import BundledSource, DetectorSpec, HeadSpec

_LICENCE_IDS = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "gpl-3.0"}
"""The Hub's licence identifiers in use. Any other licence is `other` on the Hub, with its name in a second field."""

_USE_DETECTOR = """\
people = model([image])  # scenes as (3, H, W), RGB in 0..1
people[0]  # {"boxes": ..., "labels": ..., "scores": ..., "embeddings": ...}, one row a person"""


_REPORTED = "These are the sources' numbers; `pretrainps` has not reproduced them."
_MEASURED = "The commands measure them again."
_CARE = "Person search finds people in images. Use it only where the law and the people concerned allow it"
_TERMS = "the data sets behind these weights have terms of their own, most of them for research only."
_DRAWN = "these weights were trained on drawn people only, and do not find people reliably in photographs."


def render_card(spec: ModelSpec, *, load_as: str | None = None) -> str:
    """Return a model card: YAML metadata that the Hub accepts, then Markdown.

    Args:
        spec: The model.
        load_as: The name for `pretrainps.load`; by default the spec's name.
    """
    load_as = load_as or spec.name
    licence, provenance = spec.licence, spec.provenance
    source = spec.sources[0]
    own = isinstance(source, BundledSource) and source.package == "pretrainps"  # trained here, on the synthetic world
    tags = ["person-search", "person-re-identification", "pedestrian-detection", spec.arch.replace("timm:", "timm-")]
    tags += [spec.detector.kind] if spec.detector else []
    pipeline = "object-detection" if spec.detector else "image-feature-extraction"
    front = ["---", "library_name: pretrainps", f"pipeline_tag: {pipeline}"]
    if licence.id in _LICENCE_IDS:
        front.append(f"license: {licence.id}")
    else:
        front += ["license: other", f"license_name: {licence.id.lower().replace(' ', '-')}"]
        front += [f"license_link: {provenance.url}"] if provenance.url.startswith("https://") else []
    front += ["tags:", *(f"- {tag}" for tag in tags), "---"]
    parameters = f"{spec.parameters / 1e6:.2f} M parameters" if spec.parameters else "size: see the file"
    parameters += f" in {spec.file.tensors} tensors" if spec.file.tensors else ""
    body = [
        f"# {spec.title}",
        "",
        spec.summary,
        "",
        "```python",
        "import pretrainps",
        "",
        f'model = pretrainps.load("{load_as}")',
        _USE_DETECTOR if spec.detector else "transform = pretrainps.preprocess(model)",
        "```",
        "",
        "## The weights",
        "",
        f"- Architecture: `{spec.arch}`, {parameters}",
        *([f"- Head: {_head(spec.head)}"] if spec.head else []),
        *([f"- Detector: {_detector(spec.detector)}"] if spec.detector else []),
        f"- From: {'; '.join(str(source) for source in spec.sources)}",
        f"- sha256: {_hash_line(spec)}",
        f"- Authors: {provenance.authors}",
        f"- Paper: {provenance.paper}",
        f"- More: {provenance.url}",
        f"- Licence: {licence.id}, as stated in {licence.stated_in}",
    ]
    body += [f"- Terms: {licence.note}"] if licence.note else []
    body += [f"- Note: {provenance.note}"] if provenance.note else []
    body += [
        "",
        "## What goes in",
        "",
        _what_goes_in(spec),
        "",
        f"This is **{spec.input.status}**. {spec.input.evidence}",
        "",
    ]
    if spec.results:
        body += [
            "## Results" if own else "## Published results",
            "",
            "| data set | metric | value | model | source |",
            "|---|---|---|---|---|",
        ]
        body += [f"| {r.dataset} | {r.metric} | {r.value} | {r.model} | {r.source} |" for r in spec.results]
        body += ["", _MEASURED if own else _REPORTED, ""]
    body += ["## Use with care", "", f"{_CARE}; {_DRAWN if own else _TERMS}", ""]
    return "\n".join([*front, "", *body])


def write_cards(folder: Path) -> list[Path]:
    """Write the card of every registered model and return the files."""
    written = []
    for name, spec in registry().items():
        path = folder / f"{name}.md"
        write_text(path, render_card(spec))
        written.append(path)
    return written


def _head(head: HeadSpec) -> str:
    if head.kind == "classifier":
        return f"scores of {head.num_classes} classes"
    return "unit vectors" + (f" of {head.embedding_dim} numbers" if head.embedding_dim else ", the pooled features themselves")


def _detector(detector: DetectorSpec) -> str:
    config = ", ".join(f"{name} = {value}" for name, value in detector.config.items())
    return f"`{detector.kind}`" + (f" with {config}" if config else "")


def _what_goes_in(spec: ModelSpec) -> str:
    convention = spec.input
    network = f"{convention.colour.upper()} in 0..{convention.scale:g}, minus {_row(convention.mean)}, divided by "
    network += _row(convention.std)
    if spec.detector:
        own = "Whole scenes of any size, RGB in 0..1; they are resized and normalized inside the model. "
        return f"{own}Its network sees {network}."
    height, width = convention.size
    return f"{network}; person crops at {height}x{width} (height x width, {convention.interpolation})."


def _hash_line(spec: ModelSpec) -> str:
    if spec.sha256:
        return f"`{spec.sha256}`"
    if spec.sha256_prefix:
        return f"starts with `{spec.sha256_prefix}` (from its publisher's file name); pinned in full at first download"
    return "published nowhere; pinned at first download"


def _row(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m pretrainps.hub.cards FOLDER")
    for path in write_cards(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
