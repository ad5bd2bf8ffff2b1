"""Two-stage detectors: proposals on the stride-16 map, and the backbone's last stage on each region."""

from pretrainps.detectors.region.base import RegionDetector as RegionDetector
from pretrainps.detectors.region.config import RegionConfig as RegionConfig
