"""What the benchmarks show: nothing but what they measured, and all of that."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from overhead_results import Results

REPOSITORY = os.path.dirname(os.path.dirname(__file__))
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a script of benchmarks/, as it imports others itself."""
    monkeypatch.syspath_prepend(os.path.join(REPOSITORY, "benchmarks"))
    return importlib.import_module


def text(*path: str) -> str:
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def results(load: Any) -> Results:
    read: Results = load("overhead_results").from_json(
        text("benchmarks", "results", "overhead.json")
    )
    return read


def test_the_tables_and_the_drawing_are_of_the_figures_that_were_measured(
    load: Any, results: Results
) -> None:
    module = load("overhead_results")
    tables = module.to_markdown(results)
    assert text("benchmarks", "results", "overhead.md") == tables
    assert text("README.md") == module.between(text("README.md"), tables)
    assert text("benchmarks", "results", "overhead.svg") == load("overhead_plot").to_svg(results)
    assert text("benchmarks", "results", "overhead.json") == results.to_json()


def test_all_peers_were_measured(results: Results) -> None:
    names = {row.name for row in results.rows if row.milliseconds}
    assert len(names) == len(results.rows)
    assert names >= {
        *("no launcher", "env", "python -c, only execs", "eplb-launch", "eplb-launch, no server"),
        *("tini", "dumb-init", "envdir", "dotenv run", "honcho run"),
    }
    assert [other.name for other in results.others if other.seconds] == [
        *("eplb-launch ps", "ps aux", "eplb-launch check")
    ]


def test_a_peer_that_was_not_found_stays_in_the_table(load: Any, results: Results) -> None:
    module = load("overhead_results")
    rows = [
        module.Row(row.name, "") if row.name in {"tini", "honcho run"} else row
        for row in results.rows
    ]
    others = [replace(other, seconds=None) for other in results.others if other.name == "ps aux"]
    missing = replace(results, rows=rows, others=others)
    lines = module.to_markdown(missing).splitlines()
    absent = [line.split(" | ")[0] for line in lines if "not found, not measured" in line]
    assert absent == ["| tini", "| honcho run", "| `ps aux`"]
    assert "tini" not in load("overhead_plot").to_svg(missing)
    assert module.from_json(missing.to_json()).to_json() == missing.to_json()


def test_a_readme_without_a_place_for_the_tables_is_refused(load: Any) -> None:
    with pytest.raises(ValueError, match="no place"):
        load("overhead_results").between("# eplb-launch\n", "tables\n")


def test_a_bar_is_as_long_as_its_figure(load: Any, results: Results) -> None:
    drawing = ET.fromstring(load("overhead_plot").to_svg(results))
    bars = [bar for bar in drawing.iter(f"{SVG}rect") if bar.get("class") != "back"]
    medians = sorted(row.milliseconds[1] for row in results.rows if row.milliseconds)
    widths = [float(bar.get("width", "")) for bar in bars]
    scale = widths[-1] / medians[-1]
    assert widths == pytest.approx([median * scale for median in medians], abs=0.1)
    width, height = float(drawing.get("width", "")), float(drawing.get("height", ""))
    for bar in bars:
        assert float(bar.get("x", "")) + float(bar.get("width", "")) < width
        assert float(bar.get("y", "")) < height


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["LIGHT", "DARK"])
def test_the_drawing_can_be_read(load: Any, scheme: str) -> None:
    """WCAG 2 asks for 4.5 for text, and 3 for what else has to be seen."""
    colours = getattr(load("overhead_plot"), scheme)
    back = luminance(colours["back"]) + 0.05
    for name, least in {"text": 4.5, "faint": 4.5, "ours": 3, "peer": 3}.items():
        other = luminance(colours[name]) + 0.05
        assert max(back, other) / min(back, other) >= least, name


@pytest.mark.parametrize(
    ("words", "variable", "stays"),
    [
        ([], "unset", False),
        (["env", "NCCL_MAX_CTAS=8"], "8", False),
        (["sh", "-c", '"$@"; exit', "sh"], "unset", True),
    ],
)
def test_what_a_launcher_did_is_seen_by_the_server(
    load: Any, tmp_path: Path, words: list[str], variable: str, stays: bool
) -> None:
    environ = load("whole_process").make_environment(str(tmp_path / "vllm"), "sh")
    found = [shutil.which(words[0]), *words[1:]] if words else []
    launcher = load("overhead_peers").Launcher("any", found, "")
    assert load("overhead").watch(launcher, environ) == (variable, stays)


