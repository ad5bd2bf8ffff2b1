"""`evaluate`: a model measured on a data set by the field's protocols, in one call.

    import pretrainps

    measured = pretrainps.evaluate(NAME, "PRW-v16.04.20", "prw-cbgm")
    print(measured.words())
    measured.search.mAP

The command `pretrainps evaluate`, fine-tuning, the demo and `examples/evaluate_prw.py` all measure by this call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from pretrainps.data.batching import identities_of
from pretrainps.data.records import SearchSet, Split
from pretrainps.detectors import PersonSearchDetector
from pretrainps.download.cache import default_root
from pretrainps.errors import ArgumentError
from pretrainps.evaluation.coco import CocoResult, evaluate_coco
from pretrainps.evaluation.detection import DetectionResult, evaluate_detection
from pretrainps.evaluation.galleries import require_suitable
from pretrainps.evaluation.miss_rate import MissRateResult, evaluate_miss_rate
from pretrainps.evaluation.protocols import SearchProtocol
from pretrainps.evaluation.ranking_sheet import ranking_sheet
from pretrainps.evaluation.reid import ReidResult, evaluate_reid
from pretrainps.evaluation.report import EvaluationResult, report
from pretrainps.evaluation.search import SearchResult, evaluate_search
from pretrainps.evaluation.selection import (
    EvaluationSet,
    ReidSet,
    dataset_of,
    first_of,
    ignore_iou_of,
    miss_rate_of,
    protocol_for,
    read_evaluation_set,
    require_task,
    task_of,
)
from pretrainps.heads import CropModel
from pretrainps.hub.load import load
from pretrainps.inference.detections import Detections
from pretrainps.inference.extraction import Extractor
from pretrainps.inference.runner import Precision
from pretrainps.weights.unwrap import unwrap

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Evaluation:
    """What `evaluate` computed. Which results there are depends on what the data set is for."""

    dataset: str
    """Name of the data set's layout."""
    search: SearchResult | None = None
    """For search: how well people are found again."""
    detection: DetectionResult | None = None
    """For search and detection: how well people are detected, as person-search papers count it."""
    coco: CocoResult | None = None
    """For detection: COCO's average precisions."""
    miss_rate: MissRateResult | None = None
    """For detection: the miss rate that belongs to the data set."""
    reid: ReidResult | None = None
    """For re-ID: how well crops are found again."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""
    data: EvaluationSet = field(repr=False)
    """What was evaluated on."""
    detections: Detections | None = field(default=None, repr=False)
    """For search and detection: what the model detected in each image."""

    @property
    def results(self) -> dict[str, EvaluationResult]:
        """The results by the names that the command prints."""
        detection = "detection" if self.coco is None else "person search's"
        named = {
            "search": self.search,
            "coco": self.coco,
            "miss rate": self.miss_rate,
            detection: self.detection,
            "re-ID": self.reid,
        }
        return {name: result for name, result in named.items() if result is not None}

    def words(self) -> str:
        """Return each protocol in words, and its numbers below it."""
        lines = []
        for name, result in self.results.items():
            numbers = report(result)
            lines.append(f"{name}: {numbers['protocol']}")
            lines.append("  " + "  ".join(f"{key} {value:.4f}" for key, value in numbers.items() if isinstance(value, float)))
            counts = {
                key.removeprefix("num_").replace("_", " "): value for key, value in numbers.items() if isinstance(value, int)
            }
            lines.append("  " + ", ".join(f"{value:,} {key}" for key, value in counts.items()))
        return "\n".join(lines)

    def to_json(self, *, per_query: bool = False) -> dict[str, Any]:
        """Return everything as JSON-ready values; see `report`."""
        results = {name: report(result, per_query=per_query) for name, result in self.results.items()}
        return {"layout": self.dataset, **results, "notes": list(self.notes)}

    def sheet(self, *, queries: int = 12, answers: int = 8) -> Image.Image:
        """Draw the worst queries of a search and their best answers. It needs `ranking=answers` in `evaluate`.

        Raises:
            ArgumentError: it was no search, or no ranking was asked for.
        """
        if self.search is None or self.detections is None or not isinstance(self.data, SearchSet):
            raise ArgumentError("a sheet shows queries of a search, and this data set is for something else.")
        return ranking_sheet(self.data, self.detections, self.search, queries=queries, answers=answers)


def evaluate(
    model: str | PersonSearchDetector[Any] | CropModel,
    data: Path | str | EvaluationSet,
    protocol: SearchProtocol | str | None = None,
    *,
    layout: str | None = None,
    split: str | None = None,
    gallery: int | Literal["full"] | None = None,
    cbgm: bool = False,
    annotated_boxes: bool = False,
    limit: int | None = None,
    ranking: int = 0,
    detections: Detections | None = None,
    config: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    precision: Precision = "float32",
    on_damage: Literal["stop", "skip"] = "stop",
    features: Path | str | None = None,
    force: bool = False,
    device: str = "cpu",
    offline: bool | None = None,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Evaluation:
    """Run a model over a data set and compute the numbers that papers print.

    A detector is measured on sets for search and for detection, and on re-ID crops by its embeddings. A model of crops is
    measured on re-ID, and on a search with the annotated boxes.

    Args:
        model: A detector, or a model of crops with an embedding head, in eval mode; or a name as `pretrainps.load` takes it.
            A backbone's name stands for the backbone with the plain embedding head.
        data: The data set's folder, or what was read from one.
        protocol: How a search is judged: a name of `PROTOCOLS`, or a protocol of your own. `None` takes the data set's own.
        layout: With a folder: what the data set is, if it is not recognized.
        split: With a folder of a set for detection: which split. `None` takes the last.
        gallery: For search: the size of each query's list, or "full".
        cbgm: For search: add context matching, with the numbers that are published for the data set.
        annotated_boxes: For search: the gallery's people as annotated instead of detected, an upper bound.
        limit: Evaluate the first so many queries only (search, re-ID), or images (detection).
        ranking: For search: how many answers a query to keep, for pictures.
        detections: For search and detection: what the model detects in each image, if that is known already.
        config: Settings of a detector instead of its own, such as `{"score_threshold": 0.2}`.
        batch_size: Images of one size in a forward pass.
        precision: Of a detector's optimized copy.
        on_damage: What an image that cannot be read does: "stop" raises; "skip" counts it as an image without people.
        features: A folder in which features are kept, by the model's and the data's hash, so that an interrupted run
            continues. `None` keeps none; `feature_folder()` is the command's.
        force: Read a data set that its owners have withdrawn.
        device: With a name: where the model is put.
        offline: With a name: never use the network. `None` follows `PRETRAINPS_OFFLINE` and `HF_HUB_OFFLINE`.
        progress: Show progress bars.
        say: Gets remarks as they come: the notes of the result and, with `progress`, what was loaded.

    Raises:
        ArgumentError: a model that cannot do what the data set needs, or options that do not suit it. Whatever the data set
            lacks is said before a model is loaded.
        DatasetError: the data set is not as its layout wants it, or an image cannot be read.
        MissingPackageError: context matching without scipy.
    """
    if not isinstance(data, Path | str):
        if layout is not None or split is not None:
            raise ArgumentError("layout= and split= are for a folder, and this data set was read already. Leave them out.")
        tested = data
    else:
        tested = read_evaluation_set(data, layout=layout, split=split, force=force)
    task, dataset = task_of(tested), dataset_of(tested)
    searching = {"protocol": protocol, "gallery": gallery, "cbgm": cbgm, "annotated_boxes": annotated_boxes, "ranking": ranking}
    for option in (name for name, value in searching.items() if value):
        require_task(option, task, "search", dataset)
    if detections is not None and (annotated_boxes or task == "reid"):
        raise ArgumentError("detections= does not go with annotated boxes or crops. Leave it out.")
    measuring = _Measuring(say)
    if limit is not None:
        tested = measuring.noted(*first_of(tested, limit))
    if isinstance(tested, SearchSet):
        chosen = measuring.noted(*protocol_for(tested, protocol, gallery=gallery, cbgm=cbgm))
        require_suitable(tested, chosen)
    ready = _model(model, config, device=device, offline=offline, progress=progress, say=say)
    detects = task == "detection" or (isinstance(tested, SearchSet) and (not annotated_boxes or chosen.context is not None))
    if detects and isinstance(unwrap(ready), CropModel):
        raise ArgumentError(
            f"{model if isinstance(model, str) else 'this model'} embeds crops and does not detect people. Use a detector; or "
            "search by the annotated boxes (annotated_boxes=True, on the command line --annotated-boxes)."
        )
    extractor = Extractor(
        ready,
        folder=None if features is None else Path(features).expanduser(),
        batch_size=batch_size,
        precision=precision,
        on_damage=on_damage,
        progress=progress,
    )
    if isinstance(tested, SearchSet):
        if annotated_boxes:
            detections = extractor.annotated(tested.gallery)
        return measuring.search(extractor, tested, chosen, detections, ranking)
    if isinstance(tested, ReidSet):
        return measuring.reid(extractor, tested)
    return measuring.detection(extractor, tested.with_sizes(skip_unreadable=on_damage == "skip"), detections)


def feature_folder() -> Path:
    """Return the folder in the cache in which `pretrainps evaluate` keeps features."""
    return default_root() / "features"


def _model(
    model: str | PersonSearchDetector[Any] | CropModel,
    config: Mapping[str, Any] | None,
    *,
    device: str,
    offline: bool | None,
    progress: bool,
    say: Callable[[str], None] | None,
) -> PersonSearchDetector[Any] | CropModel:
    """Return the model with its settings, loaded if a name is given."""
    if not isinstance(model, str):
        bare = unwrap(model)
        if not config:
            return model
        if not isinstance(bare, PersonSearchDetector):
            raise ArgumentError(f"config= is for detectors, and this is a {type(bare).__name__}. Leave it out.")
        return bare.configured(**config)
    loaded = load(model, config=config, device=device, offline=offline, progress=progress)
    if not isinstance(loaded, PersonSearchDetector | CropModel):
        loaded = load(model, head="embedding", device=device, offline=offline, progress=progress)
        assert isinstance(loaded, CropModel)
    if say is not None and progress:
        say(str(loaded.load_report))
    return loaded


class _Measuring:
    """Computes the results of one evaluation, and remembers what a reader of them should know.

    Args:
        say: Gets each note as it comes.
    """

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self.say = say
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
        if self.say is not None:
            self.say(f"note: {text}")

    def noted(self, value: Value, text: str | None) -> Value:
        """Return a value, and remember the note about it if there is one."""
        if text is not None:
            self.note(text)
        return value

    def search(
        self,
        extractor: Extractor,
        search_set: SearchSet,
        protocol: SearchProtocol,
        detections: Detections | None,
        ranking: int,
    ) -> Evaluation:
        """Measure person search, and detection unless the boxes are the annotated ones."""
        table = extractor.detections(search_set.gallery) if detections is None else detections
        if not table.annotated:
            self._compare_threshold(table, protocol.name, protocol.min_score)
        by_box = protocol.query == "annotated_box"
        search = evaluate_search(
            search_set,
            table,
            protocol,
            query_embeddings=extractor.queries(search_set) if by_box else None,
            query_detections=extractor.contexts(search_set) if by_box and protocol.context is not None else None,
            ranking=ranking,
        )
        dataset = dataset_of(search_set)
        detection = None
        if not table.annotated:
            detection = evaluate_detection(search_set.gallery, table, ignore_iou=ignore_iou_of(dataset))
        return Evaluation(
            dataset=dataset, search=search, detection=detection, data=search_set, detections=table, notes=tuple(self.notes)
        )

    def detection(self, extractor: Extractor, split: Split, detections: Detections | None) -> Evaluation:
        """Measure detection in the three ways that are in use."""
        table = extractor.detections(split) if detections is None else detections
        self._compare_threshold(table, "average precision and miss rate", 0.0)
        variant, setup = miss_rate_of(split.dataset)
        return Evaluation(
            dataset=split.dataset,
            coco=evaluate_coco(split, table),
            miss_rate=evaluate_miss_rate(split, table, variant=variant, setup=setup),
            detection=evaluate_detection(split, table),
            data=split,
            detections=table,
            notes=tuple(self.notes),
        )

    def reid(self, extractor: Extractor, data: ReidSet) -> Evaluation:
        """Measure re-identification, without the cameras if one of them is not known."""
        parts = (data.query, data.gallery)
        cameras = [[sample.camera for sample in part.samples] for part in parts]
        unknown = (cameras[0] + cameras[1]).count(None)
        if 0 < unknown < len(data.query) + len(data.gallery):
            self.note(f"the camera of {unknown} images is not known, so images of the query's own camera are not left out")
        sides: list[Any] = []
        for part, places in zip(parts, cameras, strict=True):
            sides += [extractor.crops(part), identities_of(part), None if unknown else places]
        return Evaluation(dataset=dataset_of(data), reid=evaluate_reid(*sides), data=data, notes=tuple(self.notes))

    def _compare_threshold(self, table: Detections, what: str, min_score: float) -> None:
        """Note that the detector keeps less than a protocol takes, and how to measure by it."""
        if table.kept_above is not None and table.kept_above > min_score:
            taken = f"of score {min_score:g} and above" if min_score > 0 else "of any score"
            self.note(
                f"{what}: detections {taken} take part, but the detector keeps only those above {table.kept_above:g}. "
                f"To have all: config={{'score_threshold': {min_score:g}}}, on the command line --set "
                f"score_threshold={min_score:g}"
            )
