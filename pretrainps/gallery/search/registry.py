"""The vector indexes by name: exact search, faiss, and those of other packages."""

from __future__ import annotations

from pretrainps.errors import ArgumentError
from pretrainps.gallery.backends import BackendTable
from pretrainps.gallery.search.exact_search import ExactIndexType
from pretrainps.gallery.search.faiss_index import FaissIndexType
from pretrainps.gallery.search.protocol import VectorIndexType

INDEX_GROUP = "pretrainps.vector_indexes"
"""Entry points of this group name objects that follow `VectorIndexType`."""
_TABLE: BackendTable[VectorIndexType] = BackendTable(
    "vector index", group=INDEX_GROUP, register="pretrainps.gallery.register_vector_index"
)
for _kind in (ExactIndexType(), FaissIndexType()):
    _TABLE.add(_kind.name, _kind)


def register_vector_index(kind: VectorIndexType) -> None:
    """Add a back end of search, under its `name`.

    An installed package can do without this call: an entry point in the group `pretrainps.vector_indexes`, called like the back
    end, names the object.

    Args:
        kind: What builds and opens the indexes.

    Raises:
        ArgumentError: The name is taken, or cannot be one.
    """
    _TABLE.add(kind.name, kind)


def unregister_vector_index(name: str) -> None:
    """Take a back end of search out of the table again."""
    _TABLE.remove(name)


def vector_index_type(name: str) -> VectorIndexType:
    """Return the back end of search of a name.

    Raises:
        ArgumentError: There is none, or a plug-in calls it differently than itself.
    """
    kind = _TABLE.get(name)
    if kind.name != name:  # a gallery remembers the index's own name, and would not find it again
        raise ArgumentError(f"the entry point {name!r} brings the vector index {kind.name!r}. Both must have the same name.")
    return kind
