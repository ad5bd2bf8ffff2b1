"""Pictures: find and read image files, turn them into tensors, draw boxes on them."""
