"""Search for a person of a photo in your own photos.

    python examples/search_photos.py PHOTOS --query PHOTO [--person 2] [--model seqnet-resnet50-prw] [-o found]

Detects and embeds all people in the folder PHOTOS once; a second run processes only new or changed photos. Without --person,
the photo must show clearly which person you mean; otherwise all people on it are drawn with numbers. The folder of --output
gets the gallery, people.png and report.html, for any browser. Search only photos that you may use: docs/gallery.md. The same by
command: `pretrainps index` and `pretrainps search`.
"""

import argparse
from pathlib import Path

import pretrainps
from pretrainps.gallery.query_selection import choose, detect, numbered_picture
from pretrainps.gallery.view.report import write_report
from pretrainps.images.read import read_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of images, searched recursively")
    parser.add_argument("--query", type=Path, required=True, help="a photo with the person on it")
    parser.add_argument("--person", type=int, help="the person's number on people.png, from left to right")
    parser.add_argument("--model", default="seqnet-resnet50-prw", help="a detector's name for pretrainps.load")
    parser.add_argument("-o", "--output", type=Path, default=Path("found"), help="folder for the results")
    args = parser.parse_args()

    model = pretrainps.load(args.model)
    report = pretrainps.Gallery.index(args.photos, model, store=args.output / "gallery")
    print(report)
    for failure in report.failures:
        print(f"not read: {failure.reason}")
    gallery = pretrainps.Gallery.open(args.output / "gallery")

    photo = read_image(args.query)
    found = detect(model, photo)
    numbered_picture(photo, found).save(args.output / "people.png")
    person = choose(found, args.person)  # if it is not clear who is meant, the error says what to do

    name = gallery.name_for(args.query)
    result = gallery.search(model, photo, person.box, query_name=name)
    for hit in result.hits:
        itself = " (the query itself)" if hit.detection.is_seen_as(result.query) else ""
        print(f"{hit.rank:2}. {hit.similarity:.3f} {hit.detection.id}{itself}")
    page = args.output / "report.html"
    print(f"wrote {write_report(gallery, [result], page, title='Found', query_images={name: photo})}")


if __name__ == "__main__":
    main()
