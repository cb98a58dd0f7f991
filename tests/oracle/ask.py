"""Talk to a process that answers with a release of vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_ANSWER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "answer.py")


class Release:
    """One release of vLLM, in a process that lives as long as this."""

    def __init__(self, python: str, sources: Path, log: Path) -> None:
        """Start `answer` with an interpreter and sources; `log` is what vLLM says meanwhile."""
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [python, "-u", _ANSWER, os.path.abspath(sources)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                # What vLLM says of a set is in the same order every time.
                env={**os.environ, "PYTHONHASHSEED": "0"},
                text=True,
            )
        self.log = log
        # Every option as it can be written, with the name that argparse has for what it sets.
        self.settings: dict[str, str] = self._read()["options"]
        self.options = frozenset(self.settings)

    def close(self) -> None:
        """End the process: its input ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return what vLLM makes of a row: see tests/data/oracle/README.md."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(row) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.close()
            raise SystemExit(f"vLLM ended: see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        return answer
