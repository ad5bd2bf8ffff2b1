"""Backbones: named maps c2 to c5, split into a trunk (stride 16) and a last stage (stride 32)."""

from pretrainps.backbones.base import Backbone as Backbone
from pretrainps.backbones.base import FeatureInfo as FeatureInfo
from pretrainps.backbones.registry import ARCHITECTURES as ARCHITECTURES
from pretrainps.backbones.registry import build_backbone as build_backbone
