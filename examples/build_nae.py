"""Build NAE on a pre-trained backbone, take one step of training, and detect.

    python examples/build_nae.py [--backbone resnet50-hybrid] [--small]

Two drawn scenes with annotation replace a data set. Prints each loss and the detector's output, which has no meaning yet after
a single step. For a whole training, with a schedule, evaluations and checkpoints, use `pretrainps finetune`.
"""

import argparse

import torch

import pretrainps
from pretrainps.images.pixels import to_tensor
from pretrainps.synthetic import search_train

SMALL = {"min_size": 160, "max_size": 240, "region_samples": 16, "rpn_proposals_train": 60, "rpn_proposals": 20}
"""Settings for a first try on a CPU; all others are the paper's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50-hybrid", help="a name for pretrainps.load")
    parser.add_argument("--small", action="store_true", help="small scenes and few regions, instead of the paper's 900 x 1500")
    args = parser.parse_args()

    split = search_train("search_campus", range(3), appearances=2)
    scenes = list(split.samples)[:2]
    images = [to_tensor(scene.pixels()) for scene in scenes]  # (3, H, W), RGB in 0..1; the detector resizes and normalizes
    boxes = [torch.from_numpy(scene.boxes) for scene in scenes]  # (P, 4) x1, y1, x2, y2 in pixels
    targets = [{"boxes": box, "ids": torch.from_numpy(scene.ids)} for box, scene in zip(boxes, scenes, strict=True)]

    torch.manual_seed(0)  # the heads have random weights
    detector = pretrainps.build_detector(
        "nae",
        backbone=args.backbone,
        num_identities=len(split.identities),
        config=SMALL if args.small else None,
    )
    learned = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.003, momentum=0.9, weight_decay=5e-4)
    losses = detector(images, targets)
    for name, value in losses.items():
        print(f"{name}: {value.item():.3f}")
    sum(losses.values()).backward()
    torch.nn.utils.clip_grad_norm_(learned, 10.0)
    optimizer.step()

    detector.eval()
    with torch.inference_mode():
        for scene, people in zip(scenes, detector(images), strict=True):
            print(f"{scene.name}: {len(people['boxes'])} people found, {len(scene.boxes)} drawn")
        queries = torch.cat(detector.embed(images, boxes))  # (P, 256), rows of length 1
    print(f"embeddings of everyone drawn: {tuple(queries.shape)}")


if __name__ == "__main__":
    main()
