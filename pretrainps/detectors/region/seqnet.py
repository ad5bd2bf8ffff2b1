"""SeqNet: find people first, then look at each of them again.

Li & Miao, "Sequential End-to-end Network for Efficient Person Search", AAAI 2021; formulas of
github.com/serend1p1ty/SeqNet (models/seqnet.py) at edec285.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.detectors.finite import made_finite, require_finite, spoiled_by
from pretrainps.detectors.found import Detections, filter_detections
from pretrainps.detectors.region.base import RegionDetector
from pretrainps.detectors.region.config import RegionConfig
from pretrainps.detectors.region.original_names import HEADS, backbone_from_native, backbone_to_native, from_native, to_native
from pretrainps.detectors.region.recognition import SIGNATURE_KEYS, TABLES, sizes_of_tables
from pretrainps.detectors.region.roi_stage import box_loss, decode_boxes
from pretrainps.detectors.registry import DetectorEntry, FinetuneDefaults, register_detector
from pretrainps.detectors.transform import Size
from pretrainps.errors import LayoutError
from pretrainps.heads.boxes import BatchNormBoxHead, SoftmaxBoxHead
from pretrainps.heads.norm_aware import NormAwareEmbedding
from pretrainps.registry.specs import InputConvention
from pretrainps.weights.key_layout import KeyLayout, Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class SeqNetConfig(RegionConfig):
    """SeqNet's settings; `nms_iou` and the sampling hold for both stages unless said otherwise."""

    second_nms_iou: float = 0.5
    """Overlap above which the weaker of two goes, after the second stage."""
    weight_proposal_cls: float = 1.0
    """Weight of the first stage's loss of person or not,"""
    weight_proposal_reg: float = 10.0
    """and of its boxes."""
    weight_box_reg: float = 1.0
    """Weight of the second stage's boxes."""


