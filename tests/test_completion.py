"""TAB in the real shells, with the script that `--show-completion` prints for them."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest
from conftest import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

# The line up to the cursor, and a word that TAB offers; None: TAB offers nothing.
TYPED = [
    ("eplb-launch --str", "--strict"),
    ("eplb-launch ", "explain"),
    ("eplb-launch explain --js", "--json"),
    ("eplb-launch env --format syst", "systemd"),
    ("eplb-launch -- vllm se", None),
    ("eplb-launch -- ", None),
    ("eplb-launch -- sh -c 'vllm se", None),
    ("eplb-launch explain -- --js", None),
    ("eplb-launch vllm se", None),
]
# More lines, in one shell only: all shells get the same words.
MORE = [
    ("eplb-launch exp", "explain"),
    ("eplb-launch --strict expl", "explain"),
    ("eplb-launch check --format sar", "sarif"),
    ("eplb-launch -- e", None),
    ("eplb-launch -- --str", None),
    ("eplb-launch --strict -- vllm --quiet", None),
    ("eplb-launch explain -- vllm se", None),
    ("eplb-launch env --format shell -- ", None),
    ("eplb-launch check -- a", None),
]


class Pressed(NamedTuple):
    """The words that TAB offered or put into the line, and everything else that was shown."""

    found: list[str]
    said: str


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        env={"PATH": f"{os.path.dirname(SCRIPT)}:/usr/bin:/bin", "HOME": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )


def in_bash(folder: Path, typed: str) -> Pressed:
    """Call the function that bash calls, with the words as its line editor splits them."""
    words = typed.replace("'", "").split()
    if typed.endswith(" "):
        words.append("")
    press = (
        '. ./completion; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); read -r _ _ _ _ name _ '
        '<<< "$(complete -p eplb-launch)"; "$name" eplb-launch; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = run(folder, "bash", "-c", press, "bash", *words)
    return Pressed(done.stdout.split(), done.stderr)


def in_fish(folder: Path, typed: str) -> Pressed:
    done = run(folder, "fish", "-c", ". ./completion; complete -C $argv[1]", typed)
    return Pressed([line.partition("\t")[0] for line in done.stdout.splitlines()], done.stderr)


SETTING = r"""
PS1= PS2=
unsetopt zle_bracketed_paste 2> /dev/null
autoload -Uz compinit && compinit -u -D && . ./completion
zstyle ':completion:*' list-prompt ''
LISTMAX=1000
tell() { print -r -- "$BUFFER" > line; exit }
zle -N tell
bindkey '^X' tell
print -r -- ready > ready
"""


def in_zsh(folder: Path, typed: str) -> Pressed:
    """Type at a terminal. ^X then writes the line to a file."""
    (folder / ".zshrc").write_text(SETTING)
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["zsh", "-i", "+m"],
        env={
            "PATH": f"{os.path.dirname(SCRIPT)}:/usr/bin:/bin",
            "HOME": str(folder),
            "ZDOTDIR": str(folder),
            "TERM": "dumb",
        },
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    waiting = [typed.encode() + b"\t\x18"]
    try:
        while process.poll() is None:
            if waiting and (folder / "ready").exists():
                os.write(ours, waiting.pop())
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 4096)
    except OSError:  # all its ends are closed
        process.wait()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    line = (folder / "line").read_text().rstrip("\n")
    said = shown.decode()
    typed_before = typed.rpartition(" ")[0]
    assert line.startswith(typed_before)
    new = line[len(typed_before) :].split() if line != typed else []
    listed = said.partition("\n")[2].split() if line == typed else []
    return Pressed(new + listed, said)


SHELLS = {"bash": in_bash, "zsh": in_zsh, "fish": in_fish}


ROWS = [(shell, *row) for shell in SHELLS for row in TYPED] + [("bash", *row) for row in MORE]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the script that each installed shell gets."""
    folder = tmp_path_factory.mktemp("completion")
    press = "eplb-launch --show-completion; true"  # sh would become the last command
    here = [shell for shell in SHELLS if shutil.which(shell)]
    return {shell: run(folder, shell, "-c", press).stdout for shell in here}


@pytest.mark.parametrize(
    ("shell", "typed", "expected"), ROWS, ids=[f"{shell}: {typed}" for shell, typed, _ in ROWS]
)
def test_a_tab_completes_in_each_real_shell(
    tmp_path: Path, scripts: dict[str, str], shell: str, typed: str, expected: str | None
) -> None:
    if shell not in scripts:
        pytest.skip(f"no {shell} here")
    (tmp_path / "completion").write_text(scripts[shell])
    pressed = SHELLS[shell](tmp_path, typed)
    assert "Traceback" not in pressed.said
    if expected:
        assert expected in pressed.found
        assert "--quiet" not in pressed.found
    else:
        assert pressed.found == []
    if shell != "zsh":  # zsh shows the line
        assert pressed.said == ""


def test_a_completion_that_fails_prints_nothing() -> None:
    done = subprocess.run(
        [SCRIPT],
        env={
            "PATH": "/usr/bin:/bin",
            "_EPLB_LAUNCH_COMPLETE": "complete_bash",
            "COMP_WORDS": "eplb-launch x",
            "COMP_CWORD": "no number",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (125, "", "")
