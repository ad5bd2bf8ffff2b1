"""Choose and measure the weights that come with the package: chosen on some drawn people, tested on others.

    python benchmarks/shipped.py choose    # all weights that were ever shipped, on people 80 to 239 of the station python
    benchmarks/shipped.py test      # the current ones, on people 0 to 79, 240 to 319 and 320 to 399 of station and campus

The people of each set are in separate scenes in front of the same cameras. A row has the output of these commands:

    pretrainps data synthesize --layout prw --domain DOMAIN --out world --people 1 --test-people 80 --first-test-person FIRST
    pretrainps evaluate MODEL --data world

Earlier weights are read from this repository's history. Rows go to results/shipped-choice.csv and results/shipped-test.csv;
rows that exist already are not computed again.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from histogram_baseline import search_by_colours

from pretrainps.data.layouts import layout_named
from pretrainps.data.records import SearchSet
from pretrainps.detectors import PersonSearchDetector
from pretrainps.evaluation import SearchResult, evaluate_search, protocol
from pretrainps.hub.load import load
from pretrainps.inference.extraction import Extractor
from pretrainps.registry import parse_spec
from pretrainps.registry.specs import LocalSource
from pretrainps.synthetic.writing import WorldSize, synthesize

ROOT = Path(__file__).parent.parent
DETECTORS = ("seqnet-tiny-synthetic", "nae-tiny-synthetic")
HISTOGRAMS = "histograms"
"""Results of the colour histograms with the annotated boxes."""
TODAY = "fa28e58"
"""The commit of the current weights."""
EARLIER = ("c128d82", "9641a46")
"""The commits of earlier weights."""
PEOPLE = 80
COLUMNS = ("domain", "first", "people", "scenes", "queries", "model", "commit", "mAP", "top1")

Row = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """The models to measure, and the people to measure them on."""

    domains: tuple[str, ...]
    firsts: tuple[int, ...]
    """Number of the first person of each set."""
    commits: tuple[str, ...]
    """The commits of the weights."""
    histograms: bool


QUESTIONS = {
    "choose": Question(domains=("search_station",), firsts=(80, 160), commits=(TODAY, *EARLIER), histograms=False),
    "test": Question(domains=("search_station", "search_campus"), firsts=(0, 240, 320), commits=(TODAY,), histograms=True),
}


def drawn(domain: str, first: int, work: Path) -> SearchSet:
    """Return the search set of a domain's people from a number on; it is drawn only once."""
    root = work / f"{domain}-{first}"
    if not root.exists():
        synthesize("prw", root, domain=domain, size=WorldSize(people=1, test_people=PEOPLE, first_test_person=first))
    return layout_named("prw").read_search(root)


def of_commit(commit: str, file: str, folder: Path) -> Path:
    """Return a file as it was at a commit, written into a folder unless it is there."""
    path = folder / file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = subprocess.run(["git", "show", f"{commit}:{file}"], cwd=ROOT, check=True, capture_output=True)
        path.write_bytes(shown.stdout)
    return path


def shipped(name: str, commit: str, work: Path) -> PersonSearchDetector:
    """Return a detector with its weights at a commit."""
    folder = work / commit
    registry = "pretrainps/registry/synthetic.toml"
    entry = tomllib.loads(of_commit(commit, registry, folder).read_text(encoding="utf-8"))["models"][name]
    weights = of_commit(commit, f"pretrainps/{entry['sources'][0]['file']}", folder)
    spec = replace(parse_spec(name, entry, registry), sources=(LocalSource(path=str(weights)),))
    model = load(spec)
    assert isinstance(model, PersonSearchDetector)
    return model


def measured(found: SearchSet, model: PersonSearchDetector) -> SearchResult:
    """Return a detector's result by PRW's protocol."""
    extractor = Extractor(model)
    detections, queries = extractor.detections(found.gallery), extractor.queries(found)
    return evaluate_search(found, detections, protocol("prw"), query_embeddings=queries)


def rows(question: Question, done: Sequence[Row], work: Path) -> Iterator[Row]:
    """Measure the missing rows."""
    models = [(name, commit) for commit in question.commits for name in DETECTORS]
    models += [(HISTOGRAMS, "")] if question.histograms else []
    there = {(row["domain"], row["first"], row["model"], row["commit"]) for row in done}
    for domain in question.domains:
        for first in question.firsts:
            for name, commit in models:
                if (domain, str(first), name, commit) in there:
                    continue
                found = drawn(domain, first, work)
                by_colours = name == HISTOGRAMS
                result = search_by_colours(found) if by_colours else measured(found, shipped(name, commit, work))
                counts = (first, PEOPLE, len(found.gallery), len(found.queries))
                values = (domain, *counts, name, commit, f"{result.mAP:.6f}", f"{result.top1:.6f}")
                yield dict(zip(COLUMNS, map(str, values), strict=True))


def summary(table: Sequence[Row]) -> Iterator[str]:
    """Yield the results of each model in each domain: mean and standard deviation of the sets, and every set."""
    for key in dict.fromkeys((row["domain"], row["model"], row["commit"]) for row in table):
        mine = [row for row in table if (row["domain"], row["model"], row["commit"]) == key]
        parts = []
        for measure in ("mAP", "top1"):
            values = [100 * float(row[measure]) for row in mine]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            parts.append(f"{measure} {statistics.mean(values):.1f}{spread} ({', '.join(f'{each:.1f}' for each in values)})")
        yield f"{' '.join(key)}: {'; '.join(parts)}; people from {', '.join(row['first'] for row in mine)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=QUESTIONS)
    parser.add_argument("--out", type=Path, help="the table (default: results/shipped-WHAT.csv)")
    parser.add_argument("--work", type=Path, default=Path("runs/shipped"), help="folder for drawn sets (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = args.out or ROOT / "results" / f"shipped-{'choice' if args.what == 'choose' else 'test'}.csv"
    args.work.mkdir(parents=True, exist_ok=True)
    table: list[Row] = []
    if out.exists():
        with out.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(line for line in file if not line.startswith("#")))
    else:
        out.write_text(f"# python benchmarks/shipped.py {args.what}\n{','.join(COLUMNS)}\n", encoding="utf-8")
    for row in rows(QUESTIONS[args.what], table, args.work):
        table.append(row)
        with out.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
        print(*row.values(), sep=", ", flush=True)
    print(*summary(table), sep="\n")


if __name__ == "__main__":
    main()
