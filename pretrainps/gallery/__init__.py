"""Search your own images: everyone in a folder or a video, found again by showing one of them."""

from pretrainps.gallery.gallery import Gallery as Gallery
from pretrainps.gallery.indexing import IndexReport as IndexReport
from pretrainps.gallery.people import Box as Box
from pretrainps.gallery.people import Hit as Hit
from pretrainps.gallery.people import Person as Person
from pretrainps.gallery.people import SearchResult as SearchResult
