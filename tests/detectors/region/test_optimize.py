"""The faster copy gives the same answers, and torchvision's own modules put together give them too."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.detectors import PersonSearchDetector, assemble
from pretrainps.detectors.key_layouts import layout_of
from pretrainps.detectors.region.optimize import FastBottleneckStage
from pretrainps.errors import ArgumentError
from pretrainps.export.weights import export_weights
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, lively_detector, scenes

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def assert_same(found: list[dict[str, torch.Tensor]], wanted: list[dict[str, torch.Tensor]]) -> None:
    assert [len(each["boxes"]) for each in found] == [len(each["boxes"]) for each in wanted]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=1e-4, atol=0.05)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=1e-3)
        torch.testing.assert_close(one["embeddings"], other["embeddings"], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "arch"),
    [
        *((kind, "resnet18") for kind in KINDS),
        ("nae", "resnet50"),
        ("seqnet", "shufflenetv1"),
        ("seqnet", "timm:convnext_atto"),
    ],
)
def test_optimized_detectors_answer_the_same(kind: str, arch: str) -> None:
    model = lively_detector(kind, arch)
    before = copy.deepcopy(model.state_dict())
    fast = model.optimize_for_inference()
    assert isinstance(fast.box_stage, FastBottleneckStage) == (arch == "resnet50")
    images, _ = scenes()
    wanted = model(images)
    assert sum(len(each["boxes"]) for each in wanted) > 2
    assert_same(fast(images), wanted)
    boxes = [torch.tensor([[10, 10, 40, 90], [-50, -50, 20, 20]]), torch.zeros(0, 4)]
    for one, other in zip(fast.embed(images, boxes), model.embed(images, boxes), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)
    assert fast([]) == []
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_convolutions_on_the_map_and_on_regions_agree() -> None:
    """With few regions they are cut first, with many last; both are the plain stage."""
    model = lively_detector("seqnet", "resnet50")
    fast = model.optimize_for_inference()
    features = torch.randn(1, 1024, 6, 8)
    for count in (0, 1, 40):
        corner = torch.rand(count, 2) * 60
        boxes = [torch.cat([corner, corner + 1 + torch.rand(count, 2) * 80], dim=1)]
        plain, quick = (m.box_stage.eval()(features, boxes, with_c4=True) for m in (model, fast))
        assert plain.c4 is not None and quick.c4 is not None
        torch.testing.assert_close(quick.c4, plain.c4, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(quick.c5, plain.c5, rtol=1e-3, atol=1e-3 * float(plain.c5.abs().amax()) if count else 0)


def test_bfloat16_finds_the_same_people() -> None:
    model = lively_detector("seqnet", "shufflenetv1")
    fast = model.optimize_for_inference(dtype=torch.bfloat16)
    images, _ = scenes()
    boxes = [torch.tensor([[10, 10, 40, 90]]), torch.tensor([[20, 20, 60, 100]])]
    for one, other in zip(fast.embed(images, boxes), model.embed(images, boxes), strict=True):
        assert one.dtype == torch.float32 and float((one * other).sum(dim=1).min()) > 0.99
    found = fast(images)
    assert all(value.dtype == torch.float32 for each in found for key, value in each.items() if key != "labels")


def test_an_optimized_copy_is_for_inference_only(tmp_path: Path) -> None:
    fast = lively_detector("nae").optimize_for_inference()
    with pytest.raises(ArgumentError, match="cannot be trained"):
        fast.train()
    assert not fast.eval().training and not any(p.requires_grad for p in fast.parameters())
    fast.spec = pretrainps.info("nae-resnet50-cuhk")
    for write in (
        lambda: pretrainps.save_pretrained(fast, tmp_path / "saved"),
        lambda: export_weights(fast, "nae", tmp_path / "w.pth"),
    ):
        with pytest.raises(ArgumentError, match="original"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_torchvisions_modules_put_together_give_the_same() -> None:
    """The benchmark's plain SeqNet shares no code with the package."""
    plain_seqnet = _module("plain_seqnet")
    model = lively_seqnet_at_full_settings()
    plain = plain_seqnet.PlainSeqNet(10, 20)
    tensors = layout_of(model.family, "seqnet").from_native(dict(model.state_dict()))
    plain.load_state_dict({k.replace("rpn.head.conv.", "rpn.head.conv.0.0."): v for k, v in tensors.items()})
    plain.eval().transform.min_size, plain.transform.max_size = (96,), 160
    plain.rpn._pre_nms_top_n["testing"], plain.rpn._post_nms_top_n["testing"] = 200, 20
    images, _ = scenes()
    wanted = [plain([image])[0] for image in images]
    assert sum(len(each["boxes"]) for each in wanted) > 2
    found = model(images)
    for one, other in zip(found, wanted, strict=True):
        for key in ("boxes", "scores", "embeddings"):
            torch.testing.assert_close(one[key], other[key], rtol=1e-5, atol=1e-5)


def lively_seqnet_at_full_settings() -> PersonSearchDetector[object]:
    model = lively_detector("seqnet", "resnet50")
    settings = {**model.config.non_defaults(), "score_threshold": 0.5}
    again = assemble("seqnet", build_backbone("resnet50"), settings, ASSUMED_INPUT)
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        again.get_submodule("proposal_head.cls_score").bias.copy_(torch.tensor([-1.0, 1.0]))
    return again.eval()


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
