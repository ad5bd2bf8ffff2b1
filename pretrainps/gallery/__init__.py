"""Search your own images: everyone in a folder or a video, found again by showing one of them."""

from pretrainps.gallery.gallery import Gallery as Gallery
from pretrainps.gallery.indexing import IndexReport as IndexReport
from pretrainps.gallery.results import Box as Box
from pretrainps.gallery.results import Hit as Hit
from pretrainps.gallery.results import Person as Person
from pretrainps.gallery.results import SearchResult as SearchResult
