"""Backbones: named maps c2 to c5, split into a trunk (stride 16) and a last stage (stride 32)."""

from pretrainps.backbones.architectures import ARCHITECTURES as ARCHITECTURES
from pretrainps.backbones.architectures import build_backbone as build_backbone
from pretrainps.backbones.base import Backbone as Backbone
from pretrainps.backbones.base import FeatureMap as FeatureMap
