"""Heads on top of a backbone."""

from pretrainps.heads.crops import ClassifierHead as ClassifierHead
from pretrainps.heads.crops import CropModel as CropModel
from pretrainps.heads.crops import EmbeddingHead as EmbeddingHead
from pretrainps.heads.crops import build_head as build_head
