"""Download: from a model name to a verified file on this machine. It does not import torch."""

from pretrainps.download.cache import Cache as Cache
from pretrainps.download.cache import default_root as default_root
from pretrainps.download.fetch import Fetched as Fetched
from pretrainps.download.fetch import fetch as fetch
