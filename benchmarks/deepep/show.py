"""Write what README.md shows of DeepEP from the answers in benchmarks/results: measures nothing.

Between two marks: in README.md the table of vLLM's own exchange; in docs/measurements.md how many
steps it took with batches that grow and shrink, and the table of the large transfer. What a lower
cap costs, as deepep-cost.svg.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
import statistics
from typing import Any

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RESULTS = os.path.join(ROOT, "benchmarks", "results")
BEGIN, END = "<!-- made by benchmarks/deepep/show.py -->\n", "<!-- end of it -->"
COLUMNS = ("none", "8", "4")
CAPS = ("none", "8", "4", "2", "1")
WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 240, 20, 40
COLOURS = ("#1f77b4", "#d95f02", "#7570b3", "#1b9e77")


def answers() -> list[dict[str, Any]]:
    """Return all answers that are kept."""
    found: list[dict[str, Any]] = []
    for path in sorted(glob.glob(os.path.join(RESULTS, "deepep-*.json"))):
        with open(path) as file:
            found += json.load(file)["answers"]
    return found


def _cap(answer: dict[str, Any]) -> str:
    return answer["variable"] or "none"


def table(found: list[dict[str, Any]]) -> str:
    """Return the table of vLLM's own exchange, by release, communicator and model."""
    rows: dict[tuple[str, str, str], dict[str, dict[str, Any]]] = {}
    for answer in found:
        if answer["move"] != "vllm" or "hangs" not in answer or answer["batches"] == "busy":
            continue
        release = answer["launch"].rpartition(": ")[0].removeprefix("vLLM ")
        tokens = str(answer["tokens"])
        tokens = tokens if answer["batches"] == "fixed" else f"8 to {tokens}, varied"
        model = f"{answer['experts']}, {answer['model']}"
        if answer["swaps"]:
            model += f" ({answer['experts_moved']} moved)"
        rows.setdefault((release, model, tokens), {})[_cap(answer)] = answer
    lines = [
        "| vLLM | experts, weights of | tokens of a call | no cap | `NCCL_MAX_CTAS=8` | 4 |",
        "|---|---|---|---|---|---|",
    ]
    for (release, model, tokens), by_cap in sorted(rows.items(), key=lambda row: row[0][0]):
        cells = [_cell(by_cap.get(column)) for column in COLUMNS]
        lines.append(f"| {' | '.join((release, model, tokens, *cells))} |")
    return "\n".join(lines) + "\n"


def _cell(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return ""
    blocks = ", ".join(map(str, answer["nccl"]))
    if answer["hangs"]:
        return f"**hangs** (step {answer['steps']}; {blocks} CTAs)"
    return f"runs ({blocks} CTAs)"


def busy(found: list[dict[str, Any]]) -> str:
    """Return what was seen with batches as a busy server has them."""
    runs = [answer for answer in found if answer["batches"] == "busy"]
    hung = [answer for answer in runs if answer["hangs"]]
    shown = []
    for name in ("steps", "moves"):
        values = sorted(answer[name] for answer in hung)
        middle = f"{statistics.median(values):g}"
        shown.append(f"{middle} {name} (median; {values[0]} to {values[-1]})")
    return (
        "With batches that grow and shrink (8 to 256 tokens, 144 experts) and no cap "
        f"{len(hung)} of {len(runs)} runs hang,\nafter {' and '.join(shown)}.\n"
    )


def large(found: list[dict[str, Any]]) -> str:
    """Return the table of the transfer that fills the cap, by experts, tokens and cap."""
    rows: dict[tuple[int, int, str], dict[str, dict[str, Any]]] = {}
    for answer in found:
        if answer["move"] != "large" or "hangs" not in answer or answer["order"]:
            continue
        if "CLUSTER" not in answer["launch"]:
            key = answer["experts"], answer["tokens"], answer["batches"]
            rows.setdefault(key, {})[_cap(answer)] = answer
    lines = [
        "| experts | tokens of a call | dispatch | combine | no cap | 8 | 4 | 2 | 1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (experts, tokens, batches), by_cap in sorted(rows.items()):
        one = next(iter(by_cap.values()))
        varied = "" if batches == "fixed" else f"8 to {tokens}, varied"
        cells = [
            *(str(experts), varied or str(tokens)),
            *(", ".join(map(str, one[name])) for name in ("dispatch", "combine")),
            *(_large(by_cap.get(cap)) for cap in CAPS),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _large(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return ""
    return f"**hangs** ({answer['steps']})" if answer["hangs"] else "runs"


def costs(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a move by what is moved and by the cap, with nothing beside it."""
    lines: dict[str, dict[str, float]] = {}
    for answer in found:
        if answer["steps"] or "move_ms" not in answer or answer["move"] == "both":
            continue
        name = f"{answer['mib']} MiB"
        if answer["move"] == "vllm":
            name = f"{answer['experts_moved']} experts of {answer['model']}"
        if name != "16 MiB":
            lines.setdefault(name, {})[_cap(answer)] = answer["move_ms"]
    return lines


def to_svg(lines: dict[str, dict[str, float]]) -> str:
    """Draw them: the caps from left to right, the time by its logarithm."""
    most = max(value for line in lines.values() for value in line.values())
    top = math.ceil(math.log10(most))

    def x(cap: str) -> float:
        return LEFT + CAPS.index(cap) * (WIDTH - LEFT - RIGHT) / (len(CAPS) - 1)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - math.log10(value) / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        '<g font-family="sans-serif" font-size="12" fill="#555">',
        "<title>What a lower cap costs: milliseconds of a move</title>",
    ]
    for power in range(top + 1):
        at = y(10**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ccc"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power}</text>')
    parts.append(f'<text x="{LEFT - 8}" y="12" text-anchor="end">ms</text>')
    for cap in CAPS:
        text = "no cap" if cap == "none" else cap
        parts.append(f'<text x="{x(cap):.1f}" y="{HEIGHT - 20}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<text x="{x("4"):.1f}" y="{HEIGHT - 4}" text-anchor="middle">most CTAs of NCCL</text>'
    )
    last = float("inf")  # where the name before stands; the slowest stands highest
    by_time = sorted(lines.items(), key=lambda entry: entry[1][CAPS[-1]])
    for colour, (name, line) in zip(COLOURS, by_time, strict=False):
        points = [(x(cap), y(line[cap])) for cap in CAPS if cap in line]
        path = "L".join(f"{left:.1f} {at:.1f}" for left, at in points)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{left:.1f}" cy="{at:.1f}" r="3" fill="{colour}"/>' for left, at in points
        ]
        last = min(points[-1][1] + 4, last - 15)
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{last:.1f}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def between(text: str, block: str) -> str:
    """Return a text with what stands between the marks replaced."""
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    if not re.search(pattern, text, re.DOTALL):
        raise SystemExit("the marks are missing")
    return re.sub(pattern, lambda _: f"{BEGIN}\n{block}\n{END}", text, count=1, flags=re.DOTALL)


def pages(found: list[dict[str, Any]]) -> dict[str, str]:
    """Return what is shown, by the page."""
    return {
        "README.md": table(found),
        "docs/measurements.md": f"{large(found)}\n{busy(found)}",
    }


def main() -> None:
    """Write all."""
    found = answers()
    with open(os.path.join(RESULTS, "deepep-cost.svg"), "w") as file:
        file.write(to_svg(costs(found)))
    for name, block in pages(found).items():
        path = os.path.join(ROOT, name)
        with open(path) as file:
            text = file.read()
        with open(path, "w") as file:
            file.write(between(text, block))


if __name__ == "__main__":
    main()
