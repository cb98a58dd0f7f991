"""examples/: valid for the programs that read them, ok for `check`, and run with a stand-in."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING, Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from eplb_launch.check import units
from eplb_launch.check.command import check

if TYPE_CHECKING:
    from pathlib import Path

HERE = os.path.dirname(__file__)
EXAMPLES = os.path.join(os.path.dirname(HERE), "examples")
SCRIPT = os.path.join(sysconfig.get_path("scripts"), "eplb-launch")
UNIT = os.path.join(EXAMPLES, "systemd", "vllm.service")
# What stands for the image's and the node's programs.
STAND_INS = {
    "vllm": '#!/bin/sh\nprintf "%s\\n" "$@" "NCCL_MAX_CTAS=${NCCL_MAX_CTAS-not set}"\n',
    # Runs its command once, as on the second of two nodes.
    "srun": '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nSLURM_PROCID=1 exec "$@"\n',
    "scontrol": "#!/bin/sh\nprintf 'node0\\nnode1\\n'\n",
}


def read(*parts: str) -> str:
    with open(os.path.join(EXAMPLES, *parts), encoding="utf-8") as file:
        return file.read()


def manifest(name: str) -> Any:
    return yaml.safe_load(read("kubernetes", name))


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """Return a folder of programs: the launcher as installed, and the stand-ins."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "eplb-launch").symlink_to(SCRIPT)
    return folder


