"""The app: upload photos, click on a person, see where else they are. It runs on this machine and sends nothing elsewhere.

The page is made by gradio. It listens on the loopback address unless another one is given. It makes no public link, loads no
fonts from elsewhere and sends no usage data. What it wrote is removed when it ends.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, MissingPackageError, PretrainPSError
from pretrainps.gallery.app.session import Added, Session
from pretrainps.gallery.query_selection import choose, numbered_picture, person_at
from pretrainps.gallery.results import SearchResult

_ABOUT = """# Find a person in your photos
Upload photos, choose one, and click on a person in it. Photos stay on the machine that this page comes from. They are removed
within a day after you leave, or when the app ends. Search only photos that you may use, for people who agreed to it or where
the law allows it. A similarity says how alike two people look to a model, above all in their clothes. It proves nothing."""
_STYLE = """
.gradio-container { max-width: 76rem !important; margin: 0 auto !important; }
#who img { cursor: crosshair; }
#photos .grid-wrap { max-height: 21rem; }
#photos .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(10rem, 46%), 1fr)) !important; }
#photos .thumbnail-item { aspect-ratio: 4 / 3; }
#answers .grid-wrap { max-height: none; }
#answers .grid-container { grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)) !important; }
#answers .thumbnail-item { aspect-ratio: 2 / 3; }
"""
_LARGEST_UPLOAD = "200mb"
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def build_app(model: PersonSearchDetector[Any]) -> Any:
    """Return the page, a `gradio.Blocks`.

    Args:
        model: A detector in eval mode. One visitor uses it at a time, and the others wait.

    Raises:
        MissingPackageError: gradio is not installed.
    """
    gr = _gradio()
    bar = gr.Progress(track_tqdm=True)

    def spoken(handler: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        """Show our errors on the page, and pass the event to a handler that has such a parameter."""
        if "event" in handler.__annotations__:
            handler.__annotations__["event"] = gr.SelectData  # gradio looks at this annotation

        @wraps(handler)
        def answer(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                return handler(*args, **kwargs)
            except PretrainPSError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return answer

    @spoken
    def add(files: list[str] | None, session: Session | None, progress: Any = bar) -> list[Any]:
        session = session or Session(model)
        added = session.add([Path(file) for file in files or []])
        return [session, None, _account(added), gr.Column(visible=bool(session.names)), session.thumbnails()]

    @spoken
    def show(session: Session, event: Any) -> list[Any]:
        name = session.names[event.index]
        detections = session.detections(name)
        picture = numbered_picture(session.photo(name), detections)
        hint = "Click on a person." if detections else f"No person was detected in {_code(name)}. Choose another photo."
        numbers = [str(number) for number in range(1, len(detections) + 1)]
        shown = gr.Image(picture, alt_text=f"{name}, with all people numbered")
        return [name, gr.Row(visible=True), shown, hint, gr.Radio(choices=numbers, value=None, visible=bool(detections))]

    @spoken
    def point(session: Session, name: str, event: Any) -> Any:
        photo, detections = session.photo(name), session.detections(name)
        scale = photo.width / numbered_picture(photo, ()).width
        number = person_at(detections, event.index[0] * scale, event.index[1] * scale)
        if number is None:
            gr.Info("There is no person at that point. Click inside a box.")
            return gr.skip()
        return str(number)

    @spoken
    def find(session: Session, name: str, number: str | None, top: int, own: bool, rerank: bool) -> list[Any]:
        if not number:
            return [None, gr.skip(), gr.skip(), gr.Column(visible=False), None, "", gr.Image(None, visible=False), None]
        detections = session.detections(name)
        result = session.search(choose(detections, int(number)), top=top, rerank=rerank, exclude_query_image=not own)
        picture = numbered_picture(session.photo(name), detections, chosen=int(number))
        shown = [gr.Column(visible=True), session.answers(result), _found(result), gr.Image(None, visible=False)]
        return [result, picture, gr.skip(), *shown, session.report(result)]

    @spoken
    def enlarge(session: Session, result: SearchResult, event: Any) -> list[Any]:
        hit = result.hits[event.index]
        found = hit.detection
        shown = gr.Image(session.scene(found), visible=True, alt_text=f"Answer {hit.rank}, in {found.image}")
        return [f"Answer {hit.rank}, similarity {hit.similarity:.3f}: {_code(found.id or found.image)}", shown]

    with gr.Blocks(title="Find a person", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        session = gr.State(None, delete_callback=lambda left: left and left.leave())
        name, result = gr.State(None), gr.State(None)
        gr.Markdown(_ABOUT)
        upload = gr.File(label="Photos", file_count="multiple", file_types=["image"], height=150, elem_id="upload")
        account = gr.Markdown(elem_id="account")
        plain: dict[str, Any] = {"interactive": False, "format": "jpeg", "show_label": False}
        grid: dict[str, Any] = {**plain, "object_fit": "cover", "allow_preview": False, "buttons": [], "height": "auto"}
        with gr.Column(visible=False) as first:
            gr.Markdown("### Your photos")
            photos = gr.Gallery(label="Your photos", elem_id="photos", **grid)
        with gr.Row(visible=False) as second:
            with gr.Column(min_width=320):
                gr.Markdown("### Who?")
                who = gr.Image(label="The photo, with all people numbered", buttons=[], elem_id="who", **plain)
                hint = gr.Markdown(elem_id="hint")
                number = gr.Radio(label="Person", choices=[], elem_id="number")
                with gr.Accordion("Options", open=False):
                    top = gr.Slider(1, 50, value=10, step=1, label="Answers")
                    own = gr.Checkbox(False, label="Answers from the same photo too")
                    rerank = gr.Checkbox(False, label="Compare the people around them, too (context matching)")
            with gr.Column(min_width=320, visible=False) as third:
                gr.Markdown("### Most alike, best first")
                answers = gr.Gallery(label="Most alike, best first", elem_id="answers", **grid)
                where = gr.Markdown(elem_id="where")
                scene = gr.Image(
                    label="The whole photo of an answer", visible=False, buttons=["fullscreen"], elem_id="scene", **plain
                )
                report = gr.DownloadButton("Save the answers as a page", size="md", elem_id="report")
        inputs = [session, name, number, top, own, rerank]
        outputs = [result, who, hint, third, answers, where, scene, report]
        upload.upload(add, [upload, session], [session, upload, account, first, photos])
        photos.select(show, session, [name, second, who, hint, number])
        who.select(point, [session, name], number, show_progress="hidden")
        number.change(find, inputs, outputs)
        for setting in (top, own, rerank):
            setting.input(find, inputs, outputs)
        answers.select(enlarge, [session, result], [where, scene])
    return page


def run_app(
    model: PersonSearchDetector[Any],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    ready: Callable[[str], None],
) -> None:
    """Serve the page until it is interrupted.

    Args:
        model: A detector in eval mode.
        host: The address to listen on. With any other than the loopback address, everyone who can reach it can use the page.
        port: By default the first free one from 7860.
        browser: Open the page in a browser.
        ready: Is called with the page's address when it is served.

    Raises:
        MissingPackageError: gradio is not installed.
        ArgumentError: The port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="pretrainps-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio makes folders there when it is imported
        gr = _gradio()
        page = build_app(model)
        try:
            _, address, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                footer_links=[],
                run_history=False,
                max_file_size=_LARGEST_UPLOAD,
                ssr_mode=False,
                enable_monitoring=False,
                theme=gr.themes.Default(
                    primary_hue="blue",
                    neutral_hue="stone",
                    font=["system-ui", "sans-serif"],
                    font_mono=["ui-monospace", "monospace"],
                ),
                css=_STYLE,
            )
        except OSError as error:
            raise ArgumentError(
                f"no page can be served on {host}, port {port or 'from 7860'} ({error}). Choose another."
            ) from error
        try:
            ready(address)
            while page.is_running:
                time.sleep(0.2)
        finally:
            page.close(verbose=False)


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        return import_module("gradio")
    except ImportError as error:
        raise MissingPackageError("the app needs gradio: pip install 'pretrainps[app]'") from error


def _account(added: Added) -> str:
    """Return what became of an upload, as text."""
    lines = [f"New photos: {added.photos:,}. People in all photos: {added.detections:,}."]
    lines += [f"Left out {_code(name)}: {reason}." for name, reason in added.refused]
    return "\n\n".join(lines)


def _found(result: SearchResult) -> str:
    searched = f"{result.searched:,} people in {result.images:,} photos ({result.method})"
    return f"Among {searched}. Click on an answer to see its whole photo." if result.hits else f"No answers among {searched}."


def _code(name: str) -> str:
    """Return a file's name as Markdown shows it literally."""
    return f"`{name.replace('`', chr(39))}`"
