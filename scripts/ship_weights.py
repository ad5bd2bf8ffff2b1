"""Turn finished trainings into the weights that come with the package, and print their registry entries.

    python scripts/ship_weights.py --pretraining runs/hybrid --seqnet runs/seqnet --nae runs/nae \
        > pretrainps/registry/synthetic.toml

Each RUN is the folder of a finished `pretrainps pretrain` or `pretrainps finetune`. The files are written to
`pretrainps/registry/bundled/`, in half precision and without the tables of the identity loss, which are only for training. The
printed entries hold their sizes, their hashes, and the results of the shipped file on a drawn data set that was not used in
training.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrainps.data.records import SearchSet
from pretrainps.detectors import PersonSearchDetector
from pretrainps.evaluation import evaluate_search, protocol
from pretrainps.files import sha256_of
from pretrainps.hub.load import Model, load
from pretrainps.inference.extraction import Extractor
from pretrainps.registry import ModelSpec, find_spec, parse_spec
from pretrainps.registry.specs import BundledSource, FileFormat, Licence, LocalSource, Provenance, PublishedResult
from pretrainps.synthetic.writing import WorldSize, synthesize
from pretrainps.weights import write_safetensors

BUNDLED = "registry/bundled"
"""Inside the package, where the files that come with it lie."""
WEIGHTS = Path(__file__).parent.parent / "pretrainps" / BUNDLED
_SAVED = re.compile(r" ?Saved by pretrainps from .*?, perhaps after further training\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipment:
    """One of the models that come with the package."""

    option: str
    """The option of the command line for its training run."""
    folder: str
    """The folder of the result inside the training's folder."""
    name: str
    title: str
    summary: str
    like: str
    """A registered model of the same method, for the paper."""


