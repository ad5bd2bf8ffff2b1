"""Load a model through torch.hub, from a clone of this repository or directly from GitHub.

    python examples/torch_hub.py [--model resnet50_hybrid]
    python examples/torch_hub.py --repository OWNER/pretrainps --source github

Replace OWNER by the repository's owner. The package need not be installed, only its dependencies; torch.hub names missing ones.
Names have underscores because they are functions of hubconf.py; torch.hub.list shows all.
"""

import argparse
from pathlib import Path

import torch

CLONE = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", default=str(CLONE), help="the folder of a clone, or OWNER/pretrainps[:TAG]")
    parser.add_argument("--source", choices=("local", "github"), default="local", help="which of the two it is")
    parser.add_argument("--model", default="resnet50_hybrid")
    args = parser.parse_args()

    embedder = torch.hub.load(
        args.repository,
        args.model,
        source=args.source,
        trust_repo=True,  # otherwise torch.hub asks
        skip_validation=True,  # the check of the tag needs GitHub's API, which has a rate limit
        head="embedding",  # passed on to pretrainps.load
    )
    print(f"{embedder.spec.title}\n{embedder.load_report}")
    crops = torch.rand(2, 3, 256, 128)  # pretrainps.preprocess(embedder) makes such tensors from real crops
    with torch.inference_mode():
        vectors = embedder(crops)
    print(f"{tuple(crops.shape)} -> {tuple(vectors.shape)}, lengths {vectors.norm(dim=1).tolist()}")


if __name__ == "__main__":
    main()
