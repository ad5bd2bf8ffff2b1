"""Person-search detectors on any backbone: OIM, NAE, NAE+, SeqNet."""

from pretrainps.detectors.base import PersonSearchDetector as PersonSearchDetector
from pretrainps.detectors.config import DetectorConfig as DetectorConfig
from pretrainps.detectors.region.nae import NAE as NAE
from pretrainps.detectors.region.nae import NAEConfig as NAEConfig
from pretrainps.detectors.region.nae_plus import NAEPlus as NAEPlus
from pretrainps.detectors.region.nae_plus import NAEPlusConfig as NAEPlusConfig
from pretrainps.detectors.region.oim import OIM as OIM
from pretrainps.detectors.region.oim import OIMConfig as OIMConfig
from pretrainps.detectors.region.seqnet import SeqNet as SeqNet
from pretrainps.detectors.region.seqnet import SeqNetConfig as SeqNetConfig
from pretrainps.detectors.registry import DETECTORS as DETECTORS
from pretrainps.detectors.registry import assemble as assemble
