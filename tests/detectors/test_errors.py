"""What cannot be is refused in words that say which image and which field."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pretrainps.backbones import build_backbone
from pretrainps.detectors import (
    NAE,
    NAEConfig,
    NAEPlusConfig,
    OIMConfig,
    PersonSearchDetector,
    SeqNetConfig,
    assemble,
)
from pretrainps.errors import ArgumentError, UnknownModelError, UnsupportedModelError
from pretrainps.registry.specs import ASSUMED_INPUT
from tests.support.detectors import KINDS, TINY, small_detector

Detector = PersonSearchDetector[Any]
IMAGE = torch.rand(3, 40, 50)
BOXES = torch.tensor([[1.0, 2, 20, 30], [5, 5, 30, 35]])
IDS = torch.tensor([0, -1])
PRW = {"num_identities": 482, "queue_size": 500, "identity_numbering": "original"}


@pytest.fixture(scope="module")
def model() -> Detector:
    return small_detector("nae", "shufflenetv1")


def with_row(row: list[float]) -> Tensor:
    boxes = BOXES.clone()
    boxes[1] = torch.tensor(row)
    return boxes


# ------------------------------------------------------------------------------------------------------- building


@pytest.mark.parametrize(("name", "nearest"), [("seqnt", "seqnet"), ("NAE+", "nae+"), ("Seq-Net", "seqnet")])
def test_unknown_detectors_name_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(UnknownModelError, match=re.escape(f"Did you mean {nearest!r}?")) as caught:
        assemble(name, build_backbone("shufflenetv1"), {"num_identities": 3}, ASSUMED_INPUT)
    assert caught.value.suggestions == (nearest,)


def test_unknown_detectors_like_none_list_all() -> None:
    with pytest.raises(UnknownModelError, match=r"There are: nae, nae\+, oim, seqnet"):
        assemble("yolo", build_backbone("shufflenetv1"), {"num_identities": 3}, ASSUMED_INPUT)


@pytest.mark.parametrize("module", [nn.Conv2d(3, 8, 3), None, "resnet50"])
def test_what_is_no_backbone(module: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"{type(module).__name__} is no backbone"):
        assemble("nae", module, {"num_identities": 3}, ASSUMED_INPUT)


@pytest.mark.parametrize("missing", ["c4", "c5"])
def test_a_backbone_that_does_not_split(missing: str) -> None:
    backbone = build_backbone("shufflenetv1")
    backbone.feature_maps = tuple(feature for feature in backbone.feature_maps if feature.name != missing)
    backbone.segments = {name: modules for name, modules in backbone.segments.items() if name != missing}
    with pytest.raises(UnsupportedModelError, match=f"shufflenetv1 has no {missing}"):
        assemble("nae", backbone, {"num_identities": 3}, ASSUMED_INPUT)


@pytest.mark.parametrize(
    ("kind", "config"), [("nae", OIMConfig), ("nae+", NAEConfig), ("oim", SeqNetConfig), ("seqnet", NAEConfig)]
)
def test_a_config_of_another_detector(kind: str, config: Any) -> None:
    with pytest.raises(ArgumentError, match=f"takes a .*Config, not a {config.__name__}"):
        assemble(kind, build_backbone("shufflenetv1"), config(num_identities=3), ASSUMED_INPUT)


@pytest.mark.parametrize("config", [OIMConfig, NAEConfig, NAEPlusConfig, SeqNetConfig])
def test_number_of_identities_is_nobodys_guess(config: Any) -> None:
    with pytest.raises(ArgumentError, match="num_identities"):
        config.from_mapping({"queue_size": 3})


BAD_FIELDS: list[tuple[str, Any]] = [
    ("num_identities", 0),
    ("num_identities", 2.5),
    ("num_identities", True),
    ("num_identities", "many"),
    ("num_identities", None),
    ("queue_size", 0),
    ("queue_size", -1),
    ("identity_numbering", "PRW"),
    ("embedding_dim", 0),
    ("oim_scalar", -1.0),
    ("oim_scalar", float("nan")),
    ("oim_scalar", float("inf")),
    ("oim_momentum", 1.5),
    ("min_size", 0),
    ("min_size", 1501),
    ("max_size", 3),
    ("anchor_sizes", ()),
    ("anchor_sizes", (32, 0)),
    ("anchor_sizes", 32),
    ("anchor_ratios", (-1.0,)),
    ("rpn_box_loss", "l2"),
    ("rpn_positive_iou", 1.1),
    ("rpn_negative_iou", 0.8),
    ("rpn_samples", 0),
    ("rpn_positive_fraction", -0.1),
    ("rpn_candidates_train", 0),
    ("rpn_candidates", 1.0),
    ("rpn_proposals_train", 0),
    ("rpn_proposals", 0),
    ("rpn_nms_iou", 2.0),
    ("region_size", 0),
    ("region_sampling", 0),
    ("region_samples", 0),
    ("region_positive_fraction", 1.01),
    ("region_positive_iou", -0.5),
    ("region_negative_iou", 0.6),
    ("pooling", "median"),
    ("score_threshold", -0.01),
    ("score_threshold", "high"),
    ("nms_iou", 1.01),
    ("max_detections", 0),
    ("batch_norm", "cold"),
    ("weight_rpn_cls", -1.0),
    ("weight_box_reid", float("nan")),
    ("no_such_field", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
@pytest.mark.parametrize("config", [OIMConfig, SeqNetConfig])
def test_fields_that_cannot_be(config: Any, field: str, value: Any) -> None:
    """From a file, and from code."""
    named = {"max_size": "min_size", "region_positive_iou": "region_(positive|negative)_iou"}.get(field, field)
    with pytest.raises(ArgumentError, match=named):
        config.from_mapping({"num_identities": 3, field: value})
    if field != "no_such_field":
        with pytest.raises(ArgumentError, match=rf"{config.__name__}\.({named})"):
            config(**{"num_identities": 3, field: value})


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        (SeqNetConfig, "second_nms_iou", 1.5),
        (SeqNetConfig, "weight_proposal_cls", -1.0),
        (SeqNetConfig, "weight_proposal_reg", float("inf")),
        (NAEPlusConfig, "pixel_labels", "all"),
        (NAEPlusConfig, "fuse_c4", "yes"),
        (NAEPlusConfig, "focal", 2),
        (NAEConfig, "score_weighting", "yes"),
        (NAEConfig, "freeze_stem", 1),
    ],
)
def test_fields_that_cannot_be_of_one_detector(config: Any, field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        config.from_mapping({"num_identities": 3, field: value})


@pytest.mark.parametrize("kind", ["oim", "nae", "nae+", "seqnet"])
def test_an_embedding_needs_a_number_of_each_map(kind: str) -> None:
    with pytest.raises(ArgumentError, match="embedding_dim"):
        small_detector(kind, "shufflenetv1", embedding_dim=1)


def test_configs_survive_plain_values() -> None:
    config = SeqNetConfig(num_identities=7, anchor_sizes=(16, 32), rpn_box_loss="smooth_l1", score_threshold=0.25)
    assert config.non_defaults() == {
        "num_identities": 7,
        "anchor_sizes": [16, 32],
        "rpn_box_loss": "smooth_l1",
        "score_threshold": 0.25,
    }
    assert SeqNetConfig.from_mapping(config.non_defaults()) == config


# --------------------------------------------------------------------------------------------------------- images


BAD_IMAGES: list[tuple[Any, str]] = [
    (IMAGE, r"images: expected a list of \(3, H, W\) tensors, not one tensor \(3, 40, 50\)"),
    ([IMAGE, IMAGE[None]], r"image 1: .*\(1, 3, 40, 50\)"),
    ([IMAGE, (IMAGE * 255).byte()], "image 1: .*uint8; divide by 255"),
    ([IMAGE.long()], "image 0: .*int64"),
    ([IMAGE, IMAGE[0]], r"image 1: .*\(40, 50\)"),
    ([IMAGE, IMAGE[:1]], r"image 1: expected \(3, height, width\), not \(1, 40, 50\)"),
    ([IMAGE.permute(1, 2, 0)], r"image 0: .*\(40, 50, 3\)"),
    ([torch.rand(4, 40, 50)], "image 0"),
    ([IMAGE[:, :0]], r"image 0: .*\(3, 0, 50\)"),
    ([IMAGE, IMAGE * 255], r"image 1 holds numbers from .* to 25\d.*; expected RGB pixels in 0\.\.1\. Divide by 255"),
    ([(IMAGE - 0.45) / 0.225], r"image 0 holds numbers from -\d.*it is applied later"),
    ([IMAGE, IMAGE * 2 - 1], r"image 1 holds numbers from -.*expected RGB pixels in 0\.\.1"),
    ([IMAGE.double() * 255], "image 0 holds numbers .*Divide by 255"),
    ([IMAGE.half() * 255], "image 0 holds numbers .*Divide by 255"),
    ([IMAGE, IMAGE.index_fill(2, torch.tensor([7]), float("nan"))], "image 1 holds numbers that are not finite"),
    ([IMAGE.index_fill(1, torch.tensor([7]), float("inf"))], "image 0 holds numbers that are not finite"),
    ([IMAGE.index_fill(1, torch.tensor([7]), float("-inf"))], "image 0 holds numbers that are not finite"),
    ([(IMAGE * 255).short()], "image 0: .*int16"),
    ([IMAGE.bool()], "image 0: .*bool"),
    ([torch.rand(40, 50, 3)], r"image 0: .*permute\(2, 0, 1\)"),
    ([IMAGE, torch.rand(4, 40, 50)], r"image 1: .*image\[:3\]"),
    ([IMAGE.to("meta")], r"image 0 lies on meta, but the model on cpu.*image\.to\('cpu'\)"),
    ([IMAGE, np.zeros((3, 40, 50), np.float32)], "image 1: .*not ndarray.*to_tensor"),
    (["street.jpg"], "image 0: .*not str.*to_tensor"),
]


@pytest.mark.parametrize(("images", "message"), BAD_IMAGES)
def test_images_that_cannot_be(model: Detector, images: Any, message: str) -> None:
    boxes = [BOXES] * len(images)
    for call in (
        lambda: model.train()(images, [{"boxes": BOXES, "ids": IDS}] * len(images)),
        lambda: model.eval()(images),
        lambda: model.eval().embed(images, boxes),
        lambda: model.eval().query_as_gallery(images, [BOXES[:1]] * len(images)),
    ):
        with pytest.raises(ArgumentError, match=message):
            call()


@pytest.mark.parametrize("kind", ["oim", "nae+", "seqnet"])
def test_optimized_copies_look_at_pixels_too(kind: str) -> None:
    fast = small_detector(kind, "resnet_tiny", **TINY).eval().optimize_for_inference()
    for wrong in (IMAGE * 255, IMAGE - 1, IMAGE * float("nan")):
        with pytest.raises(ArgumentError, match=r"image 0 holds.*0\.\.1"):
            fast([wrong])


@pytest.mark.parametrize(
    "pixels", [torch.zeros(3, 40, 50), torch.ones(3, 40, 50), IMAGE * 1.4 - 0.2, IMAGE.half(), IMAGE.double()]
)
def test_pixels_that_are_fine(model: Detector, pixels: Tensor) -> None:
    assert len(model.eval()([pixels, pixels])) == 2


@pytest.mark.parametrize("size", [(1, 1000), (3000, 2)])
def test_images_too_thin_to_be_resized(model: Detector, size: tuple[int, int]) -> None:
    """The longer side comes down to 160 pixels, so that nothing is left of the shorter one."""
    with pytest.raises(ArgumentError, match="image 1"):
        model.eval()([IMAGE, torch.rand(3, *size)])


# --------------------------------------------------------------------------------------------------------- targets


BAD_BOXES: list[tuple[Any, str]] = [
    (with_row([20, 2, 1, 30]), r"boxes: row 1 has no positive width and height: \[20.0, 2.0, 1.0, 30.0\]"),
    (with_row([1, 30, 20, 2]), "boxes: row 1 has no positive width and height"),
    (with_row([5, 5, 5, 9]), "boxes: row 1 has no positive width and height"),
    (with_row([1, 2, float("nan"), 30]), "boxes: row 1 is not finite"),
    (with_row([1, 2, float("inf"), 30]), "boxes: row 1 is not finite"),
    (with_row([1, 2, 3e38, 30]), "boxes: row 1 is too far from any image"),
    (with_row([-1e9, 2, 20, 30]), "boxes: row 1 is too far from any image"),
    (BOXES[0], r"boxes: expected \(N, 4\).*\(4,\)"),
    (BOXES[:, :3], r"boxes: expected \(N, 4\).*\(2, 3\)"),
    (BOXES.T, r"boxes: expected \(N, 4\).*\(4, 2\)"),
    (BOXES[None], r"boxes: expected \(N, 4\).*\(1, 2, 4\)"),
    (BOXES.tolist(), r"boxes: expected \(N, 4\).*list"),
    (BOXES.numpy(), r"boxes: expected \(N, 4\).*ndarray"),
    (None, r"boxes: expected \(N, 4\).*NoneType"),
]
BAD_TARGETS: list[tuple[Any, str]] = [
    *(({"boxes": boxes, "ids": IDS}, message) for boxes, message in BAD_BOXES),
    ({"boxes": BOXES}, "its target has no 'ids'; it has 'boxes'"),
    ({"ids": IDS}, "its target has no 'boxes'; it has 'ids'"),
    ({}, "its target has no 'boxes'; it has nothing"),
    ([BOXES, IDS], "its target must be a mapping, not list"),
    (None, "its target must be a mapping, not NoneType"),
    ({"boxes": BOXES, "ids": IDS.float()}, r"ids: expected \(2,\) whole numbers.*float32"),
    ({"boxes": BOXES, "ids": IDS.bool()}, r"ids: expected \(2,\) whole numbers.*bool"),
    ({"boxes": BOXES, "ids": torch.tensor([0, 1, 2])}, r"ids: expected \(2,\) whole numbers, one a box, not \(3,\)"),
    ({"boxes": BOXES, "ids": IDS[:, None]}, r"ids: expected \(2,\) whole numbers.*\(2, 1\)"),
    ({"boxes": BOXES, "ids": [0, -1]}, r"ids: expected \(2,\) whole numbers.*list"),
    ({"boxes": BOXES, "ids": torch.tensor([0, -2])}, r"ids: row 1 is -2; expected 0 \.\. 9, or -1"),
    ({"boxes": BOXES, "ids": torch.tensor([10, -1])}, r"ids: row 0 is 10; expected 0 \.\. 9, or -1"),
    ({"boxes": BOXES, "ids": torch.tensor([5554, -1])}, "ids: row 0 is 5554"),
    ({"boxes": BOXES, "ids": IDS, "labels": torch.tensor([1, 2])}, "labels: expected 2 times 1"),
    ({"boxes": BOXES, "ids": IDS, "labels": torch.tensor([0, 1])}, "labels: expected 2 times 1"),
    ({"boxes": BOXES, "ids": IDS, "labels": torch.tensor([1])}, "labels: expected 2 times 1"),
    ({"boxes": BOXES, "ids": IDS, "labels": [1, 1]}, "labels: expected 2 times 1"),
]


@pytest.mark.parametrize(("target", "message"), BAD_TARGETS)
def test_targets_that_cannot_be(model: Detector, target: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"image 1: {message}"):
        model.train()([IMAGE, IMAGE], [{"boxes": BOXES, "ids": IDS}, target])


@pytest.mark.parametrize(
    ("images", "targets", "message"),
    [
        ([IMAGE], None, "targets are missing"),
        ([IMAGE, IMAGE], [{"boxes": BOXES, "ids": IDS}], "targets: expected one for each of the 2 images, not 1"),
        ([IMAGE], [], "targets: expected one for each of the 1 images, not 0"),
        ([], [], "images: training needs at least one"),
    ],
)
def test_targets_that_do_not_belong_to_the_images(model: Detector, images: Any, targets: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        model.train()(images, targets)


def test_prws_own_numbering_reaches_into_the_queue() -> None:
    """482 rows, of which the two largest numbers stand beyond; contiguous numbering allows neither."""
    original, contiguous = (
        small_detector("nae", "shufflenetv1", **{**PRW, "identity_numbering": numbering})
        for numbering in ("original", "contiguous")
    )
    last = torch.tensor([481, 931])
    with pytest.raises(ArgumentError, match=r"image 0: ids: row 1 is 931; expected 0 \.\. 481"):
        contiguous.train()([IMAGE], [{"boxes": BOXES, "ids": last}])
    losses = original.train()([IMAGE], [{"boxes": BOXES, "ids": last}])
    assert losses["loss_box_reid"].isfinite()  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match=r"row 1 is 982; expected 0 \.\. 981"):
        original([IMAGE], [{"boxes": BOXES, "ids": torch.tensor([481, 982])}])


def test_a_refused_batch_leaves_no_trace() -> None:
    model = small_detector("nae", "shufflenetv1").train()
    assert isinstance(model, NAE)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ArgumentError):
        model([IMAGE], [{"boxes": BOXES, "ids": torch.tensor([0, 99])}])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_region_names_the_settings(kind: str) -> None:
    """Raising either works; and a batch norm in eval mode measures nothing."""
    target = {"boxes": BOXES, "ids": IDS}
    model = small_detector(kind, "resnet_tiny", **{**TINY, "region_samples": 1}).train()
    with pytest.raises(ArgumentError, match=r"single region\. Raise region_samples, which is 1 .*more images.*there are 1"):
        model([IMAGE], [target])
    assert isinstance(model([IMAGE, IMAGE], [target, target]), dict)
    model.config = model.config.changed({"region_samples": 2})
    assert isinstance(model([IMAGE], [target]), dict)
    model.config = model.config.changed({"region_samples": 1})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()
    assert isinstance(model([IMAGE], [target]), dict)


# --------------------------------------------------------------------------------------------------------- queries


@pytest.mark.parametrize(("boxes", "message"), BAD_BOXES)
def test_query_boxes_that_cannot_be(model: Detector, boxes: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"image 1: {message}"):
        model.eval().embed([IMAGE, IMAGE], [BOXES, boxes])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_query_boxes_that_do_not_belong_to_the_images(model: Detector, count: int) -> None:
    model.eval()
    with pytest.raises(ArgumentError, match=f"boxes: expected one tensor for each of the 2 images, not {count}"):
        model.embed([IMAGE, IMAGE], [BOXES] * count)
    with pytest.raises(ArgumentError, match=f"boxes: expected one tensor for each of the 2 images, not {count}"):
        model.query_as_gallery([IMAGE, IMAGE], [BOXES[:1]] * count)


def test_a_query_image_has_one_person_searched_for(model: Detector) -> None:
    with pytest.raises(ArgumentError, match="image 1: boxes: expected the one person searched for, not 2"):
        model.eval().query_as_gallery([IMAGE, IMAGE], [BOXES[:1], BOXES])
    with pytest.raises(ArgumentError, match="image 0: boxes: expected the one person searched for, not 0"):
        model.query_as_gallery([IMAGE], [BOXES[:0]])


@pytest.mark.parametrize(("boxes", "message"), BAD_BOXES[1:5] + BAD_BOXES[-3:])
def test_people_searched_for_that_cannot_be(model: Detector, boxes: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"image 1: {message}"):
        model.eval().query_as_gallery([IMAGE, IMAGE], [BOXES[:1], boxes])
