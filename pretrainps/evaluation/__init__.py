"""The field's protocols: detection, re-identification and person search.

Everything here works on numpy arrays: a `Split` or `SearchSet` says what is there, a `Detections` what was found.
"""

from pretrainps.evaluation.average_precision import average_precision as average_precision
from pretrainps.evaluation.coco import CocoResult as CocoResult
from pretrainps.evaluation.coco import evaluate_coco as evaluate_coco
from pretrainps.evaluation.detection import DetectionResult as DetectionResult
from pretrainps.evaluation.detection import evaluate_detection as evaluate_detection
from pretrainps.evaluation.galleries import require_suitable as require_suitable
from pretrainps.evaluation.miss_rate import MissRateResult as MissRateResult
from pretrainps.evaluation.miss_rate import evaluate_miss_rate as evaluate_miss_rate
from pretrainps.evaluation.protocols import PROTOCOLS as PROTOCOLS
from pretrainps.evaluation.protocols import ContextMatching as ContextMatching
from pretrainps.evaluation.protocols import SearchProtocol as SearchProtocol
from pretrainps.evaluation.protocols import protocol as protocol
from pretrainps.evaluation.reid import ReidResult as ReidResult
from pretrainps.evaluation.reid import evaluate_reid as evaluate_reid
from pretrainps.evaluation.report import report as report
from pretrainps.evaluation.search import SearchResult as SearchResult
from pretrainps.evaluation.search import evaluate_search as evaluate_search
from pretrainps.inference.detections import Detections as Detections
