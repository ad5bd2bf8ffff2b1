"""How long a detector takes for a 1080p image at the papers' size, and whether the faster ways give the same answers.

    python benchmarks/detect.py                     # plain against optimised, float32, on two threads
    python benchmarks/detect.py --compile --bf16    # torch.compile and bfloat16 too, where the processor has it

The weights are random, but made to behave like trained ones that find twenty people in the scene. All ways run in turn in one
process; ratios are of medians. The plain one is `plain_seqnet.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from plain_seqnet import PlainSeqNet
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.backbones.resnet import Bottleneck
from pretrainps.checkpoint.layouts import layout_of
from pretrainps.detectors import SeqNet

PEOPLE = 20


def scene(height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw upright figures on a smooth background. (3, height, width) in 0..1, and their boxes (PEOPLE, 4)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 9, 16, generator=generator)
    image = nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1) * 0.6 + 0.2
    boxes = []
    for _ in range(PEOPLE):
        tall = int(height * (0.15 + 0.4 * float(torch.rand((), generator=generator))))
        wide = int(0.4 * tall)
        top = int(torch.randint(0, height - tall, (), generator=generator))
        left = int(torch.randint(0, width - wide, (), generator=generator))
        colours = torch.rand(3, 3, generator=generator)
        for part, (begin, end) in enumerate(((0.0, 0.18), (0.18, 0.55), (0.55, 1.0))):
            inset = wide // 3 if part == 0 else wide // 8
            rows = slice(top + int(begin * tall), top + int(end * tall))
            image[:, rows, left + inset : left + wide - inset] = colours[part][:, None, None]
        boxes.append([left, top, left + wide, top + tall])
    return image, torch.tensor(boxes, dtype=torch.float32)


@torch.no_grad()
def detector(image: Tensor, boxes: Tensor) -> SeqNet:
    """Build SeqNet on a ResNet-50 that behaves like a trained one on this image, without training it.

    Residual branches are weak, batch norms hold the image's own statistics, and the classifier is fitted (ridge regression) to
    take twenty proposals for people, so that it is as sure of itself, and rounding is damped, as in a trained network.
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
    features, (proposals,) = model._propose(group)
    # an untrained proposal network does not propose the figures: any twenty proposals that keep apart will do
    people = proposals[nms(proposals, torch.rand(len(proposals)), 0.2)[:PEOPLE]]
    pooled = model.box_stage(features, [proposals], with_c4=False).pooled("max")["c5"]
    wanted = torch.where(box_iou(proposals, people).amax(dim=1) > 0.6, 1.0, -1.0)
    centred = pooled - pooled.mean(dim=0)
    gram = centred @ centred.T
    gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    direction = centred.T @ torch.linalg.solve(gram, wanted - wanted.mean())
    head = model.proposal_head
    head.cls_score.weight.copy_(torch.stack([-3 * direction, 3 * direction]))
    # few regions are people, so the fit leans to the other side; the border lies halfway between the two
    middle = float(pooled.mean(dim=0) @ direction - wanted.mean()) - 0.5
    head.cls_score.bias.copy_(torch.tensor([3 * middle, -3 * middle]))
    head.bbox_pred.weight.mul_(0.1)
    return model


def plain(model: SeqNet) -> PlainSeqNet:
    """Give the plain composition the same weights."""
    tensors = layout_of("seqnet-resnet", "seqnet").from_native(dict(model.state_dict()))
    other = PlainSeqNet(model.config.num_identities, model.config.queue_size)
    other.load_state_dict({key.replace("rpn.head.conv.", "rpn.head.conv.0.0."): value for key, value in tensors.items()})
    return other.eval()


def compared(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """Match people by box and say how far the two answers are apart."""
    if len(found["boxes"]) == 0 or len(wanted["boxes"]) == 0:
        return f"{len(found['boxes'])} and {len(wanted['boxes'])} people"
    iou, match = box_iou(found["boxes"], wanted["boxes"]).max(dim=1)
    boxes = (found["boxes"] - wanted["boxes"][match]).abs().max()
    scores = (found["scores"] - wanted["scores"][match]).abs().max()
    vectors = (found["embeddings"] - wanted["embeddings"][match]).abs().max()
    cosine = nn.functional.cosine_similarity(found["embeddings"], wanted["embeddings"][match])
    alike = int(((iou > 0.9) & (cosine > 0.99)).sum())
    return (
        f"{len(found['boxes'])} of {len(wanted['boxes'])} people, {alike} with IoU > 0.9 and cosine > 0.99; largest "
        f"difference: boxes {boxes:.4f} px, scores {scores:.1e}, embeddings {vectors:.1e}"
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


if __name__ == "__main__":
    main()
