"""Data sets: one record type, readers and writers of the published layouts, batch samplers, transforms and loaders."""

from pretrainps.data.layout import Layout as Layout
from pretrainps.data.records import UNLABELLED as UNLABELLED
from pretrainps.data.records import GalleryList as GalleryList
from pretrainps.data.records import Query as Query
from pretrainps.data.records import Sample as Sample
from pretrainps.data.records import SearchSet as SearchSet
from pretrainps.data.records import Split as Split
