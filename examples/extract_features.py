"""Load a backbone by name and compute its feature maps of a scene, as a person-search detector does.

    python examples/extract_features.py [IMAGE] [--model resnet50-hybrid]

Prints the load report, the input convention of the weights, each map's shape, and the last stage's output for one region.
"""

import argparse

import torch
from PIL import Image

import pretrainps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?", help="a photograph (default: a grey image)")
    parser.add_argument("--model", default="resnet50-hybrid")
    args = parser.parse_args()

    backbone = pretrainps.load(args.model)
    print(backbone.load_report)
    transform = pretrainps.preprocess(backbone, size="scene")
    print(transform.describe())

    scene = args.image or Image.new("RGB", (640, 480), (128, 128, 128))
    images = transform(scene)[None]  # (1, 3, H, W)
    with torch.inference_mode():
        for name, features in backbone(images).items():
            print(f"{name}: stride {backbone.strides[name]}, {tuple(features.shape)}")
        region = backbone.trunk(images)[:, :, 2:16, 2:9]  # the region of a person on the stride-16 map
        print(f"one region through the last stage: {tuple(backbone.last_stage(region).shape)}")


if __name__ == "__main__":
    main()
