"""The bars: one drawing that brings its own background, for light pages and dark ones."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from overhead_results import fastest_first

if TYPE_CHECKING:
    from overhead_results import Results

WIDTH, LINE, BAR = 760, 27, 15
LEFT, RIGHT, TOP, BOTTOM = 195, 130, 58, 40
LIGHT = {
    "back": "#ffffff",
    "text": "#1f2328",
    "faint": "#59636e",
    "ours": "#0969da",
    "peer": "#818b98",
}
DARK = {
    "back": "#151b23",
    "text": "#f0f6fc",
    "faint": "#9198a1",
    "ours": "#4493f8",
    "peer": "#656c76",
}


def _style(colours: dict[str, str]) -> str:
    text, peer = colours["text"], colours["peer"]
    return (
        f".back{{fill:{colours['back']};stroke:{peer}}}"
        f"text{{fill:{text}}}text.faint{{fill:{colours['faint']}}}"
        "text.title{font-size:15px}text.title,text.ours{font-weight:bold}"
        f"rect.peer{{fill:{peer}}}rect.ours{{fill:{colours['ours']}}}"
        f".quartiles{{stroke:{text};stroke-width:1.5}}"
        f".grid{{stroke:{peer};stroke-width:.5;stroke-opacity:.5}}"
    )


def _step(longest: float) -> int:
    """Return how far apart the lines are: four to eight of them."""
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000) if longest / step <= 8)


def _text(x: float, y: float, text: str, **attributes: str) -> str:
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{value}"' for name, value in attributes.items()
    )
    return f'<text x="{x:.1f}" y="{y:.1f}"{given}>{escape(text)}</text>'


def _line(x1: float, x2: float, y1: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def to_svg(results: Results) -> str:
    """Draw the medians of the launchers, and their quartiles as a thin line."""
    rows = [(row, row.milliseconds) for row in fastest_first(results) if row.milliseconds]
    longest = max(quartiles[2] for _, quartiles in rows)
    scale = (WIDTH - LEFT - RIGHT) / longest
    bottom = TOP + LINE * len(rows)
    height = bottom + BOTTOM
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-family="sans-serif" font-size="13">'
    )
    style = f"{_style(LIGHT)}@media(prefers-color-scheme:dark){{{_style(DARK)}}}"
    title = "From start to end of a command, behind each launcher"
    legend = "median, ms; thin line: quartiles; in brackets: times a bare Python that only execs"
    lines = [
        head,
        f"<title>{title}</title>",
        f"<style>{style}</style>",
        f'<rect class="back" x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        _text(16, 26, title, class_="title"),
        _text(16, 44, legend, class_="faint"),
    ]
    for number in range(0, int(longest) + 1, _step(longest)):
        x = LEFT + number * scale
        lines.append(_line(x, x, TOP, bottom, "grid"))
        lines.append(_text(x, bottom + 18, str(number), class_="faint", text_anchor="middle"))
    for number, (row, (low, middle, high)) in enumerate(rows):
        y = TOP + LINE * (number + 0.5)
        kind = "ours" if row.ours else "peer"
        lines.append(_text(LEFT - 10, y + 4.5, row.name, class_=kind, text_anchor="end"))
        lines.append(
            f'<rect class="{kind}" x="{LEFT}" y="{y - BAR / 2}" '
            f'width="{middle * scale:.1f}" height="{BAR}"/>'
        )
        lines.append(_line(LEFT + low * scale, LEFT + high * scale, y, y, "quartiles"))
        figures = f"{middle:.1f} ({row.to_python:.2f})"
        lines.append(_text(LEFT + high * scale + 8, y + 4.5, figures, class_=kind))
    return "\n".join([*lines, "</svg>", ""])
