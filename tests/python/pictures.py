"""What a rendered picture shows: every text that was drawn, where it is, and the pixels there."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure
from matplotlib.text import Text


@dataclass
class Drawn:
    text: str
    box: tuple[float, float, float, float]  # left, bottom, right, top, in pixels of the file


def render(monkeypatch, plot, file) -> tuple[list[Drawn], np.ndarray]:
    """Calls ``plot``, which writes ``file``: the texts in it, and its pixels [height, width, 3]."""
    texts: dict[int, Drawn] = {}
    draw, draw_figure = Text.draw, Figure.draw

    def watch(self, renderer, *arguments, **named):
        if self.get_visible() and self.get_text().strip():
            box = self.get_window_extent(renderer)
            texts[id(self)] = Drawn(self.get_text(), (box.x0, box.y0, box.x1, box.y1))
        return draw(self, renderer, *arguments, **named)

    def begin(self, renderer):
        # The layout draws everything, too, with other ticks; what counts is the last drawing.
        texts.clear()
        return draw_figure(self, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Figure, "draw", begin)
        patch.setattr(Text, "draw", watch)
        plot()
    pixels = image.imread(file)[:, :, :3]
    assert texts, "no text was drawn"
    return list(texts.values()), pixels


def check_readable(texts: list[Drawn], pixels: np.ndarray) -> None:
    """Every text is whole, on no other one, and in pixels that differ from their ground."""
    height, width, _ = pixels.shape
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (edge > 0.99).all(), "something reaches the edge of the picture"
    for one in texts:
        left, bottom, right, top = one.box
        assert left >= 0 and bottom >= 0 and right <= width and top <= height, one
        inside = pixels[int(height - top) : int(height - bottom) + 1, int(left) : int(right) + 1]
        assert inside.mean(axis=2).min() < 0.5, f"{one} has no ink"
    for one, other in combinations(texts, 2):
        across = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
        along = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
        assert across <= 1 or along <= 1, f"{one} is on {other}"


def has_text(texts: list[Drawn], text: str) -> bool:
    """Whether it was drawn, in however many lines."""
    return any("".join(one.text.split()) == "".join(text.split()) for one in texts)


def count_color(pixels: np.ndarray, color: str) -> int:
    """How many pixels have exactly that color, "#rrggbb"."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.round(pixels * 255).astype(int) == wanted).all(axis=2).sum())
