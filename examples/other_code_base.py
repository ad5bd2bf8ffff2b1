"""Export pre-trained weights for another code base, and check that they give the same output there.

    python examples/other_code_base.py [--model resnet50-hybrid] [--layout nae]

Writes a ResNet with the key names of torchvision, NAE4PS or SeqNet. For the latter two, it composes modules of those names from
torchvision's ResNet, as their code does. It loads the file with strict=True, so that no key may be missing or left over, and
compares the stride-32 map with this package's. The same file by command: `pretrainps export-weights`.
"""

import argparse
import copy
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

import pretrainps
from pretrainps.export.weights import export_weights

HEADS = {"nae": ("box_head",), "seqnet": ("box_head", "reid_head")}
"""The RoI heads of each code base that have their own last stage."""


def c4_modules(resnet: nn.Module, heads: tuple[str, ...]) -> nn.ModuleDict:
    """Split a ResNet as NAE4PS and SeqNet do: conv1 to layer3 once for each image, layer4 in each of the RoI heads."""
    parts = OrderedDict(resnet.named_children())
    last = parts.pop("layer4")
    trunk = nn.Sequential(OrderedDict((name, part) for name, part in parts.items() if name not in ("avgpool", "fc")))
    stages = {head: nn.Sequential(OrderedDict(layer4=copy.deepcopy(last))) for head in heads}
    return nn.ModuleDict({"backbone": trunk, "roi_heads": nn.ModuleDict(stages)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50-hybrid", help="a ResNet's name for pretrainps.load")
    parser.add_argument("--layout", choices=("torchvision", *HEADS), default="nae")
    args = parser.parse_args()

    ours = pretrainps.load(args.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        print(export_weights(ours, args.layout, path))  # prints how that code base loads the file
        state = torch.load(path, weights_only=True)

    resnet = torchvision.models.get_model(ours.arch, weights=None)
    resnet.avgpool, resnet.fc = nn.Identity(), nn.Identity()  # the rest returns the flattened map
    theirs = resnet if args.layout == "torchvision" else c4_modules(resnet, HEADS[args.layout])
    print(theirs.load_state_dict(state if args.layout == "torchvision" else state["model"], strict=True))
    theirs.eval()

    pixels = torch.randn(2, 3, 192, 128)  # normalized pixels, see pretrainps.preprocess
    with torch.inference_mode():
        expected = ours(pixels)["c5"].flatten(1)
        for name, found in maps(theirs, pixels).items():
            difference = (found.flatten(1) - expected).abs().max().item()
            print(f"{name}: largest difference {difference:.1e} at values up to {expected.abs().max().item():.1f}")


def maps(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Return each last stage's map of the whole image."""
    if not isinstance(model, nn.ModuleDict):
        return {"torchvision": model(pixels)}
    trunk = model["backbone"](pixels)
    return {f"roi_heads.{name}": stage(trunk) for name, stage in model["roi_heads"].items()}


if __name__ == "__main__":
    main()
