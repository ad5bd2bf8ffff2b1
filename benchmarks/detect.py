"""How long a detector takes for a 1080p image at the papers' size, and whether the faster ways give the same answers.

    python benchmarks/detect.py                     # plain against optimised, float32, on two threads
    python benchmarks/detect.py --compile --bf16    # torch.compile and bfloat16 too, where the processor has it

The backbone's weights are random, its heads are fitted to find the twenty people of one drawn scene. All ways run in turn
in one process; ratios are of medians. The plain one is `plain_seqnet.py`. Random features are at the mercy of rounding, so how
alike bfloat16's answers are is counted for a trained detector too, the package's own small one, on sixty drawn scenes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from plain_seqnet import PlainSeqNet
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou
from torchvision.transforms.functional import pil_to_tensor

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.backbones.resnet import Bottleneck
from pretrainps.checkpoint.layouts import layout_of
from pretrainps.data.synthetic import plan_search, search_scenes
from pretrainps.detectors import PersonSearchDetector, SeqNet

PEOPLE = 20
SEED = 2026
"""Of a drawn world that no training saw."""
RIDGE = 0.3
"""Weight of the penalty, in mean squares of the features."""


def scene(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw upright figures in coats of their own colour on a smooth background.

    Returns:
        (3, height, width) in 0..1, and their boxes (PEOPLE, 4).
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 16, generator=generator)
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 0.2 + 0.4
    boxes: list[list[int]] = []
    while len(boxes) < PEOPLE:
        tall = int(height * (0.15 + 0.4 * float(torch.rand((), generator=generator))))
        wide = int(0.4 * tall)
        top = int(torch.randint(0, height - tall, (), generator=generator))
        left = int(torch.randint(0, width - wide, (), generator=generator))
        if any(left < x2 and x1 < left + wide and top < y2 and y1 < top + tall for x1, y1, x2, y2 in boxes):
            continue  # nobody hides anybody
        colours = (torch.tensor([1.0, 0.7, 0.5]), torch.rand(3, generator=generator), torch.tensor([0.0, 0.1, 0.4]))
        for part, (begin, end) in enumerate(((0.0, 0.18), (0.18, 0.55), (0.55, 1.0))):
            inset = wide // 3 if part == 0 else wide // 8
            rows = slice(top + int(begin * tall), top + int(end * tall))
            image[:, rows, left + inset : left + wide - inset] = colours[part][:, None, None]
        boxes.append([left, top, left + wide, top + tall])
    return image, torch.tensor(boxes, dtype=torch.float32)


@torch.no_grad()
def detector(image: Tensor, boxes: Tensor) -> SeqNet:
    """Build SeqNet on a ResNet-50 that finds these people in this image, without training it.

    Residual branches are weak and batch norms hold the image's own statistics, so that rounding is damped, as in a trained
    network. What a network learns last is fitted to the features by ridge regression: which anchors hold a person, which
    proposals do, how to move those onto the person, and a vector for each person.
    """
    torch.manual_seed(0)
    backbone = build_backbone("resnet50")
    for module in backbone.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.25)
    model = pretrainps.build_detector("seqnet", backbone=backbone, num_identities=5532)
    assert isinstance(model, SeqNet)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # plain averages
    small = nn.functional.interpolate(image[None], scale_factor=0.5)[0]
    model([small], [{"boxes": boxes / 2, "ids": torch.arange(len(boxes))}])
    model.eval()
    (group,) = model.transform.groups([image])
    people = group.to_network(0, boxes)
    features = model.features(group.batch.tensors)

    head = model.rpn.head
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
    for parameter in model.box_head.parameters():  # boxes are right already
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
    """Give the plain composition the same weights."""
    tensors = layout_of("seqnet-resnet", "seqnet").from_native(dict(model.state_dict()))
    other = PlainSeqNet(model.config.num_identities, model.config.queue_size)
    other.load_state_dict({key.replace("rpn.head.conv.", "rpn.head.conv.0.0."): value for key, value in tensors.items()})
    return other.eval()


def alike(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> int:
    """Return how many people were found again: IoU > 0.9, cosine > 0.99."""
    if len(found["boxes"]) == 0 or len(wanted["boxes"]) == 0:
        return 0
    iou, match = box_iou(wanted["boxes"], found["boxes"]).max(dim=1)
    cosine = nn.functional.cosine_similarity(wanted["embeddings"], found["embeddings"][match])
    return int(((iou > 0.9) & (cosine > 0.99)).sum())


def compared(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Match people by box and say how far the two answers are apart."""
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


def trained(scenes: int = 60) -> str:
    """Say how alike a trained detector's answers in bfloat16 are to those in float32."""
    model = pretrainps.load("seqnet-tiny-synthetic")
    assert isinstance(model, PersonSearchDetector)
    ways = [model.optimize_for_inference(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    plan = plan_search("search_campus", range(40), split="test", seed=SEED)
    people = others = same = 0
    for sample, _ in zip(search_scenes(plan), range(scenes), strict=False):
        image = pil_to_tensor(sample.pixels()).float() / 255
        wanted, found = (way([image])[0] for way in ways)
        people, others, same = people + len(wanted["boxes"]), others + len(found["boxes"]), same + alike(found, wanted)
    return (
        f"a trained detector in bfloat16 (seqnet-tiny-synthetic, {scenes} drawn scenes): {others} people, {people} in float32, "
        f"{same} of them with IoU > 0.9 and cosine > 0.99"
    )


def main() -> None:
    """Time, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (minutes before the first answer)")
    parser.add_argument("--bf16", action="store_true", help="time bfloat16 too, even if the processor only emulates it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image, boxes = scene(*args.size)
    model = detector(image, boxes)
    ways: dict[str, Callable[[list[Tensor]], list[dict[str, Tensor]]]] = {
        "plain": plain(model),
        "as trained": model,
        "optimised": model.optimize_for_inference(),
    }
    if args.compile:
        ways["optimised, compiled"] = model.optimize_for_inference(compiled=True)
    if args.bf16 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        ways["optimised, bfloat16"] = model.optimize_for_inference(dtype=torch.bfloat16)
    else:
        print("no bfloat16: this processor has no instructions for it (--bf16 times the emulation)")
    answers = {name: way([image])[0] for name, way in ways.items()}  # warms up, too
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
    if "optimised, bfloat16" in ways:
        print(trained())


if __name__ == "__main__":
    main()
