"""From a model name to a verified file on this machine. Imports no torch."""

from pretrainps.downloads.cache import Cache as Cache
from pretrainps.downloads.cache import default_root as default_root
from pretrainps.downloads.fetch import Fetched as Fetched
from pretrainps.downloads.fetch import fetch as fetch
