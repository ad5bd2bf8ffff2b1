"""Search in a gallery's vectors: exact, or approximate with faiss."""
