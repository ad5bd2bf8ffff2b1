"""Measure a detector's time for a 1080p image at the papers' size, and compare the outputs of the faster variants.

    python benchmarks/detect.py                     # plain against optimized, float32, on two threads
    python benchmarks/detect.py --compile --bf16    # torch.compile and bfloat16 too, if the processor has it

The image is a drawn street. The backbone is `tiny-hybrid-synthetic` grown to a ResNet-50 (`grown.py`): it has trained features
and the work of a ResNet-50. Its heads are fitted to find the people of that street. All variants run in turn in one process;
ratios are ratios of medians. The plain variant is `plain_seqnet.py`. The outputs in bfloat16 are also compared for the
package's own small detector, on sixty drawn scenes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from grown import grow
from plain_seqnet import PlainSeqNet
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

import pretrainps
from pretrainps.backbones import Backbone
from pretrainps.detectors import PersonSearchDetector, SeqNet
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.synthetic import find_domain, plan_search, scenes, search_scenes

UNSEEN = 2026
"""Seed of a drawn world that was not used in training."""
RIDGE = 0.1
"""Weight of the penalty, in mean squares of the features. With 0.3 the boxes are so inaccurate that one person is found twice,
and rounding decides between two proposals."""


def scene(height: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw a busy street with people up to half as tall as the image.

    Returns:
        (3, height, width) in 0..1, and the people's boxes (P, 4).
    """
    street = replace(find_domain("det_street"), size=(height, width), nearest=(0.35, 0.5), people=(16, 24))
    sample = next(scenes(street, 1, seed=seed))
    return pil_to_tensor(sample.pixels()).float() / 255, torch.from_numpy(sample.boxes).float()


@torch.no_grad()
def detector(image: Tensor, boxes: Tensor) -> SeqNet:
    """Build a SeqNet on a ResNet-50 that finds these people in this image, without training.

    The last layers are fitted to the features by ridge regression: the scores of anchors and of proposals, the box deltas, and
    a vector for each person.
    """
    torch.manual_seed(0)
    small = pretrainps.load("tiny-hybrid-synthetic")
    assert isinstance(small, Backbone)
    model = pretrainps.build_detector("seqnet", backbone=grow(small)[0], num_identities=5532)
    assert isinstance(model, SeqNet)
    model.eval()
    (group,) = model.transform.groups([image])
    people = group.to_network(0, boxes)
    features = model.features(group.batch.tensors)

    head = model.rpn.head
    nn.init.dirac_(head.conv[0][0].weight)  # the identity, with the work of any 3x3 convolution
    nn.init.zeros_(head.conv[0][0].bias)
    (anchors,) = model.rpn.anchor_generator(group.batch, [features])
    overlap = box_iou(anchors, people).amax(dim=1).view(-1, head.cls_logits.out_channels)
    seen = head.conv(features).flatten(2)[0].T  # (positions, C)
    fit(head.cls_logits, seen, 8 * overlap - 4)
    nn.init.zeros_(head.bbox_pred.weight)

    (proposals,) = model.rpn.propose(group.batch, features)[0]
    regions = torch.cat([proposals, *(moved_about(people) for _ in range(10))])
    iou, who = box_iou(regions, people).max(dim=1)
    near = iou > 0.5
    pooled = model.box_stage(features, [regions], with_c4=False).pooled("max")["c5"]
    sure = (12 * iou - 6).clamp(-4, 4)
    fit(model.proposal_head.cls_score, pooled, torch.stack([-sure, sure], dim=1))
    moves = BoxCoder((10.0, 10.0, 5.0, 5.0)).encode_single(people[who], regions)
    fit(model.proposal_head.bbox_pred, pooled[near], torch.hstack([torch.zeros_like(moves), moves])[near])
    for parameter in model.box_head.parameters():  # the boxes are correct already
        nn.init.zeros_(parameter)
    vectors = torch.randn(len(people), model.config.embedding_dim)
    for name, maps in model.reid_stage(features, [regions], with_c4=True).pooled("max").items():
        linear, norm = model.embedding_head.projectors[name]
        fit(linear, maps[near], vectors[who[near], : linear.out_features])
        norm.reset_running_stats()
    return model


def moved_about(boxes: Tensor) -> Tensor:
    """Move and scale boxes by up to 0.4 of their size."""
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    middle = middle + size * (torch.rand(len(boxes), 2) - 0.5) * 0.8
    size = size * (1 + (torch.rand(len(boxes), 2) - 0.5) * 0.8)
    return torch.hstack([middle - size / 2, middle + size / 2])


