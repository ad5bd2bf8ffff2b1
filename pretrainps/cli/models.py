"""`list`, `info`, `download`, `cache`: the registered models and the cached files. Registered names need no torch."""

from __future__ import annotations

import argparse
import difflib
import shutil
import textwrap
from typing import TYPE_CHECKING

from pretrainps.cli.output import megabytes, note, say, say_json, table
from pretrainps.errors import ArgumentError, PretrainPSError
from pretrainps.registry import ModelSpec, list_models, registry, spec_to_mapping
from pretrainps.registry.packages import package_file
from pretrainps.registry.specs import BundledSource

if TYPE_CHECKING:
    from pretrainps.download import Cache
    from pretrainps.download.cache import Record


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this module's commands to the parser."""
    parser = commands.add_parser("list", help="list the models, by wildcard", description="List the registered models.")
    parser.add_argument("pattern", nargs="?", default="*", help='wildcard, such as "resnet*" (quote it)')
    parser.add_argument("--task", choices=("backbone", "detector"), help="only models for this")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_list)

    parser = commands.add_parser(
        "info",
        help="everything known about a model",
        description="Show a model's origin, licence and input.",
    )
    parser.add_argument("name", help="a registered name, timm:NAME, file:PATH or hf:owner/repo[@REVISION]")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_info)

    parser = commands.add_parser(
        "download",
        help="fetch and verify a model's file",
        description="Fetch a model's file into the cache, verify it, and print its path. A cached file is hashed again.",
    )
    parser.add_argument("name", nargs="+", help="as for info")
    parser.add_argument("--force", action="store_true", help="download again even if it is cached; a pin still holds")
    parser.add_argument("--offline", action="store_true", default=None, help="only check what is cached")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_download)

    parser = commands.add_parser(
        "cache",
        help="show or clean the cache",
        description="Show the cached models, or remove a model from the cache.",
        epilog="The sha256 pinned at a model's first download outlives its files; --forget-pin removes it too.",
    )
    parser.add_argument("action", nargs="?", default="show", choices=("show", "path", "remove"))
    parser.add_argument("name", nargs="*", help="models to remove")
    parser.add_argument("--forget-pin", action="store_true", help="with remove: trust the next download like a first one")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_cache)


def _list(args: argparse.Namespace) -> int:
    names = list_models(args.pattern, task=args.task)
    specs = registry()
    if args.json:
        say_json([{"name": name, **spec_to_mapping(specs[name])} for name in names])
        return 0
    if not names:
        task = f" for the task {args.task!r}" if args.task else ""
        note(f"no model matches {args.pattern!r}{task}; `pretrainps list` shows all.")
        return 1
    say(table(("name", "task", "parameters", "input", "licence", "title"), [_row(specs[name]) for name in names]))
    return 0


def _row(spec: ModelSpec) -> tuple[str, ...]:
    parameters = f"{spec.parameters / 1e6:.1f} M" if spec.parameters else ""
    return spec.name, spec.task, parameters, f"{spec.input.colour} ({spec.input.status})", spec.licence.id, spec.title


def _info(args: argparse.Namespace) -> int:
    from pretrainps.hub.resolve import resolve

    spec = resolve(args.name)
    if args.json:
        say_json({"name": spec.name, **spec_to_mapping(spec)})
        return 0
    from pretrainps.download import Cache

    cache = Cache()
    c = spec.input
    lines = [
        ("name", spec.name),
        ("what", spec.title),
        ("", spec.summary),
        ("architecture", spec.arch + (f" {spec.arch_options}" if spec.arch_options else "")),
        ("detector", _detector_line(spec)),
        ("parameters", f"{spec.parameters:,}" if spec.parameters else "not stated"),
        *(("source" if index == 0 else "", str(source)) for index, source in enumerate(spec.sources)),
        ("sha256", _hash_line(spec, cache.pin(spec.name))),
        _place(spec, cache),
        ("input", f"{c.colour.upper()} in 0..{c.scale:g}, mean {c.mean}, std {c.std}{_size_note(spec)}"),
        ("", f"{c.status}: {c.evidence}"),
        ("licence", f"{spec.licence.id}, stated in {spec.licence.stated_in}"),
        ("", spec.licence.note),
        ("authors", spec.provenance.authors),
        ("paper", spec.provenance.paper),
        ("more", spec.provenance.url),
        ("", spec.provenance.note),
        *(
            ("results" if index == 0 else "", f"{r.dataset} {r.metric} {r.value}, {r.model} [{r.source}]")
            for index, r in enumerate(spec.results)
        ),
    ]
    width = min(shutil.get_terminal_size().columns, 120)
    indent = " " * 14
    for label, text in lines:
        if text:
            say(textwrap.fill(text, width, initial_indent=f"{label:13} ", subsequent_indent=indent, break_on_hyphens=False))
    return 0