@pytest.mark.parametrize(("program", "said"), [("false", "status 1"), ("env", "unset")])
def test_a_launcher_of_ours_that_does_not_do_its_work_is_not_measured(
    load: Any, tmp_path: Path, program: str, said: str
) -> None:
    environ = load("whole_process").make_environment(str(tmp_path / "vllm"), "sh")
    launcher = load("overhead_peers").Launcher("eplb-launch", [shutil.which(program)], "")
    with pytest.raises(SystemExit, match=said):
        load("overhead").watch(launcher, environ)


def test_who_is_missing_is_not_measured_and_not_forgotten(load: Any) -> None:
    launcher = load("overhead_peers").Launcher
    env = shutil.which("env")
    found = [
        launcher("env", [env], "1"),
        launcher("tini", None, ""),
        launcher("python -c, only execs", [env, "-u", "A"], "2"),
    ]
    first, second, third = load("overhead").measure_launchers(found, 3)
    assert (second.name, second.milliseconds) == ("tini", None)
    assert (first.to_env, third.to_python) == (1, 1)
    for row in (first, third):
        low, middle, high = row.milliseconds
        assert 0 < low <= middle <= high


@pytest.fixture
def load_deepep(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that imports a script of benchmarks/deepep."""
    for folder in ("nccl", "deepep"):
        monkeypatch.syspath_prepend(os.path.join(REPOSITORY, "benchmarks", folder))
    return importlib.import_module


def test_what_is_shown_of_deepep_is_what_was_measured(load_deepep: Any) -> None:
    show = load_deepep("show")
    found = show.answers()
    for page, block in show.pages(found).items():
        assert text(page) == show.between(text(page), block)
    runs = [answer for answer in found if answer["batches"] == "busy"]
    assert sorted(answer["seed"] for answer in runs) == list(range(10))
    assert not any(answer["variable"] for answer in runs)
    assert text("benchmarks", "results", "deepep-cost.svg") == show.to_svg(show.costs(found))
    ET.fromstring(show.to_svg(show.costs(found)))
    assert all(set(line) == set(show.CAPS) for line in show.costs(found).values())
    with pytest.raises(SystemExit, match="marks"):
        show.between("# eplb-launch\n", "table\n")


def test_nccl_took_the_blocks_that_its_rule_gives(load_deepep: Any) -> None:
    rows, launch = load_deepep("deepep_rows"), load_deepep("deepep_launch")
    checked = 0
    for answer in load_deepep("show").answers():
        if "nccl" in answer:
            names = launch.Trial.__dataclass_fields__
            trial = launch.Trial(**{name: answer[name] for name in names})
            cap = int(answer["variable"]) if answer["variable"] else None
            assert answer["nccl"] == [rows.nccl_expected(trial, cap)]
            checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    ("ranks", "ctas", "mib", "blocks"),
    [(2, 8, 16, 4), (2, 8, 512, 8), (4, 8, 28, 6), (8, 8, 3, 7), (8, 8, 28, 8), (8, 4, 28, 4)],
)
def test_more_peers_take_more_blocks(
    load_deepep: Any, ranks: int, ctas: int, mib: int, blocks: int
) -> None:
    rows = load_deepep("deepep_rows")
    assert rows.nccl_blocks(ctas, mib << 20, range(1, ranks), ranks) == blocks


def test_each_row_was_as_expected(load_deepep: Any) -> None:
    rows, launch = load_deepep("deepep_rows"), load_deepep("deepep_launch")
    for answer in load_deepep("show").answers():
        if "hangs" not in answer or "nccl" not in answer:  # the grids that stopped: README.md there
            continue
        names = launch.Trial.__dataclass_fields__
        trial = launch.Trial(**{name: answer[name] for name in names})
        environ = rows.NO_CLUSTERS if "CLUSTER" in answer["launch"] else {}
        wanted = rows.expected(trial, answer["nccl"][0], 132, environ)
        assert wanted == rows.MAY_RUN or (wanted == rows.HANGS) is answer["hangs"]


def test_the_start_up_is_measured_of_commands_that_set_the_variable() -> None:
    script = os.path.join(REPOSITORY, "benchmarks", "startup.py")
    done = subprocess.run(
        [sys.executable, script, "--rounds", "2"], capture_output=True, text=True, check=False
    )
    # A busy machine does not meet the target: status 1, and nothing on stderr.
    assert (done.returncode in (0, 1), done.stderr) == (True, "")
    assert "\ntarget     ratio 1.5 at most" in done.stdout
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert {"python -c that only execs", "release looked up", "python -m eplb_launch"} <= {*rows}
    assert "behind one wrapper" in done.stdout
    assert "in bash -c" in done.stdout
