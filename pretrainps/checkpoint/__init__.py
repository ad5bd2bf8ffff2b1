"""Read checkpoints safely, map key layouts, report coverage, write reproducible safetensors."""

from pretrainps.checkpoint.convert import Adapted as Adapted
from pretrainps.checkpoint.convert import Adapter as Adapter
from pretrainps.checkpoint.convert import NativeCheckpoint as NativeCheckpoint
from pretrainps.checkpoint.convert import convert as convert
from pretrainps.checkpoint.convert import native_checkpoint as native_checkpoint
from pretrainps.checkpoint.read import read_object as read_object
from pretrainps.checkpoint.read import read_tensors as read_tensors
from pretrainps.checkpoint.report import LoadReport as LoadReport
from pretrainps.checkpoint.report import compare as compare
from pretrainps.checkpoint.report import require_complete as require_complete
from pretrainps.checkpoint.write import read_metadata as read_metadata
from pretrainps.checkpoint.write import write_safetensors as write_safetensors
