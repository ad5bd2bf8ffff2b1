"""Model cards for the Hub, written from the spec alone, so that card and registry cannot disagree.

`python -m pretrainps.cards FOLDER` writes the card of every registered model; a test keeps `model_cards/` in step.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pretrainps.registry import ModelSpec, registry
from pretrainps.registry.specs import HeadSpec
from pretrainps.store.files import write_text

_LICENCE_IDS = {"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc-by-nc-4.0", "gpl-3.0"}
"""Those of the Hub's licence identifiers that occur; anything else is `other` there, with its name beside it."""


def render_card(spec: ModelSpec, *, load_as: str | None = None) -> str:
    """Return a model card: YAML metadata that the Hub accepts, then Markdown.

    Args:
        spec: The model.
        load_as: What to give `pretrainps.load`; by default the spec's name.
    """
    load_as = load_as or spec.name
    convention, licence, provenance = spec.input, spec.licence, spec.provenance
    tags = ["person-search", "person-re-identification", "pedestrian-detection", spec.arch.replace("timm:", "timm-")]
    front = ["---", "library_name: pretrainps", "pipeline_tag: image-feature-extraction"]
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
        "transform = pretrainps.preprocess(model)",
        "```",
        "",
        "## The weights",
        "",
        f"- Architecture: `{spec.arch}`, {parameters}",
        *([f"- Head: {_head(spec.head)}"] if spec.head else []),
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
        f"{convention.colour.upper()} in 0..{convention.scale:g}, minus {_row(convention.mean)}, divided by "
        f"{_row(convention.std)}; person crops at {convention.size[0]}x{convention.size[1]} (height x width, "
        f"{convention.interpolation}).",
        "",
        f"This is **{convention.status}**. {convention.evidence}",
        "",
    ]
    if spec.results:
        body += ["## Published results", "", "| data set | metric | value | model | source |", "|---|---|---|---|---|"]
        body += [f"| {r.dataset} | {r.metric} | {r.value} | {r.model} | {r.source} |" for r in spec.results]
        body += ["", "These are the sources' numbers; `pretrainps` has not reproduced them.", ""]
    body += [
        "## Use with care",
        "",
        "Person search finds people in pictures. Use it only where the law and the people concerned allow it; the data sets "
        "behind these weights have terms of their own, most of them for research only.",
        "",
    ]
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
        raise SystemExit("usage: python -m pretrainps.cards FOLDER")
    for path in write_cards(Path(sys.argv[1])):
        sys.stdout.write(f"{path}\n")
