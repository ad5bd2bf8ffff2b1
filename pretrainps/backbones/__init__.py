"""Backbones with named maps c2 to c5, split into a trunk (to stride 16) and a last stage (to stride 32)."""

from pretrainps.backbones.base import Backbone as Backbone
from pretrainps.backbones.base import FeatureInfo as FeatureInfo
from pretrainps.backbones.registry import ARCHITECTURES as ARCHITECTURES
from pretrainps.backbones.registry import build_backbone as build_backbone
