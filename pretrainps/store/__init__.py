"""From a model name to a verified file on this machine. Imports no torch."""

from pretrainps.store.cache import Cache as Cache
from pretrainps.store.cache import default_root as default_root
from pretrainps.store.fetch import Fetched as Fetched
from pretrainps.store.fetch import fetch as fetch