SHIPMENTS = (
    Shipment(
        option="pretraining",
        folder="backbone",
        name="tiny-hybrid-synthetic",
        title="Tiny ResNet, hybrid pre-training on the synthetic world",
        summary="Small enough to be learned on a CPU: what hybrid pre-training gives, to try and to test everything with.",
        like="resnet50-hybrid",
    ),
    Shipment(
        option="seqnet",
        folder="model",
        name="seqnet-tiny-synthetic",
        title="SeqNet on a tiny ResNet, trained on the synthetic world",
        summary="Finds and tells apart drawn people: the detector of `pretrainps demo`. It does not work on photographs.",
        like="seqnet-resnet50-prw",
    ),
    Shipment(
        option="nae",
        folder="model",
        name="nae-tiny-synthetic",
        title="NAE on a tiny ResNet, trained on the synthetic world",
        summary="Finds and tells apart drawn people, with one stage less than SeqNet. It does not work on photographs.",
        like="nae-resnet50-prw",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnTest:
    """A drawn data set to measure on."""

    domain: str
    first: int
    """The number of the first person to search for."""
    people: int
    seed: int

    @property
    def name(self) -> str:
        """Its name in a model's results."""
        return f"{self.domain} of synthetic world {self.seed}, people {self.first} to {self.first + self.people - 1}"

    @property
    def command(self) -> str:
        """The command that draws it."""
        which = f" --first-test-person {self.first}" if self.first else ""
        return (
            f"pretrainps data synthesize --layout prw --domain {self.domain} --out world --people 1 "
            f"--test-people {self.people}{which} --seed {self.seed}"
        )

    def draw(self, root: Path) -> SearchSet:
        """Draw it into a new folder and read it."""
        size = WorldSize(people=1, test_people=self.people, first_test_person=self.first, seed=self.seed)
        return synthesize("prw", root, domain=self.domain, size=size).read_search(root)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the weights and print the entries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for shipment in SHIPMENTS:
        parser.add_argument(f"--{shipment.option}", type=Path, metavar="RUN", help=f"the training of {shipment.name}")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="folder for the files (default: %(default)s)")
    parser.add_argument(
        "--test-people",
        type=int,
        default=40,
        help="people to measure with; 0 measures nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--first-test-people",
        nargs="+",
        type=int,
        default=[0],
        metavar="NUMBER",
        help="the first of them in each set to measure on; use other people than for the choice of weights (default: 0)",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the world to measure in (default: %(default)s)")
    parser.add_argument(
        "--domains", nargs="+", default=["search_station"], help="its domains to measure in (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    chosen = [each for each in SHIPMENTS if getattr(args, each.option) is not None]
    if not chosen:
        parser.error("nothing to ship: name at least one RUN.")
    with tempfile.TemporaryDirectory(prefix="pretrainps-") as scratch:
        specs = [ship(each, getattr(args, each.option), args.weights) for each in chosen]
        if args.test_people and any(spec.detector for spec in specs):
            for domain, first in itertools.product(args.domains, args.first_test_people):
                drawn = DrawnTest(domain=domain, first=first, people=args.test_people, seed=args.seed)
                world = drawn.draw(Path(scratch) / f"{domain}-{first}")
                specs = [measured(spec, args.weights, drawn, world) if spec.detector else spec for spec in specs]
    sys.stdout.write("# Trained by this package on its synthetic world; the files are in pretrainps/registry/bundled.\n")
    sys.stdout.write("# Written by scripts/ship_weights.py.\n")
    for spec in specs:
        sys.stdout.write("\n" + toml(spec))
    return 0


def ship(shipment: Shipment, run: Path, weights: Path) -> ModelSpec:
    """Write the weights of one training and return their entry.

    Args:
        shipment: The model to ship.
        run: The training's folder.
        weights: The folder for the file.
    """
    model = load(run / shipment.folder)
    tensors = halved(model)
    path = weights / f"{shipment.name}.safetensors"
    write_safetensors(tensors, path, {"model": shipment.name})
    spec = described(model, shipment, run, path, len(tensors))
    again = load(at(spec, weights))
    state = again.state_dict()
    changed = [key for key, value in tensors.items() if not torch.equal(state[key], value.to(state[key].dtype))]
    if changed or not again.load_report.ok:
        raise SystemExit(f"{path} does not load with the written tensors: {changed[:4]}\n{again.load_report}")
    sys.stderr.write(f"{path}: {path.stat().st_size:,} bytes\n{again.load_report}\n")
    return spec


def halved(model: Model) -> dict[str, Tensor]:
    """Return a model's tensors for shipping: floats in half precision, without the tables of training."""
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("oim_loss.")}
    half = {key: value.half() if value.is_floating_point() else value for key, value in kept.items()}
    beyond = [key for key, value in half.items() if not bool(value.isfinite().all())]
    if beyond:
        raise SystemExit(f"values of {', '.join(beyond[:4])} exceed half precision; ship this model in full precision.")
    return half


def described(model: Model, shipment: Shipment, run: Path, path: Path, tensors: int) -> ModelSpec:
    """Return the entry of a newly written file."""
    spec, method = model.spec, find_spec(shipment.like).provenance
    is_detector = isinstance(model, PersonSearchDetector)
    return replace(
        spec,
        name=shipment.name,
        title=shipment.title,
        summary=shipment.summary,
        input=replace(spec.input, status="documented", evidence="Trained by this package, with these values."),
        licence=Licence(
            id="apache-2.0", stated_in="the LICENSE of pretrainps", note="Learned from drawings: no picture of anybody went in."
        ),
        provenance=Provenance(
            authors="The pretrainps contributors",
            paper=f"of the method: {method.paper}",
            url=method.url if is_detector else "https://doi.org/10.1609/aaai.v38i6.28329",
            note=history(spec, run),
        ),
        sources=(BundledSource(file=f"{BUNDLED}/{path.name}"),),
        file=FileFormat(expected_missing=("oim_loss.*",) if is_detector else (), tensors=tensors),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sha256=sha256_of(path),
        published_size=path.stat().st_size / 1e6,
        results=(),
    )


def history(spec: ModelSpec, run: Path) -> str:
    """Return the history of the weights, from the training's records."""
    parts = ["Trained by this package on its synthetic world (pretrainps.synthetic).", _SAVED.sub("", spec.provenance.note)]
    if spec.detector is not None:
        train = json.loads((run / "config.json").read_text(encoding="utf-8"))["task"]["data"]["train"]
        parts.append(f"Then trained as a whole on {train['images']} scenes with {train['identities']} people.")
    return " ".join(part.strip() for part in parts if part.strip())


def measured(spec: ModelSpec, weights: Path, drawn: DrawnTest, search_set: SearchSet) -> ModelSpec:
    """Return the entry with the results of the shipped file on a drawn data set."""
    model = load(at(spec, weights))
    assert isinstance(model, PersonSearchDetector)
    extractor = Extractor(model)
    found = evaluate_search(
        search_set,
        extractor.detections(search_set.gallery),
        protocol("prw"),
        query_embeddings=extractor.queries(search_set),
    )
    return replace(
        spec,
        results=spec.results
        + tuple(
            PublishedResult(
                dataset=f"{drawn.name}, {len(search_set.gallery)} scenes",
                metric=metric,
                value=round(100 * value, 1),
                model=type(model).__name__,
                source=f"{drawn.command}; pretrainps evaluate {spec.name} --data world",
            )
            for metric, value in (("mAP", found.mAP), ("top-1", found.top1))
        ),
    )


def at(spec: ModelSpec, weights: Path) -> ModelSpec:
    """Return the entry for a file at a local path, before installation."""
    return replace(spec, sources=(LocalSource(path=str(weights / spec.sources[0].filename)),))


def toml(spec: ModelSpec) -> str:
    """Return an entry in the format of the registry's files; it is read as exactly the same spec."""
    root = f"models.{spec.name}"
    lines = [f"[{root}]", *_lines({key: value for key, value in _changes(spec).items() if _is_plain(value)}, but=("name",))]
    for section in ("detector", "file", "input", "licence", "provenance"):
        record = getattr(spec, section)
        if record is not None:
            values = _changes(record)
            lines += [f"[{root}.{section}]", *_lines({key: value for key, value in values.items() if _is_plain(value)})]
            for key, value in values.items():
                lines += [] if _is_plain(value) else [f"[{root}.{section}.{key}]", *_lines(value)]
    for source in spec.sources:
        lines += [f"[[{root}.sources]]", 'kind = "bundled"', *_lines(_changes(source))]
    for result in spec.results:
        lines += [f"[[{root}.results]]", *_lines(_changes(result))]
    text = "\n".join(lines) + "\n"
    assert parse_spec(spec.name, tomllib.loads(text)["models"][spec.name], "what was written") == spec
    return text


def _changes(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults."""
    found = {}
    for field in fields(record):
        value = getattr(record, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value is not None and (default is MISSING or value != default):
            found[field.name] = value
    return found


def _is_plain(value: Any) -> bool:
    records = isinstance(value, tuple) and any(is_dataclass(each) for each in value)
    return not (isinstance(value, dict) or is_dataclass(value) or records)


def _lines(values: dict[str, Any], *, but: tuple[str, ...] = ()) -> Iterator[str]:
    for key, value in values.items():
        if key not in but:
            # TOML writes values of these kinds like JSON
            yield f"{key} = {json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)}"


if __name__ == "__main__":
    raise SystemExit(main())
