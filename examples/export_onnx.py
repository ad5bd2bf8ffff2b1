"""Export a whole detector as one ONNX file, and run it on a photo with onnxruntime alone.

    python examples/export_onnx.py PHOTO [--model seqnet-resnet50-prw] [-o detector.onnx]

Needs `pip install 'pretrainps[export]'`. Resizing, normalizing and non-maximum suppression are part of the file, so its input
is an image of any size. Prints the people found, and the differences from the output of the model itself. By command, also for
TorchScript and for query embeddings: `pretrainps export`.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image, ImageOps

import pretrainps
from pretrainps.export.graph.export import export_graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--model", default="seqnet-resnet50-prw", help="a detector's name for pretrainps.load")
    parser.add_argument("-o", "--output", type=Path, default=Path("detector.onnx"))
    args = parser.parse_args()

    model = pretrainps.load(args.model)
    written = export_graph(model, args.output, format="onnx")  # compared with the model on a probe before it gets its name
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB\n{written.use}")

    # from here on, this is code for any program: it does not need this package
    photo = ImageOps.exif_transpose(Image.open(args.photo)).convert("RGB")
    image = np.ascontiguousarray(np.asarray(photo, dtype=np.float32).transpose(2, 0, 1) / 255)  # (3, H, W), RGB in 0..1
    session = onnxruntime.InferenceSession(args.output, providers=["CPUExecutionProvider"])
    boxes, scores, embeddings = session.run(None, {"image": image})
    for box, score in zip(boxes, scores, strict=True):
        print(f"a person at {', '.join(f'{side:.0f}' for side in box)}, score {score:.2f}")

    with torch.inference_mode():
        (people,) = model([torch.from_numpy(image)])
    print(f"{len(boxes)} people by onnxruntime, {len(people['boxes'])} by the model itself")
    if len(boxes) == len(people["boxes"]) > 0:
        pairs = ((boxes, people["boxes"]), (scores, people["scores"]), (embeddings, people["embeddings"]))
        furthest = [np.abs(theirs - ours.numpy()).max() for theirs, ours in pairs]
        print("largest differences: boxes {:.1e} px, scores {:.1e}, embeddings {:.1e}".format(*furthest))


if __name__ == "__main__":
    main()
