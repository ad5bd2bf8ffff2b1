"""Weight files: read checkpoints safely, map key layouts, compare with a model, write reproducible safetensors."""

from pretrainps.weights.compare import compare as compare
from pretrainps.weights.compare import require_complete as require_complete
from pretrainps.weights.convert import Adapted as Adapted
from pretrainps.weights.convert import Adapter as Adapter
from pretrainps.weights.convert import NativeCheckpoint as NativeCheckpoint
from pretrainps.weights.convert import convert as convert
from pretrainps.weights.convert import native_checkpoint as native_checkpoint
from pretrainps.weights.read import read_object as read_object
from pretrainps.weights.read import read_tensors as read_tensors
from pretrainps.weights.report import LoadReport as LoadReport
from pretrainps.weights.write import read_metadata as read_metadata
from pretrainps.weights.write import write_safetensors as write_safetensors
