"""NAE: the norm of a person's vector is the detection score, its direction the identity.

Chen et al., "Norm-Aware Embedding for Efficient Person Search", CVPR 2020; formulas of github.com/dichen-cd/NAE4PS
(lib/model/faster_rcnn_norm_aware.py) at ec43d1e.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from pretrainps.backbones import Backbone
from pretrainps.detectors.region.original_names import HEADS, backbone_from_native, backbone_to_native, from_native, to_native
from pretrainps.detectors.region.parallel_heads import ParallelHeadsConfig, ParallelHeadsDetector, RegionReadings
from pretrainps.detectors.region.recognition import SIGNATURE_KEYS, TABLES, sizes_of_tables
from pretrainps.detectors.region.roi_stage import RegionMaps, Samples
from pretrainps.detectors.registry import DetectorEntry, FinetuneDefaults, register_detector
from pretrainps.heads.boxes import BatchNormBoxHead
from pretrainps.heads.norm_aware import NormAwareEmbedding
from pretrainps.registry.specs import InputConvention
from pretrainps.weights.key_layout import KeyLayout, Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class NAEConfig(ParallelHeadsConfig):
    """NAE's settings."""


class NAE(ParallelHeadsDetector[NAEConfig]):
    """Norm-aware embeddings of proposals; no other classifier.

    Losses: `loss_rpn_cls`, `loss_rpn_reg` (the original's loss_objectness and loss_rpn_box_reg), `loss_box_cls`
    (loss_detection), `loss_box_reg`, `loss_box_reid` (loss_reid).
    """

    kind = "nae"

    def __init__(self, backbone: Backbone, config: NAEConfig, convention: InputConvention) -> None:
        super().__init__(backbone, config, convention)
        channels = backbone.channels
        self.box_head = BatchNormBoxHead(channels["c5"])
        self.embedding_head = NormAwareEmbedding({"c4": channels["c4"], "c5": channels["c5"]}, config.embedding_dim)

    def _read(self, maps: RegionMaps) -> RegionReadings:
        pooled = maps.pooled(self.config.pooling)
        embeddings, logits = self.embedding_head(pooled)
        return RegionReadings(logits, self.box_head(pooled["c5"]), embeddings)

    def _scores(self, logits: Tensor, counts: list[int]) -> Tensor:
        return logits.sigmoid()

    def _classification_loss(self, logits: Tensor, samples: Samples, targets: list[dict[str, Tensor]]) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, samples.labels.float())


_UNUSED = "roi_heads.box_predictor.cls_score"
"""A classifier in NAE's files that is not used."""


def _with_classifier(tensors: Tensors) -> Tensors:
    """Add the unused classifier, as zeros: NAE4PS loads strictly."""
    renamed = from_native(tensors)
    regressor = renamed.get("roi_heads.box_predictor.bbox_pred.0.weight")
    if regressor is None:
        return renamed
    return {
        **renamed,
        f"{_UNUSED}.weight": regressor.new_zeros(2, regressor.shape[1]),
        f"{_UNUSED}.bias": regressor.new_zeros(2),
    }


NAE4PS_LAYOUT = KeyLayout(
    name="nae",
    to_native=to_native,
    from_native=_with_classifier,
    wrapper=("model",),
    unused=(f"{_UNUSED}.weight", f"{_UNUSED}.bias"),
    use="model.load_state_dict({state})  # the whole detector, strictly",
)
"""The names in the files of NAE4PS, the code base of this detector and of its pixel-wise variant."""
_BACKBONE = KeyLayout(
    name="nae",
    to_native=backbone_to_native,
    from_native=lambda tensors: backbone_from_native(tensors, heads=("box_head",)),
    wrapper=("model",),
    heads=HEADS,
    use="model.load_state_dict({state}, strict=False)  # heads are missing, the backbone is whole",
)
"""A ResNet under the names that it has inside NAE4PS."""

register_detector(
    DetectorEntry(
        name="nae",
        model=NAE,
        config=NAEConfig,
        key_layouts={"resnet": (NAE4PS_LAYOUT,)},
        backbone_key_layouts={"resnet": (_BACKBONE,)},
        signature_keys=SIGNATURE_KEYS,
        sizes=sizes_of_tables,
        tables=TABLES,
        pretrained_heads={"rpn": "rpn", "embedding_head": "embedding_head"},
        recipes={
            "nae_cuhk": FinetuneDefaults(
                summary="NAE on CUHK-SYSU, as its authors trained it: 22 epochs, a queue of 5000, no decay of biases.",
                protocol="cuhk-sysu",
                config={"queue_size": 5000},
                epochs=22,
                decay="no_biases",
            ),
            "nae_prw": FinetuneDefaults(
                summary="NAE on PRW, as its authors trained it: 22 epochs, a queue of 500, no decay of biases.",
                protocol="prw",
                config={"queue_size": 500},
                epochs=22,
                decay="no_biases",
            ),
            "nae_synthetic": FinetuneDefaults(
                summary="NAE on the synthetic world's scenes, small enough for a CPU.",
                protocol="frames",
                # a box loss weighed by 10 would drown the identities of so small a network. The length of a vector tells people
                # from background, and identities pull at the same vector: with a weight of 1, they would win
                config={"weight_box_reg": 2.0, "weight_box_cls": 10.0},
                small=True,
            ),
        },
    )
)
