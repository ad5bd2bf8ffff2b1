"""README and docs are true: their commands and code run, their tables are the code's, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from pkgutil import resolve_name

import pytest

import pretrainps
from pretrainps.backbones import build_backbone
from pretrainps.cli import main
from pretrainps.data.layouts import LAYOUTS
from pretrainps.evaluation import PROTOCOLS
from pretrainps.registry import list_models, registry
from tests.support.detectors import SMALL, lively_detector
from tests.support.fakehub import FakeHub
from tests.support.figures import draw_people
from tests.support.weights import FILES, REPO, authors_file

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def models_table() -> str:
    rows = ["| name | weights | parameters | input | licence |", "|---|---|---|---|---|"]
    for name in list_models():
        spec = registry()[name]
        parameters = f"{spec.parameters / 1e6:.1f} M" if spec.parameters else "-"
        terms = f"{spec.licence.id}. {spec.licence.note}".rstrip(". ") + "." if spec.licence.note else spec.licence.id
        rows.append(
            f"| `{name}` | [{spec.title}]({spec.provenance.url}) | {parameters} "
            f"| {spec.input.colour.upper()}, {spec.input.status} | {terms} |"
        )
    return "\n".join(rows)


def layouts_table() -> str:
    rows = ["| `--layout` | data set | for | splits | terms |", "|---|---|---|---|---|"]
    for layout in LAYOUTS:
        terms = f"withdrawn: {layout.withdrawn}" if layout.withdrawn else layout.terms
        rows.append(f"| `{layout.name}` | {layout.title} | {layout.task} | {', '.join(layout.main_splits)} | {terms} |")
    return "\n".join(rows)


def protocols_table() -> str:
    rows = ["| `--protocol` | in words |", "|---|---|"]
    for name, protocol in PROTOCOLS.items():
        rows.append(f"| `{name}` | {protocol.words().removeprefix(name + ': ')} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [
        ("models.md", "models", models_table()),
        ("data.md", "layouts", layouts_table()),
        ("evaluation.md", "protocols", protocols_table()),
    ],
)
def test_tables_of_the_docs_are_the_codes(page: str, name: str, table: str) -> None:
    match = re.search(rf"<!-- {name}:.*?-->\n(.*?)<!-- /{name} -->", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)
    assert match is not None and match[1].strip() == table, f"the table should be:\n{table}"


@pytest.fixture
def published(hub: FakeHub) -> FakeHub:
    hub.add(REPO, {file: authors_file(name) for name, file in FILES.items()})
    return hub


def photos(folder: Path) -> None:
    """In the place of the reader's own."""
    first, *_ = draw_people(folder)
    first.rename(folder / "party.jpg")  # whatever a file is called, its bytes say what it is


def run_blocks(page: Path) -> dict[str, object]:
    """Run the Python of a page, in the working folder, as one program."""
    names: dict[str, object] = {}
    for code in blocks(page.read_text(), "python"):
        exec(compile(code, page.name, "exec"), names)
    return names


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "python.md"], ids=lambda path: path.name)
def test_python_blocks_run(page: Path, published: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two pages that show the whole package; of what they make, some is looked at."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    names = run_blocks(page)
    assert names["vectors"].shape == (2, 2048)  # type: ignore[attr-defined]
    assert set(names["maps"]) == {"c2", "c3", "c4", "c5"}  # type: ignore[call-overload]
    assert names["similarity"].shape == (len(names["people"]["boxes"]), 1)  # type: ignore[attr-defined, index]


@pytest.mark.parametrize("page", [page for page in DOCS if page.name != "python.md"], ids=lambda path: path.name)
def test_python_blocks_of_the_docs_run(page: Path, published: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks(page)


def save_detector(folder: Path) -> None:
    """A small one in the place of the reader's own."""
    model = pretrainps.build_detector("nae", backbone=build_backbone("shufflenetv1"), config=SMALL)
    model.load_state_dict(lively_detector("nae", "shufflenetv1").state_dict())
    pretrainps.save_pretrained(model, folder)


def test_shell_commands_run(
    published: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos")
    save_detector(tmp_path / "my-detector")
    texts = [page.read_text() for page in (ROOT / "README.md", *DOCS)]
    lines = [line for text in texts for block in blocks(text, "bash") for line in block.splitlines()]
    commands = list(dict.fromkeys(line for line in lines if line.startswith("pretrainps ")))  # pages repeat some
    assert len(commands) >= 13
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0, f"{command}\n{capsys.readouterr()}"


def test_the_two_commands_are_what_ci_runs() -> None:
    first, second = [line for line in README.splitlines() if line.startswith("pip install ")][:2]
    assert first == "pip install . && pretrainps demo" and second == "pip install '.[test]' && pytest"
    assert "grep -m 2 '^pip install ' README.md" in (ROOT / ".ci" / "run").read_text()


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_local_links_and_commands_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target
    for script in re.findall(r"python (\S+\.py)", text):
        assert (ROOT / script).exists(), script


def test_public_names_that_pages_call_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"\bpretrainps\.(\w+)\(", page.read_text()):
            assert name in pretrainps.__all__, f"{page.name}: pretrainps.{name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_paths_and_names_that_pages_quote_exist(page: Path) -> None:
    """Those between backticks. Left out: placeholders (NAME), and groups of entry points, which are text in the code."""
    code = "".join(path.read_text() for path in (ROOT / "pretrainps").rglob("*.py"))
    groups = re.findall(r'^\w+ = "(pretrainps\.\w+)"$', code, flags=re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    folders = "pretrainps|tests|docs|examples|benchmarks|scripts|model_cards|results"
    for quoted in re.findall(r"`([^`\n]+)`", prose):
        if re.fullmatch(rf"({folders})(/[\w.*-]+)*/?", quoted) and "/" in quoted and "NAME" not in quoted:
            assert list(ROOT.glob(quoted.rstrip("/"))), quoted
            assert not quoted.endswith("/") or (ROOT / quoted).is_dir(), quoted
        elif re.fullmatch(r"pretrainps(\.\w+)+", quoted) and quoted not in groups:
            assert resolve_name(quoted) is not None
        elif re.fullmatch(r"\w+\.py", quoted):
            assert list(ROOT.rglob(quoted)), f"{quoted}: give its folder too"


def test_the_readme_is_one_page() -> None:
    assert len(README.split()) <= 1200


def test_every_page_is_linked_from_the_readme() -> None:
    """Adding-pages are linked from the one about the tree."""
    start = README + (ROOT / "docs" / "architecture.md").read_text()
    assert [page.name for page in DOCS if f"{page.name})" not in start and f"{page.name}#" not in start] == []


def test_every_model_is_named_in_the_readme() -> None:
    assert [name for name in list_models() if f"`{name}`" not in README] == []
