"""The web page: an image in, what models say of it out. Nothing on it comes from another computer."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from gcpzoo.errors import UNEXPECTED, ZooError
from gcpzoo.limits import UPLOAD_BYTES
from gcpzoo.serve.markup import show_error, show_hint, show_look
from gcpzoo.serve.viewer import Look, Viewer

HEADER = (
    '<header class="zoo-header"><h1>gcpzoo</h1><p>Global covariance pooling: what a model says of an image, '
    "and what speaks for it.</p></header>"
)
HINT = "Choose an image, or take one of the digits. What the model says of it appears here."
DIGITS = Path(str(files("gcpzoo.serve"))) / "digits"
"""Test images of scikit-learn's digits, to try the page with."""
DIGITS_MODEL = "resnet18_isqrt.digits"
SECONDS = 600
"""Age at which files of visitors are deleted."""
UPLOADS = "GRADIO_TEMP_DIR"
"""Variable by which gradio knows where to keep files of visitors; it reads it whenever one comes."""
HOST, PORT = "127.0.0.1", 7860


def build_page(viewer: Viewer | None = None) -> Any:
    """Build the page.

    Args:
        viewer: the models to show; null: those of the zoo.

    Returns:
        Gradio's ``Blocks``; :func:`opened` serves it.

    Raises:
        ModuleNotFoundError: without the extra ``app``.

    >>> build_page().title
    'gcpzoo'
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
    import gradio as gr

    shown = viewer or Viewer()
    first = shown.choices[0][1]
    with gr.Blocks(title="gcpzoo", analytics_enabled=False, delete_cache=(SECONDS, SECONDS)) as page:
        gr.HTML(HEADER)
        with gr.Row(elem_id="zoo-page"):
            with gr.Column(scale=2, min_width=280, elem_id="zoo-controls"):
                image = gr.File(label="Image", file_types=["image"], height=150, elem_id="zoo-image")
                gr.HTML('<p class="zoo-label">No image at hand? A handwritten digit:</p>')
                with gr.Row(elem_id="zoo-digits"):
                    paths = sorted(str(path) for path in DIGITS.glob("*.png"))
                    digits = [gr.Button(Path(path).stem, icon=path, min_width=60) for path in paths]
                model = gr.Dropdown(shown.choices, value=first, label="Model", elem_id="zoo-model")
                beside = gr.Checkbox(**_beside(shown, first), interactive=True, elem_id="zoo-beside")
                explain = gr.Dropdown(**_classes(None), interactive=True, elem_id="zoo-explain")
            with gr.Column(scale=5, min_width=280):
                answer = gr.HTML(show_hint(HINT), elem_id="zoo-answer")
        answers = Answers(shown)
        known: Any = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "models"}
        given, changed = [image, model, beside], [answer, explain, beside]
        for event in (image.upload, image.clear):
            event(answers.anew, given, changed, **known)
        model.input(answers.chosen, [image, model], changed, **known)
        for event in (beside.input, explain.input):
            event(answers.again, [*given, explain], answer, **known)
        for button, path in zip(digits, paths):
            taken = button.click(answers.taker(path), model, [image, model], **known)
            taken.then(answers.chosen, [image, model], changed, **known)
    return page


class Answers:
    """What the page's controls call.

    >>> Answers(Viewer()).again(None, "resnet18_isqrt.digits", False, "")
    '<p class="zoo-hint">...</p>'
    """

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer

    def chosen(self, path: str | None, model: str) -> tuple[str, Any, Any]:
        """Answer for another model, beside its control where that needs no download."""
        return self.anew(path, model, bool(_beside(self.viewer, model)["value"]))

    def anew(self, path: str | None, model: str, beside: bool) -> tuple[str, Any, Any]:
        """Answer for another image: HTML, the classes that may be explained, and the box of the control."""
        import gradio as gr

        html, look = self._look(path, model, beside, None)
        box = {**_beside(self.viewer, model), "value": beside}
        return html, gr.Dropdown(**_classes(look)), gr.Checkbox(**box)

    def taker(self, path: str) -> Callable[[str], tuple[str, str]]:
        """Make the function of a button that takes a digit for the image, and a model that reads digits."""
        return lambda model: (path, model if self.viewer.reads_digits(model) else DIGITS_MODEL)

    def again(self, path: str | None, model: str, beside: bool, label: str | None) -> str:
        """Answer for the same image and model, another class or with another box."""
        return self._look(path, model, beside, label or None)[0]

    def _look(self, path: str | None, model: str, beside: bool, label: str | None) -> tuple[str, Look | None]:
        if path is None:
            return show_hint(HINT), None
        try:
            look = self.viewer.look(path, model, label, beside)
        except ZooError as error:
            return show_error(str(error)), None
        except Exception:  # or the page would keep the answer to the image before
            logging.getLogger(__name__).exception("no answer for an image")
            return show_error(UNEXPECTED), None
        return show_look(look), look


def serve_page(viewer: Viewer | None = None, host: str = HOST, port: int = PORT) -> None:
    """Serve the page until the program is stopped, and print where.

    Raises:
        ZooError: if the port cannot be used.

    >>> serve_page(port=70000)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: port must be between 0 and 65535, got 70000
    """
    with opened(viewer, host, port) as url:
        print(f"{url} shows the page; Ctrl-C ends it", flush=True)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # the files of visitors are deleted then, too
        threading.Event().wait()


@contextmanager
def opened(viewer: Viewer | None = None, host: str = HOST, port: int = PORT) -> Iterator[str]:
    """Serve the page while a block of code runs; the files of its visitors are deleted after it.

    Args:
        viewer: the models to show; null: those of the zoo.
        host: address to listen on; by default only this computer's browsers reach it.
        port: 0 for a free one.

    Returns:
        Context that gives the page's address.

    Raises:
        ZooError: if the port cannot be used.
        ModuleNotFoundError: without the extra ``app``.

    >>> with opened(port=-1) as url:
    ...     print(url)
    Traceback (most recent call last):
    gcpzoo.errors.ZooError: port must be between 0 and 65535, got -1
    """
    import gradio as gr

    from gcpzoo.serve.server import bind, url

    with bind(host, port) as found:  # another error than gradio's, at once
        address, port = url(found), found.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="gcpzoo-", ignore_cleanup_errors=True) as folder:
        before = os.environ.get(UPLOADS)
        os.environ[UPLOADS] = folder
        page = build_page(viewer)
        fonts: Any = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        page.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=UPLOAD_BYTES,
            allowed_paths=[str(DIGITS)],
            theme=gr.themes.Base(primary_hue="emerald", neutral_hue="slate", radius_size="lg", **fonts),
            css=files("gcpzoo.serve").joinpath("page.css").read_text(encoding="utf-8"),
        )
        try:
            yield address.replace("//0.0.0.0:", "//127.0.0.1:")  # browsers go to addresses of computers only
        finally:
            page.close(verbose=False)
            os.environ.pop(UPLOADS)
            if before is not None:
                os.environ[UPLOADS] = before


def _beside(viewer: Viewer, model: str) -> dict[str, Any]:
    """Say how the box of the control looks: hidden without one, ticked where that needs no download."""
    control = viewer.control_of(model)
    label = f"Beside its GAP control, {control}"
    return {"label": label, "visible": control is not None, "value": control is not None and viewer.is_here(control)}


def _classes(look: Look | None) -> dict[str, Any]:
    """Offer the classes of an answer to explain."""
    scores = look.opinions[0].scores if look is not None else ()
    choices = [("the likeliest class", ""), *((score.description, score.name) for score in scores)]
    return {"label": "Explain", "choices": choices, "value": "", "visible": bool(scores)}
