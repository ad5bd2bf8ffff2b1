"""Evaluate a detector on PRW by the protocol of the papers.

    python examples/evaluate_prw.py ROOT [--model seqnet-resnet50-prw]

ROOT is the unpacked data set, which its authors give away for research (docs/data.md), or a drawn one in its layout:
`pretrainps data synthesize --layout prw --out ROOT`. Prints mAP and top-1 with and without context matching, and how well
everyone is detected. The same by command: `pretrainps evaluate MODEL --data ROOT`. Needs
scipy, for .mat files and for matching: `pip install 'pretrainps[train]'`.
"""

import argparse
from pathlib import Path

import pretrainps
from pretrainps.data.layouts import layout_named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="seqnet-resnet50-prw", help="a detector's name for pretrainps.load")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--features", type=Path, help="folder to keep the detections for the next run")
    args = parser.parse_args()

    prw = layout_named("prw").read_search(args.root)
    print(f"{len(prw.queries)} queries in {len(prw.gallery)} frames")
    model = pretrainps.load(args.model, device=args.device)
    plain = pretrainps.evaluate(model, prw, "prw", features=args.features)
    # what was detected in the gallery stays the same; context matching also looks at the people in the queries' frames
    matched = pretrainps.evaluate(model, prw, "prw-cbgm", detections=plain.detections, features=args.features)
    for result in (plain.search, matched.search):
        print(f"{result.protocol}\n  mAP {result.mAP:.4f}  top-1 {result.top1:.4f}")
    print(f"{plain.detection.protocol}\n  AP {plain.detection.ap:.4f}  recall {plain.detection.recall:.4f}")


if __name__ == "__main__":
    main()
