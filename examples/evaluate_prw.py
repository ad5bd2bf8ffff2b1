"""Evaluate a detector on PRW by the protocol of the papers.

    python examples/evaluate_prw.py ROOT [--model seqnet-resnet50-prw]

ROOT is the unpacked data set, which its authors provide for research (docs/data.md), or a drawn one in its layout:
`pretrainps data synthesize --layout prw --out ROOT`. Prints mAP and top-1 with and without context matching, and the detection
AP. The same by command, with cached features: `pretrainps evaluate MODEL --data ROOT`. Needs scipy, for .mat files and for
matching: `pip install 'pretrainps[train]'`.
"""

import argparse
from pathlib import Path

import pretrainps
from pretrainps.data.layouts import layout_named
from pretrainps.evaluation import PROTOCOLS, evaluate_detection, evaluate_search
from pretrainps.inference.extraction import Extractor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="seqnet-resnet50-prw", help="a detector's name for pretrainps.load")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    prw = layout_named("prw").read_search(args.root)
    print(f"{len(prw.queries)} queries in {len(prw.gallery)} frames")
    extractor = Extractor(pretrainps.load(args.model, device=args.device))
    gallery = extractor.detections(prw.gallery)  # boxes, scores and embeddings of everyone detected in every frame
    queries = extractor.queries(prw)  # (Q, dim), of the annotated boxes
    beside = extractor.contexts(prw)  # everyone in the queries' frames, whom context matching compares

    for name in ("prw", "prw-cbgm"):
        protocol = PROTOCOLS[name]
        context = beside if protocol.context is not None else None
        result = evaluate_search(prw, gallery, protocol, query_embeddings=queries, query_detections=context)
        print(f"{result.protocol}\n  mAP {result.mAP:.4f}  top-1 {result.top1:.4f}")
    detected = evaluate_detection(prw.gallery, gallery)
    print(f"{detected.protocol}\n  AP {detected.ap:.4f}  recall {detected.recall:.4f}")


if __name__ == "__main__":
    main()
