"""Measure the speed of synthetic drawing on one core: scenes and re-ID crops per second in every domain.

    python benchmarks/synthetic.py [DOMAIN ...]

Each number is the best of several short rounds, in CPU time of this process. Cameras are made in advance, because each takes as
long as two or three scenes.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

from pretrainps.synthetic.camera import find_camera
from pretrainps.synthetic.crop import draw_crop
from pretrainps.synthetic.domains import DOMAINS, Domain, find_domain
from pretrainps.synthetic.scene import draw_scene

ROUNDS, SCENES, CROPS, SEED = 4, 15, 40, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("domains", nargs="*", metavar="DOMAIN", default=list(DOMAINS), help="all, if none is named")
    args = parser.parse_args()
    print(f"{'':16}{'scenes/s':>10}{'crops/s':>10}{'cameras/s':>11}")
    for name in args.domains:
        domain = find_domain(name)
        start = time.process_time()
        for index in range(domain.cameras):
            find_camera(domain, SEED, index)
        cameras = domain.cameras / (time.process_time() - start)
        scenes = rate(partial(draw_one_scene, domain), SCENES)
        crops = rate(partial(draw_one_crop, domain), CROPS)
        print(f"{name:16}{scenes:10.0f}{crops:10.0f}{cameras:11.0f}")


def draw_one_scene(domain: Domain, index: int) -> None:
    draw_scene(domain, seed=SEED, split="benchmark", index=index)


def draw_one_crop(domain: Domain, index: int) -> None:
    draw_crop(domain, seed=SEED, split="benchmark", number=index, camera=index % domain.cameras, shot=0)


def rate(draw: Callable[[int], None], count: int) -> float:
    """Return the number of images per second in the best round."""
    best = 0.0
    for number in range(ROUNDS):
        start = time.process_time()
        for index in range(number * count, (number + 1) * count):
            draw(index)
        best = max(best, count / (time.process_time() - start))
    return best


if __name__ == "__main__":
    main()
