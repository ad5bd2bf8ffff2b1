"""Search your own images: the people in a folder or a video, and where else a person is seen."""

from pretrainps.gallery.detection_ids import parse_detection_id as parse_detection_id
from pretrainps.gallery.gallery import Gallery as Gallery
from pretrainps.gallery.indexing import IndexReport as IndexReport
from pretrainps.gallery.results import Box as Box
from pretrainps.gallery.results import Detection as Detection
from pretrainps.gallery.results import Hit as Hit
from pretrainps.gallery.results import SearchResult as SearchResult
from pretrainps.gallery.search.protocol import DetectionFilter as DetectionFilter
from pretrainps.gallery.search.protocol import VectorIndex as VectorIndex
from pretrainps.gallery.search.protocol import VectorIndexType as VectorIndexType
from pretrainps.gallery.search.registry import register_vector_index as register_vector_index
from pretrainps.gallery.search.registry import unregister_vector_index as unregister_vector_index
from pretrainps.gallery.storage.protocol import DetectionStore as DetectionStore
from pretrainps.gallery.storage.protocol import StoreWriter as StoreWriter
from pretrainps.gallery.storage.registry import register_detection_store as register_detection_store
from pretrainps.gallery.storage.registry import unregister_detection_store as unregister_detection_store
from pretrainps.gallery.storage.stored import StoredDetections as StoredDetections