def started(node: Path, command: list[str], **environ: str) -> list[str]:
    """Run a command, and return what reached the server."""
    done = subprocess.run(
        command,
        env={"PATH": f"{node}:/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"eplb-launch: set NCCL_MAX_CTAS=8: async EPLB .*\n", done.stderr)
    return done.stdout.split("\n")[:-1]


def test_check_says_ok_for_all() -> None:
    review = check([EXAMPLES])
    assert review.troubles == ()
    assert {finding.verdict for finding in review.findings} == {"ok"}
    found = {os.path.relpath(finding.file, EXAMPLES) for finding in review.findings}
    assert found == {
        "compose/compose.yaml",
        "docker/Dockerfile",
        "kubernetes/deployment.yaml",
        "kubernetes/leaderworkerset.yaml",
        "kubernetes/single-file.yaml",
        "show.sh",
        "slurm/vllm.sbatch",
        "systemd/vllm.service",
    }


def test_without_the_launcher_check_would_not(tmp_path: Path) -> None:
    copy = tmp_path / "examples"
    shutil.copytree(EXAMPLES, copy)
    launcher = re.compile(
        r'/opt/vllm/bin/eplb-launch -- |eplb-launch -- |"eplb-launch", "--", '
        r'|"python3", "/opt/eplb-launch/eplb-launch.pyz", "--", '
    )
    for parent, _, files in os.walk(copy):
        for name in files:
            path = os.path.join(parent, name)
            with open(path, encoding="utf-8") as file:
                text = file.read()
            with open(path, "w", encoding="utf-8") as file:
                file.write(launcher.sub("", text))
    verdicts = {
        os.path.basename(finding.file): finding.verdict for finding in check([str(copy)]).findings
    }
    assert verdicts == {
        "compose.yaml": "exposed",
        "Dockerfile": "ok",  # it has no arguments
        "deployment.yaml": "exposed",
        "show.sh": "ok",  # the last of its servers, by the value that it sets
        "leaderworkerset.yaml": "exposed",
        "single-file.yaml": "exposed",
        "vllm.sbatch": "unknown",  # how many nodes
        "vllm.service": "unknown",  # what is in its EnvironmentFile=
    }


@pytest.mark.parametrize("name", ["deployment.yaml", "single-file.yaml"])
def test_a_deployment_is_valid_for_kubernetes(name: str) -> None:
    kubernetes_validate.validate(manifest(name), "1.31", strict=True)


def test_the_leader_worker_set_is_valid() -> None:
    found = manifest("leaderworkerset.yaml")
    with open(os.path.join(HERE, "data", "lws-schema.json"), encoding="utf-8") as file:
        jsonschema.validate(found, json.load(file))
    for role in ("leaderTemplate", "workerTemplate"):
        template = found["spec"]["leaderWorkerTemplate"][role]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x", **template["metadata"]},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, "1.31", strict=True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_is_clean_for_systemd(tmp_path: Path, node: Path) -> None:
    unit = tmp_path / "vllm.service"
    unit.write_text(read("systemd", "vllm.service").replace("/opt/vllm/bin", str(node)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_starts_its_server(node: Path) -> None:
    text = read("systemd", "vllm.service").replace("\\\n", "")
    [line] = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    command = [word.replace("/opt/vllm/bin", str(node)) for word in units.split(line)]
    assert command == [word.replace("/opt/vllm/bin", str(node)) for word in shlex.split(line)]
    seen = started(node, command)
    assert '{"use_async": true, "num_redundant_experts": 32}' in seen
    assert seen[-1] == "NCCL_MAX_CTAS=8"


def test_the_deployment_starts_its_server(node: Path) -> None:
    [container] = manifest("deployment.yaml")["spec"]["template"]["spec"]["containers"]
    seen = started(node, container["command"] + container["args"])
    assert seen == ["serve", *container["args"], "NCCL_MAX_CTAS=8"]


@pytest.mark.parametrize(("role", "index"), [("leader", "0"), ("worker", "1")])
def test_the_leader_worker_set_starts_its_servers(node: Path, role: str, index: str) -> None:
    template = manifest("leaderworkerset.yaml")["spec"]["leaderWorkerTemplate"]
    [container] = template[f"{role}Template"]["spec"]["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    environ |= {
        "LWS_GROUP_SIZE": str(template["size"]),
        "LWS_WORKER_INDEX": index,
        "LWS_LEADER_ADDRESS": "vllm-0.vllm",
    }
    seen = started(node, container["command"] + container["args"], **environ)
    assert seen[seen.index("--data-parallel-size") + 1] == "16"
    assert ("--headless" in seen) is (role == "worker")
    if role == "worker":
        assert seen[seen.index("--data-parallel-start-rank") + 1] == "8"
    assert seen[-1] == "NCCL_MAX_CTAS=8"


def entrypoint() -> list[str]:
    """Return the ENTRYPOINT of the Dockerfile."""
    [line] = re.findall(r"^ENTRYPOINT (.*)$", read("docker", "Dockerfile"), re.MULTILINE)
    words: list[str] = json.loads(line)
    return words


def test_the_image_starts_its_server(node: Path) -> None:
    words = ["m", "--data-parallel-size", "8", "--enable-eplb", "--eplb-config.use_async", "true"]
    words += ["--all2all-backend", "deepep_low_latency"]
    assert started(node, [*entrypoint(), *words]) == ["serve", *words, "NCCL_MAX_CTAS=8"]


def test_the_compose_file_starts_its_server(node: Path) -> None:
    [service] = yaml.safe_load(read("compose", "compose.yaml"))["services"].values()
    path = os.path.join(EXAMPLES, "compose", service["build"], "Dockerfile")
    assert os.path.samefile(path, os.path.join(EXAMPLES, "docker", "Dockerfile"))
    seen = started(node, [*entrypoint(), *service["command"]])
    assert seen == ["serve", *service["command"], "NCCL_MAX_CTAS=8"]


def test_the_batch_script_starts_its_servers(node: Path) -> None:
    seen = started(
        node,
        ["bash", os.path.join(EXAMPLES, "slurm", "vllm.sbatch")],
        VLLM_VENV=str(node.parent),
        SLURM_JOB_NODELIST="node[0-1]",
        SLURM_NNODES="2",
    )
    assert seen[seen.index("--data-parallel-size") + 1] == "16"
    assert seen[seen.index("--data-parallel-address") + 1] == "node0"
    assert seen[seen.index("--data-parallel-start-rank") + 1] == "8"
    assert seen[-1] == "NCCL_MAX_CTAS=8"


@pytest.mark.parametrize("name", ["deployment.yaml", "leaderworkerset.yaml", "single-file.yaml"])
def test_the_json_in_the_arguments_is_json(name: str) -> None:
    found = re.findall(r"--eplb-config[= ]'?(\{[^}]*\})", read("kubernetes", name))
    assert found
    assert all(json.loads(text)["use_async"] for text in found)