def _place(spec: ModelSpec, cache: Cache) -> tuple[str, str]:
    """Return a label and the path of the file: in a package, or in the cache if it was fetched."""
    source = spec.sources[0]
    if isinstance(source, BundledSource):
        path = package_file(source.package, source.file, spec.name)
        return "installed at", str(path) if path.is_file() else f"{path}, where it is missing"
    record = cache.record(spec.name)
    return "in the cache", str(cache.original(spec.name) / record.file) if record else "no"


def _detector_line(spec: ModelSpec) -> str:
    if spec.detector is None:
        return ""
    settings = ", ".join(f"{name} {value}" for name, value in spec.detector.config.items())
    return f"{spec.detector.kind} ({settings})"


def _size_note(spec: ModelSpec) -> str:
    """Return the size of the network's input, and whether the detector resizes images itself."""
    height, width = spec.input.size
    return ": done inside, whole scenes go in" if spec.detector else f", crops {height}x{width}"


def _hash_line(spec: ModelSpec, pin: Record | None) -> str:
    if spec.sha256:
        return f"{spec.sha256} (published)"
    if pin:
        return f"{pin.sha256} (pinned at first download, {pin.time[:10]})"
    first = f"{spec.sha256_prefix}... (by its publisher); the rest" if spec.sha256_prefix else "unknown;"
    return f"{first} will be pinned at first download"


def _download(args: argparse.Namespace) -> int:
    from pretrainps.download import Cache

    cache = Cache()
    failed = 0
    for name in args.name:
        try:
            path, remark = _fetched(name, cache, args)
        except PretrainPSError as error:  # go on with the other models
            note(f"error: {error}")
            failed += 1
        else:
            say(path)
            note(remark)
    return 1 if failed else 0


def _fetched(name: str, cache: Cache, args: argparse.Namespace) -> tuple[str, str]:
    from pretrainps.download import fetch
    from pretrainps.hub.resolve import resolve

    quiet = args.quiet
    spec = resolve(name, cache=cache, offline=args.offline, progress=not quiet, force=args.force)
    fetched = fetch(spec, cache=cache, offline=args.offline, progress=not quiet, verify=True, force=args.force)
    return str(fetched.path), f"sha256 {fetched.sha256}, from {fetched.source}"


def _cache(args: argparse.Namespace) -> int:
    from pretrainps.download import Cache

    cache = Cache()
    if args.action == "path":
        say(str(cache.root))
        return 0
    if args.action == "remove":
        return _remove(cache, args)
    pinned = set(cache.pinned_names())
    entries = [(name, cache.record(name), cache.size(name)) for name in sorted({*cache.names(), *pinned})]
    if args.json:
        models = [
            {"name": name, "bytes": size, "sha256": record.sha256 if record else None, "pinned": name in pinned}
            for name, record, size in entries
        ]
        say_json({"root": str(cache.root), "models": models})
        return 0
    rows = [(name, megabytes(size), _state(record, size), "pinned" if name in pinned else "") for name, record, size in entries]
    say(f"{cache.root}: {megabytes(sum(size for _, _, size in entries))}")
    if rows:
        say(table(("model", "size", "sha256", "pin"), rows))
    return 0


def _state(record: Record | None, size: int) -> str:
    if record is not None:
        return record.sha256[:16]
    return "incomplete" if size else "no file"


def _remove(cache: Cache, args: argparse.Namespace) -> int:
    from pretrainps.download.addresses import canonical

    if not args.name:
        raise ArgumentError("which model? `pretrainps cache` shows those in the cache.")
    known, pins = set(cache.names()), set(cache.pinned_names())
    missing = 0
    for given in args.name:
        name = given if given in known | pins else canonical(given)
        pinned = args.forget_pin and name in pins
        if name in known or pinned:
            freed = megabytes(cache.remove(name, forget_pin=args.forget_pin))
            say(f"removed {name}: {freed}{' and its pin' if pinned else ''}")
            continue
        missing += 1
        if name in pins:
            note(f"{name} has no file in the cache, only a pin: --forget-pin removes that")
        else:
            near = difflib.get_close_matches(name, sorted(known | pins), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            note(f"{name} is not in the cache.{hint} `pretrainps cache` shows what is there.")
    return 1 if missing else 0
