"""Images: find and read image files, convert them to tensors, draw boxes on them."""
