"""Person-search detectors on any backbone: OIM, NAE, NAE+, SeqNet."""

from pretrainps.detectors.base import PersonSearchDetector as PersonSearchDetector
from pretrainps.detectors.build import DETECTORS as DETECTORS
from pretrainps.detectors.build import assemble as assemble
from pretrainps.detectors.config import DetectorConfig as DetectorConfig
from pretrainps.detectors.nae import NAE as NAE
from pretrainps.detectors.nae import NAEConfig as NAEConfig
from pretrainps.detectors.nae_plus import NAEPlus as NAEPlus
from pretrainps.detectors.nae_plus import NAEPlusConfig as NAEPlusConfig
from pretrainps.detectors.oim import OIM as OIM
from pretrainps.detectors.oim import OIMConfig as OIMConfig
from pretrainps.detectors.seqnet import SeqNet as SeqNet
from pretrainps.detectors.seqnet import SeqNetConfig as SeqNetConfig