def fit(layer: nn.Module, inputs: Tensor, wanted: Tensor) -> None:
    """Set a linear layer, or a 1x1 convolution, to the ridge regression from (N, C) to (N, D)."""
    x, y = inputs - inputs.mean(dim=0), wanted - wanted.mean(dim=0)
    gram = (x @ x.T if len(x) < x.shape[1] else x.T @ x).double()
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    if len(x) < x.shape[1]:
        weight = x.T @ torch.linalg.solve(gram, y.double()).float()
    else:
        weight = torch.linalg.solve(gram, (x.T @ y).double()).float()
    layer.get_parameter("weight").copy_(weight.T.reshape(layer.get_parameter("weight").shape))
    layer.get_parameter("bias").copy_(wanted.mean(dim=0) - inputs.mean(dim=0) @ weight)


def plain(model: SeqNet) -> PlainSeqNet:
    """Return the plain implementation with the same weights."""
    tensors = layout_of("seqnet-resnet", "seqnet").from_native(dict(model.state_dict()))
    other = PlainSeqNet(model.config.num_identities, model.config.queue_size)
    other.load_state_dict({key.replace("rpn.head.conv.", "rpn.head.conv.0.0."): value for key, value in tensors.items()})
    return other.eval()


def alike(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> int:
    """Return the number of people found again: IoU > 0.9, cosine > 0.99."""
    if len(found["boxes"]) == 0 or len(wanted["boxes"]) == 0:
        return 0
    iou, match = box_iou(wanted["boxes"], found["boxes"]).max(dim=1)
    cosine = nn.functional.cosine_similarity(wanted["embeddings"], found["embeddings"][match])
    return int(((iou > 0.9) & (cosine > 0.99)).sum())


def compared(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Match people by box and describe the differences of the two outputs."""
    if len(found["boxes"]) == 0 or len(wanted["boxes"]) == 0:
        return f"{len(found['boxes'])} and {len(wanted['boxes'])} people"
    iou, match = box_iou(found["boxes"], wanted["boxes"]).max(dim=1)
    boxes = (found["boxes"] - wanted["boxes"][match]).abs().max()
    scores = (found["scores"] - wanted["scores"][match]).abs().max()
    vectors = (found["embeddings"] - wanted["embeddings"][match]).abs().max()
    cosine = nn.functional.cosine_similarity(found["embeddings"], wanted["embeddings"][match])
    return (
        f"{len(found['boxes'])} of {len(wanted['boxes'])} people, {alike(found, wanted)} with IoU > 0.9 and cosine > 0.99 "
        f"(medians {iou.median():.4f}, {cosine.median():.5f}); largest difference: boxes {boxes:.4f} px, scores {scores:.1e}, "
        f"embeddings {vectors:.1e}"
    )


def trained(count: int = 60) -> str:
    """Compare a trained detector's outputs in bfloat16 with those in float32."""
    model = pretrainps.load("seqnet-tiny-synthetic")
    assert isinstance(model, PersonSearchDetector)
    ways = [model.optimize_for_inference(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    plan = plan_search("search_station", range(40), split="test", seed=UNSEEN)
    people = others = same = 0
    for sample, _ in zip(search_scenes(plan), range(count), strict=False):
        image = pil_to_tensor(sample.pixels()).float() / 255
        wanted, found = (way([image])[0] for way in ways)
        people, others, same = people + len(wanted["boxes"]), others + len(found["boxes"]), same + alike(found, wanted)
    return (
        f"a trained detector in bfloat16 (seqnet-tiny-synthetic, {count} drawn scenes): {others} people, {people} in float32, "
        f"{same} of them with IoU > 0.9 and cosine > 0.99"
    )


def main() -> None:
    """Time the variants, compare their outputs, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--seed", type=int, default=0, help="of the street")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (minutes before the first answer)")
    parser.add_argument("--bf16", action="store_true", help="time bfloat16 too, even if the processor only emulates it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image, boxes = scene(*args.size, args.seed)
    model = detector(image, boxes)
    ways: dict[str, Callable[[list[Tensor]], list[dict[str, Tensor]]]] = {
        "plain": plain(model),
        "as trained": model,
        "optimized": model.optimize_for_inference(),
    }
    if args.compile:
        ways["optimized, compiled"] = model.optimize_for_inference(compiled=True)
    if args.bf16 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        ways["optimized, bfloat16"] = model.optimize_for_inference(dtype=torch.bfloat16)
    else:
        print("no bfloat16: this processor has no instructions for it (--bf16 times the emulation)")
    answers = {name: way([image])[0] for name, way in ways.items()}  # also the warm-up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way([image])
            seconds[name].append(time.perf_counter() - start)
    print(
        f"torch {torch.__version__}, {args.threads} threads, image {args.size[0]}x{args.size[1]}, {args.rounds} rounds in turn"
    )
    base = statistics.median(seconds["plain"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:22} {middle:7.2f} s  ({min(times):.2f} to {max(times):.2f})   {base / middle:.2f} x as fast as plain")
        if name != "plain":
            print(f"{'':22} {compared(answers[name], answers['plain'])}")
    if "optimized, bfloat16" in ways:
        print(trained())


if __name__ == "__main__":
    main()
