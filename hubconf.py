"""Entry points for torch.hub: one function a model, called like the model with underscores.

    model = torch.hub.load("OWNER/pretrainps:v0.1.0", "resnet50_hybrid", trust_repo=True)
    print(torch.hub.list("OWNER/pretrainps:v0.1.0", trust_repo=True))

The functions are made from the registry (`pretrainps/registry/*.toml`): a model that is added there is an entry point here. A
function's help is the registry's entry. Reading the registry imports nothing outside the standard library, so that a missing
dependency is named by torch.hub instead of ending in a traceback.
"""

import re as _re
import textwrap as _textwrap

# torch.hub takes every callable without an underscore for an entry point
from pretrainps.registry import registry as _registry

dependencies = [
    "torch",
    "torchvision",
    "timm",
    "huggingface_hub",
    "safetensors",
    "requests",
    "filelock",
    "tqdm",
    "numpy",
    "PIL",
]

_BACKBONE = """Returns a backbone: images (N, 3, H, W) -> {"c2": ..., "c3": ..., "c4": ..., "c5": ...}. With head="embedding"
it is a unit vector a crop instead, with head="classifier", num_classes=N class scores. For its input, see
pretrainps.preprocess(model)."""

_DETECTOR = """Returns a person-search detector: a list of scenes (3, H, W), RGB in 0..1, of any sizes -> a list with one
dictionary for each, {"boxes": (N, 4), "labels": (N,), "scores": (N,), "embeddings": (N, D)}, boxes as x1, y1, x2, y2 in its
pixels. It resizes and normalizes by itself."""


def _load(name, **options):
    from pretrainps import load

    return load(name, **options)


def _entry_point(spec):
    """Make the function that loads one model of the registry."""
    if spec.task == "detector":

        def load(*, device="cpu", offline=None, progress=True):
            return _load(spec.name, device=device, offline=offline, progress=progress)

    else:

        def load(*, head=None, embedding_dim=None, num_classes=None, device="cpu", offline=None, progress=True):
            options = {"head": head, "embedding_dim": embedding_dim, "num_classes": num_classes}
            return _load(spec.name, **options, device=device, offline=offline, progress=progress)

    terms = f"Licence: {spec.licence.id}. {spec.licence.note}".strip()
    result = _DETECTOR if spec.task == "detector" else _BACKBONE
    paragraphs = (f"{spec.title}.", spec.summary, result, f'{terms} More: pretrainps.info("{spec.name}").')
    load.__doc__ = "\n\n".join(_textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False) for text in paragraphs)
    load.__name__ = load.__qualname__ = _re.sub(r"\W", "_", spec.name)
    return load


for _spec in _registry().values():
    _function = _entry_point(_spec)
    globals()[_function.__name__] = _function
del _spec, _function