class SeqNet(RegionDetector[SeqNetConfig]):
    """A softmax detector, and a norm-aware embedding on what it finds.

    A person's score at test time is the first stage's; the embedding's norm is only trained to tell people from background.

    Losses: `loss_rpn_cls`, `loss_rpn_reg`; `loss_proposal_cls`, `loss_proposal_reg` of the first stage; `loss_box_cls`,
    `loss_box_reg`, `loss_box_reid` of the second. The names are the original's.

    Example:
        >>> import torch, pretrainps
        >>> from pretrainps.backbones import build_backbone
        >>> model = pretrainps.build_detector("seqnet", backbone=build_backbone("shufflenetv1"), num_identities=10).eval()
        >>> (people,) = model([torch.rand(3, 96, 128)])
        >>> sorted(people)
        ['boxes', 'embeddings', 'labels', 'scores']
        >>> (vectors,) = model.embed([torch.rand(3, 96, 128)], [torch.tensor([[10, 10, 40, 90]])])
        >>> tuple(vectors.shape)
        (1, 256)
    """

    kind = "seqnet"
    unused_by_embed = ("rpn", "box_stage", "proposal_head")

    def __init__(self, backbone: Backbone, config: SeqNetConfig, convention: InputConvention) -> None:
        super().__init__(backbone, config, convention)
        channels = backbone.channels
        self.reid_stage = copy.deepcopy(self.box_stage)
        self.proposal_head = SoftmaxBoxHead(channels["c5"])
        self.box_head = BatchNormBoxHead(channels["c5"])
        self.embedding_head = NormAwareEmbedding({"c4": channels["c4"], "c5": channels["c5"]}, config.embedding_dim)

    def _region_losses(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], targets: list[dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        first = self.sampler(proposals, targets)
        class_logits, first_deltas = self._first_stage(features, first.boxes)
        found = decode_boxes(first.boxes, made_finite(first_deltas.detach()), sizes)
        second = self.sampler(found, targets)
        self._require_measurable(second)
        embeddings, logits, deltas = self._second_stage(features, second.boxes)
        people = second.labels > 0
        return {
            "loss_proposal_cls": F.cross_entropy(class_logits, first.labels),
            "loss_proposal_reg": spoiled_by(box_loss(first_deltas, first), first_deltas),
            "loss_box_cls": F.binary_cross_entropy_with_logits(logits, second.labels.float()),
            "loss_box_reg": box_loss(deltas, second),
            "loss_box_reid": self.oim_loss(embeddings[people], second.ids[people]),
        }

    def _detect(
        self, features: Tensor, proposals: list[Tensor], sizes: list[Size], query_boxes: list[Tensor] | None
    ) -> list[Detections]:
        class_logits, deltas = self._first_stage(features, proposals)
        require_finite("scores and boxes of the first stage", class_logits, deltas)
        scores = class_logits.softmax(dim=1)[:, 1].split([each.shape[0] for each in proposals])
        candidates = [Detections(*pair) for pair in zip(decode_boxes(proposals, deltas, sizes), scores, strict=True)]
        config = self.config
        found = [
            filter_detections(each, threshold=config.score_threshold, nms_iou=config.nms_iou, most=config.max_detections)
            for each in candidates
        ]
        boxes = [each.boxes for each in found]
        embeddings, _, deltas = self._second_stage(features, boxes)
        require_finite("embeddings and boxes", embeddings, deltas)
        if config.score_weighting and query_boxes is None:
            embeddings = embeddings * torch.cat([each.scores for each in found])[:, None]
        parts = embeddings.split([each.shape[0] for each in boxes])
        moved = decode_boxes(boxes, deltas, sizes)
        query_detections = self._query_detections(features, query_boxes, len(proposals))
        return [
            filter_detections(
                Detections(moved[image], each.scores, parts[image]),
                threshold=config.score_threshold,
                nms_iou=config.second_nms_iou,
                most=config.max_detections,
                first=query_detections[image],
            )
            for image, each in enumerate(found)
        ]

    def _embed(self, features: Tensor, boxes: list[Tensor]) -> Tensor:
        return self._second_stage(features, boxes)[0]

    def _first_stage(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return class logits (R, 2) and box deltas (R, 4)."""
        pooled = self.box_stage(features, boxes, with_c4=False).pooled(self.config.pooling)
        logits, deltas = self.proposal_head(pooled["c5"])
        return logits, deltas

    def _second_stage(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return unit embeddings (R, dim), logits of being a person (R,) and box deltas (R, 4)."""
        if torch.compiler.is_exporting():
            # the first stage may find nobody, which neither an exporter nor every runtime can put through a convolution: a
            # graph looks at one region more than there are
            (found,) = boxes
            embeddings, logits, deltas = self._read(features, [torch.cat([found, found.new_zeros(1, 4)])])
            return embeddings[:-1], logits[:-1], deltas[:-1]
        return self._read(features, boxes)

    def _read(self, features: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        pooled = self.reid_stage(features, boxes, with_c4=True).pooled(self.config.pooling)
        embeddings, logits = self.embedding_head(pooled)
        return embeddings, logits, self.box_head(pooled["c5"])


def _from_two_copies(tensors: Tensors) -> Tensors:
    """Convert a backbone with two copies of layer4. If the two differ, it is a part of a trained SeqNet."""
    heads = ("roi_heads.box_head.", "roi_heads.reid_head.")
    first, second = ({key.removeprefix(head): tensors[key] for key in tensors if key.startswith(head)} for head in heads)
    if not (first and second):
        return backbone_to_native(tensors)
    if first.keys() != second.keys() or not all(torch.equal(value, second[key]) for key, value in first.items()):
        raise LayoutError(
            "its two copies of layer4 (box_head, reid_head) differ: it is part of a trained SeqNet. To take the box head's, "
            "give arch= (--arch), the backbone's architecture."
        )
    return backbone_to_native({key: value for key, value in tensors.items() if not key.startswith(heads[1])})


_LAYOUT = KeyLayout(
    name="seqnet",
    to_native=to_native,
    from_native=from_native,
    wrapper=("model",),
    use="model.load_state_dict({state})  # the whole detector, strictly",
)
"""The names in the files of the original."""
_BACKBONE = KeyLayout(
    name="seqnet",
    to_native=_from_two_copies,
    from_native=lambda tensors: backbone_from_native(tensors, heads=("box_head", "reid_head")),
    wrapper=("model",),
    heads=(*HEADS, "roi_heads.faster_rcnn_predictor.*", "roi_heads.reid_head.*"),
    use="model.load_state_dict({state}, strict=False)  # heads are missing, the backbone is whole",
)
"""A ResNet under the names that it has inside the original, which holds two copies of its last stage."""

register_detector(
    DetectorEntry(
        name="seqnet",
        model=SeqNet,
        config=SeqNetConfig,
        key_layouts={"resnet": (_LAYOUT,)},
        backbone_key_layouts={"resnet": (_BACKBONE,)},
        signature_keys=SIGNATURE_KEYS,
        sizes=sizes_of_tables,
        tables=TABLES,
        pretrained_heads={"rpn": "rpn", "box_head": "proposal_head", "embedding_head": "embedding_head"},
        recipes={
            "seqnet_cuhk": FinetuneDefaults(
                summary="SeqNet on CUHK-SYSU, as its authors trained it: 20 epochs, a queue of 5000.",
                protocol="cuhk-sysu",
                config={"queue_size": 5000},
                epochs=20,
            ),
            "seqnet_prw": FinetuneDefaults(
                summary="SeqNet on PRW, as its authors trained it: 18 epochs, a queue of 500.",
                protocol="prw",
                config={"queue_size": 500},
                epochs=18,
            ),
            "seqnet_posetrack21": FinetuneDefaults(
                summary="SeqNet on PoseTrack21, with PRW's settings.",
                protocol="posetrack21",
                config={"queue_size": 500},
                epochs=18,
            ),
            "own_search": FinetuneDefaults(
                summary="SeqNet on your own scenes (`coco_search`), with PRW's settings.",
                protocol="frames",
                config={"queue_size": 500},
                epochs=18,
            ),
            "seqnet_synthetic": FinetuneDefaults(
                summary="SeqNet on the synthetic world's scenes, small enough for a CPU.",
                protocol="frames",
                config={"weight_proposal_reg": 2.0},  # weighed by 10, the boxes of so small a network drown who is who
                small=True,
            ),
        },
    )
)
