"""Where a gallery's images come from: a folder of pictures, or the frames of a video."""
