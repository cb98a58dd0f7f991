"""The workflow of CI and the changelog: what else a release rests on."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

REPOSITORY = os.path.dirname(os.path.dirname(__file__))


def text(*path: str) -> str:
    with open(os.path.join(REPOSITORY, *path), encoding="utf-8") as file:
        return file.read()


TARGETS = set(re.findall(r"^([a-z0-9-]+):.* ## ", text("Makefile"), re.MULTILINE))


def asked_for(command: str) -> set[str]:
    """Return the targets of a command line that begins with "make"."""
    return {word for word in command.split()[1:] if "=" not in word}


WORKFLOWS = sorted(os.listdir(os.path.join(REPOSITORY, ".github", "workflows")))


def workflow(name: str = "ci.yml") -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(text(".github", "workflows", name))
    return loaded


def test_the_changelog_has_this_version_with_its_day() -> None:
    headings = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text("CHANGELOG.md"), re.MULTILINE)
    released = [(version, day) for version, day in headings if version != "Unreleased"]
    version = re.findall(r'__version__ = "(.+)"', text("eplb_launch", "_version.py"))
    assert [released[0][0]] == version
    assert all(re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", day) for _, day in released)


def test_ci_runs_the_tests_on_each_python_that_is_promised() -> None:
    jobs = workflow()["jobs"]
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text("pyproject.toml"))
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    (setup,) = [step for step in jobs["build"]["steps"] if "python-version" in step.get("with", {})]
    assert setup["with"]["python-version"].split() == promised


@pytest.mark.parametrize("name", WORKFLOWS)
def test_ci_runs_targets_that_are_there(name: str) -> None:
    """A workflow that runs what nobody runs by hand breaks unseen."""
    jobs = workflow(name)["jobs"].values()
    commands = [step["run"] for job in jobs for step in job.get("steps", ()) if "run" in step]
    assert commands
    for command in commands:
        assert command.startswith("make "), command
        assert asked_for(command) <= TARGETS, command


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_targets_that_are_there(document: str) -> None:
    named = re.findall(r"(?:`|^\$ )(?:[A-Z]+=\S+ )?(make [^`\n]+)", text(document), re.MULTILINE)
    assert named
    for command in named:
        assert asked_for(command) <= TARGETS, command


def test_only_the_job_that_publishes_may_act_as_the_project() -> None:
    jobs = workflow()["jobs"]
    assert workflow()["permissions"] == {"contents": "read"}
    asking = {name: job.get("permissions") for name, job in jobs.items()}
    assert {name for name, permissions in asking.items() if permissions} == {"publish"}
    assert asking["publish"] == {"id-token": "write"}
    publish = jobs["publish"]
    assert publish["if"] == "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"
    assert set(publish["needs"]) == set(jobs) - {"publish"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_a_commit(name: str) -> None:
    used = re.findall(r"uses: *(\S.*)", text(".github", "workflows", name))
    ours = {f"./.github/workflows/{other}" for other in WORKFLOWS}
    assert set(used) - ours
    for action in set(used) - ours:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


@pytest.mark.parametrize("target", ["oracle", "oracle-again"])
@pytest.mark.parametrize("release", ["", "abc", "0.33", "0.33.0; touch x"])
def test_a_release_that_is_none_is_refused_before_anything_is_installed(
    tmp_path: Path, target: str, release: str
) -> None:
    (tmp_path / "Makefile").write_text(text("Makefile"))
    done = subprocess.run(
        ["make", target, f"VLLM={release}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("which release? VLLM=X.Y.Z\n")
    assert os.listdir(tmp_path) == ["Makefile"]


@pytest.mark.parametrize("release", ["0.33.0", "0.34.0rc1", "0.33.0.post1+cu129"])
def test_a_release_is_taken(release: str) -> None:
    subprocess.run(["make", "release-given", f"VLLM={release}"], cwd=REPOSITORY, check=True)
