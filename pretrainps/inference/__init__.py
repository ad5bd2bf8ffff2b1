"""Run a trained model over many images: embeddings, detections, and a cache of both."""
