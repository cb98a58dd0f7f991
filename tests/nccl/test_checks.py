"""What voids a cap: for each row a case where it applies, and its near misses."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eplb_launch import plan
from eplb_launch.command import find
from eplb_launch.files import InMemory
from eplb_launch.nccl.cases import advise, shown
from eplb_launch.nccl.checks import NOTES, WARNINGS
from eplb_launch.nccl.variables import NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from eplb_launch import Plan

ASYNC = [
    *("-dp", "8", "-ep", "--enable-eplb", "--all2all-backend", "deepep_low_latency"),
    *("--eplb-config.use_async", "true"),
]
SERVE = ["vllm", "serve", "m", *ASYNC]
LINE = " ".join(SERVE)


def decide(
    command: list[str] | str = "",
    environ: dict[str, str] | None = None,
    version: str | None = "0.16.0",
    **options: Any,
) -> Plan:
    words = [*command.split(), *SERVE] if isinstance(command, str) else command
    options.setdefault("files", here())
    return plan(words, environ or {}, vllm_version=version, nixl=False, **options)


def codes(decided: Plan) -> list[str]:
    return [warning.code for warning in decided.warnings]


ROOT: list[Path] = []


@pytest.fixture(autouse=True)
def _no_files_of_this_machine(tmp_path: Path) -> None:
    """Let conf files be searched in an empty folder, which a test may fill."""
    ROOT[:] = [tmp_path]


def here() -> InMemory:
    paths = [path for path in ROOT[0].rglob("*") if path.is_file()]
    return InMemory({f"/{p.relative_to(ROOT[0])}": p.read_text() for p in paths}, os.getuid())


# The environment, and the codes of the warnings.
VALUES: dict[str, tuple[str, list[str]]] = {
    # Other variables, and variables of NCCL that void nothing (measured with NCCL 2.28.9).
    "nothing": ("", []),
    "minimum CTAs": ("NCCL_MIN_CTAS=16", []),
    "channels for NVLS": ("NCCL_NVLS_NCHANNELS=24", []),
    "channels for each peer": ("NCCL_NCHANNELS_PER_NET_PEER=32", []),
    # Minimums.
    "a minimum": ("NCCL_MIN_NCHANNELS=16", ["min-nchannels"]),
    "one more than the cap": ("NCCL_MIN_NCHANNELS=9", ["min-nchannels"]),
    "the cap": ("NCCL_MIN_NCHANNELS=8", []),
    "below 1": ("NCCL_MIN_NCHANNELS=-9", []),
    "no number": ("NCCL_MIN_NCHANNELS=many", []),
    "empty": ("NCCL_MIN_NCHANNELS=", []),
    "out of range": ("NCCL_MIN_NCHANNELS=99999999999999999999", []),
    "in hexadecimal": ("NCCL_MIN_NCHANNELS=0x10", ["min-nchannels"]),
    "in octal": ("NCCL_MIN_NCHANNELS=010", []),
    "cut to 32 bits": ("NCCL_MIN_NCHANNELS=4294967304", []),
    "the old name": ("NCCL_MIN_NRINGS=16", ["min-nchannels"]),
    "both, the first low": ("NCCL_MIN_NCHANNELS=4 NCCL_MIN_NRINGS=16", []),
    "both, the first high": ("NCCL_MIN_NCHANNELS=16 NCCL_MIN_NRINGS=4", ["min-nchannels"]),
    "both, the first empty": ("NCCL_MIN_NCHANNELS= NCCL_MIN_NRINGS=16", ["min-nchannels"]),
    "below a maximum": ("NCCL_MIN_NCHANNELS=16 NCCL_MAX_NCHANNELS=4", ["min-nchannels"]),
    "vLLM sets it itself": ("NCCL_MIN_NCHANNELS=16 VLLM_BATCH_INVARIANT=1", []),
    "vLLM does not": ("NCCL_MIN_NCHANNELS=16 VLLM_BATCH_INVARIANT=0", ["min-nchannels"]),
    "of p2p": ("NCCL_MIN_P2P_NCHANNELS=32", ["min-p2p-nchannels"]),
    "of p2p, rounded up": ("NCCL_MIN_P2P_NCHANNELS=9", ["min-p2p-nchannels"]),
    "of p2p, rounded up to the cap": ("NCCL_MIN_P2P_NCHANNELS=5", []),
    "of p2p, 1": ("NCCL_MIN_P2P_NCHANNELS=1", []),
    "of p2p, with a maximum": (
        "NCCL_MIN_P2P_NCHANNELS=32 NCCL_MAX_P2P_NCHANNELS=4",
        ["min-p2p-nchannels"],
    ),
    "of p2p, batch invariant": (
        "NCCL_MIN_P2P_NCHANNELS=32 VLLM_BATCH_INVARIANT=1",
        ["min-p2p-nchannels"],
    ),
    "both kinds": (
        "NCCL_MIN_NCHANNELS=16 NCCL_MIN_P2P_NCHANNELS=32",
        ["min-nchannels", "min-p2p-nchannels"],
    ),
    # Values that vLLM's rule keeps.
    **{f"kept, a limit: {text}": (f"NCCL_MAX_CTAS={text}", []) for text in ("8", "4", "010", "5")},
    "kept, a limit after the cut": ("NCCL_MAX_CTAS=4294967304", []),
    **{
        f"kept, no limit: {text}": (f"NCCL_MAX_CTAS={text}", ["value-not-a-limit"])
        for text in ("0", "00", "08", "09", "٨", "²", "99999999999999999999", "2147483648")
    },
    **{
        f"kept, too high: {text}": (f"NCCL_MAX_CTAS={text}", ["value-too-high"])
        for text in ("9", "16", "64", "100", "012")
    },
    "kept, no limit, but another": ("NCCL_MAX_CTAS=0 NCCL_MAX_NCHANNELS=8", []),
    "kept, too high, but another": ("NCCL_MAX_CTAS=64 NCCL_MAX_NRINGS=4", []),
    "kept, too high, batch invariant": ("NCCL_MAX_CTAS=64 VLLM_BATCH_INVARIANT=1", []),
    "kept, too high for collectives": (
        "NCCL_MAX_CTAS=64 NCCL_MAX_P2P_NCHANNELS=4",
        ["value-too-high"],
    ),
    "kept, and a minimum": ("NCCL_MAX_CTAS=4 NCCL_MIN_NCHANNELS=16", ["min-nchannels"]),
    "kept, and a minimum that is low": ("NCCL_MAX_CTAS=4 NCCL_MIN_NCHANNELS=8", []),
    # Values that the rule replaces.
    **{
        f"replaced: {text}": (f"NCCL_MAX_CTAS={text}", ["value-replaced"])
        for text in ("0x8", "+8", "8.5", "8abc", "1e1", "1_0", "0x1")
    },
    **{
        f"replaced, no limit: {text}": (f"NCCL_MAX_CTAS={text}", [])
        for text in ("abc", "-1", "0x10", "16.0", "-0")
    },
    "empty value": ("NCCL_MAX_CTAS=", ["value-empty"]),
}


@pytest.mark.parametrize(("environ", "expected"), VALUES.values(), ids=map(ascii, VALUES))
def test_each_value_that_makes_the_cap_void_has_its_warning(
    environ: str, expected: list[str]
) -> None:
    decided = decide(environ=dict(pair.split("=", 1) for pair in environ.split()))
    assert codes(decided) == expected
    assert decided.notes == ()


@pytest.mark.parametrize(("text", "expected"), [(" 8", ["value-replaced"]), (" 16", [])])
def test_a_value_with_a_blank_is_replaced(text: str, expected: list[str]) -> None:
    decided = decide(environ={"NCCL_MAX_CTAS": text})
    assert (codes(decided), decided.environment) == (expected, {"NCCL_MAX_CTAS": "8"})


@pytest.mark.parametrize(("environ", "expected"), VALUES.values(), ids=map(ascii, VALUES))
def test_the_rule_of_vllm_decides_what_is_kept(environ: str, expected: list[str]) -> None:
    values = dict(pair.split("=", 1) for pair in environ.split())
    current = values.get("NCCL_MAX_CTAS", "")
    kept = bool(current and current.isdigit())
    decided = decide(environ=values)
    assert decided.environment == ({} if kept else {"NCCL_MAX_CTAS": "8"})
    if decided.ctas is not None and not kept:
        assert (decided.ctas > 8) is any(code.startswith("min-") for code in expected)


@pytest.mark.parametrize("command", [["vllm", "chat"], ["vllm", "serve", "m"], SERVE[:-2]])
def test_a_command_that_cannot_hang_has_no_warning(command: list[str]) -> None:
    environ = {"NCCL_MAX_CTAS": "0", "NCCL_MIN_NCHANNELS": "16"}
    decided = decide(command, environ)
    assert (decided.warnings, decided.notes, decided.ctas) == ((), (), None)


def test_a_value_that_may_void_the_cap_has_a_warning() -> None:
    command = ["bash", "-c", LINE.replace("-dp 8", "-dp $((N * 8))")]
    decided = decide(command, {"NCCL_MIN_NCHANNELS": "16"})
    assert codes(decided) == ["min-nchannels"]


def put(root: Path, files: dict[str, str]) -> None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text(f"u:x:{os.getuid()}:0::/home/u:/bin/sh\n")
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


ETC = "/etc/nccl.conf"
HOME = "/home/u/.nccl.conf"
FOUR = "NCCL_MAX_CTAS=4\n"
SET = {"NCCL_MAX_CTAS": "8"}
# The files, the environment, the release; the value that is set, and the codes.
FILES: dict[str, tuple[dict[str, str], dict[str, str], str | None, dict[str, str], list[str]]] = {
    "a minimum": ({ETC: "NCCL_MIN_NCHANNELS=16"}, {}, "0.16.0", SET, ["min-nchannels"]),
    "the old name": ({HOME: "NCCL_MIN_NRINGS=16"}, {}, "0.16.0", SET, ["min-nchannels"]),
    "of p2p": ({ETC: "NCCL_MIN_P2P_NCHANNELS=32"}, {}, "0.16.0", SET, ["min-p2p-nchannels"]),
    "not above": ({ETC: "NCCL_MIN_P2P_NCHANNELS=8"}, {}, "0.16.0", SET, []),
    "with blanks": ({ETC: "NCCL_MIN_NCHANNELS = 16"}, {}, "0.16.0", SET, []),
    "a comment": ({ETC: "#NCCL_MIN_NCHANNELS=16"}, {}, "0.16.0", SET, []),
    "the environment wins": (
        *({ETC: "NCCL_MIN_NCHANNELS=16"}, {"NCCL_MIN_NCHANNELS": "4"}, "0.16.0", SET, []),
    ),
    "even where empty": (
        *({ETC: "NCCL_MIN_NCHANNELS=16"}, {"NCCL_MIN_NCHANNELS": ""}, "0.16.0", SET, []),
    ),
    "the user's wins": (
        {ETC: "NCCL_MIN_NCHANNELS=16", HOME: "NCCL_MIN_NCHANNELS=4"},
        *({}, "0.16.0", SET, []),
    ),
    "a named one": (
        {"/n.conf": "NCCL_MIN_NCHANNELS=16"},
        *({"NCCL_CONF_FILE": "/n.conf"}, "0.16.0", SET, ["min-nchannels"]),
    ),
    "RCCL's": (
        {"/etc/rccl.conf": "NCCL_MIN_NCHANNELS=112"},
        *({}, "0.16.0+rocm700", SET, ["min-nchannels"]),
    ),
    "RCCL's, on CUDA": ({"/etc/rccl.conf": "NCCL_MIN_NCHANNELS=112"}, {}, "0.16.0", SET, []),
    "RCCL's, not known": (
        {"/etc/rccl.conf": "NCCL_MIN_NCHANNELS=112"},
        *({}, None, SET, ["min-nchannels"]),
    ),
    # Limits in files.
    "a lower limit": ({ETC: FOUR}, {}, "0.16.0", {}, ["conf-file-limit"]),
    "a lower limit, release not known": ({ETC: FOUR}, {}, None, {}, ["conf-file-limit"]),
    "a lower limit of RCCL": (
        {"/home/u/.rccl.conf": FOUR},
        *({}, "0.16.0+rocm700", {}, ["conf-file-limit"]),
    ),
    "a limit of 8": ({ETC: "NCCL_MAX_CTAS=8"}, {}, "0.16.0", {}, ["conf-file-limit"]),
    "in hexadecimal": ({ETC: "NCCL_MAX_CTAS=0x4"}, {}, "0.16.0", {}, ["conf-file-limit"]),
    "a limit that vLLM hides": ({ETC: FOUR}, {}, "0.17.0", {}, ["conf-file-limit-hidden"]),
    "a higher limit": ({ETC: "NCCL_MAX_CTAS=9"}, {}, "0.16.0", SET, []),
    "no limit": ({ETC: "NCCL_MAX_CTAS=0"}, {}, "0.16.0", SET, []),
    "no limit either": ({ETC: 'NCCL_MAX_CTAS="4"'}, {}, "0.16.0", SET, []),
    "a value beside it": ({ETC: FOUR}, {"NCCL_MAX_CTAS": "8"}, "0.16.0", {}, []),
    "an empty value hides it": (
        *({ETC: FOUR}, {"NCCL_MAX_CTAS": ""}, "0.16.0", SET, ["value-empty"]),
    ),
    "a limit and a minimum": (
        {ETC: FOUR + "NCCL_MIN_NCHANNELS=16"},
        *({}, "0.16.0", {}, ["min-nchannels", "conf-file-limit"]),
    ),
    "perhaps of another home": (
        {"/x/.nccl.conf": FOUR},
        *({"HOME": "/x"}, None, SET, ["conf-file-limit-unsure"]),
    ),
    "of another home": ({"/x/.nccl.conf": FOUR}, {"HOME": "/x"}, "0.16.0", SET, []),
}


@pytest.mark.parametrize("row", FILES.values(), ids=FILES)
def test_conf_files_that_make_the_cap_void_have_their_warning(
    tmp_path: Path, row: tuple[Any, ...]
) -> None:
    files, environ, version, variables, expected = row
    put(tmp_path, files)
    command = ["env", "LANG=C", *SERVE]  # a prefix: nothing is taken for the ordinary case
    decided = decide(command, environ, version)
    assert (decided.environment, codes(decided)) == (variables, expected)
    for warning in decided.warnings:
        if warning.code.startswith(("min-", "conf-")):
            assert any(name in warning.message for name in files)


def test_the_limit_of_a_conf_file_is_named(tmp_path: Path) -> None:
    put(tmp_path, {ETC: FOUR})
    decided = decide("env A=b")
    assert decided.reason.startswith(
        "NCCL_MAX_CTAS=4 in /etc/nccl.conf stays (async EPLB with DeepEP low-latency"
    )
    assert decided.ctas == 4


def test_conf_files_are_read_without_a_wrapper_too(tmp_path: Path) -> None:
    put(tmp_path, {"/n.conf": FOUR})
    decided = decide(environ={"NCCL_CONF_FILE": "/n.conf"})
    assert codes(decided) == ["conf-file-limit"]
    assert codes(decide(files=InMemory({ETC: "NCCL_MIN_NRINGS=16"}))) == ["min-nchannels"]


def test_conf_files_of_this_machine_do_not_count_for_another(tmp_path: Path) -> None:
    put(tmp_path, {ETC: "NCCL_MAX_CTAS=4\nNCCL_MIN_NCHANNELS=16\n"})
    decided = decide("docker run -e NCCL_MAX_CTAS image")
    assert (decided.environment, codes(decided)) == (SET, [])


# The words before the command, and the program that the warning names; "": no warning.
DROPS: dict[str, str] = {
    "sudo": "sudo",
    "sudo -u root -n": "sudo",
    "sudo -uE": "sudo",
    "sudo --preserve-env=HOME,PATH": "sudo",
    "sudo NCCL_MAX_CTAS_=8": "sudo",
    "sudo -E": "",
    "sudo -nE -u root": "",
    "sudo --preserve-env": "",
    "sudo --preserve-env=HOME,NCCL_MAX_CTAS": "",
    "sudo env NCCL_MAX_CTAS=8": "",
    "sudo NCCL_MAX_CTAS=8": "",
    "sudo eplb-launch --": "",
    "sudo eplb-launch --strict -- env -i": "env",
    "doas": "doas",
    "doas -u u": "doas",
    "machinectl shell u@": "machinectl",
    "machinectl -q shell --uid=u .host": "machinectl",
    "machinectl shell -E NCCL_MAX_CTAS u@": "",
    "pkexec": "pkexec",
    "su - u -c": "su",
    "su -l u -c": "su",
    "su -w NCCL_MAX_CTAS - u -c": "",
    "su u -c": "",
    "runuser -l u -c": "runuser",
    "runuser -u u --": "",
    "env -i": "env",
    "env - PATH=/bin": "env",
    "env -u NCCL_MAX_CTAS": "env",
    "env --unset=NCCL_MAX_CTAS": "env",
    "env -u NCCL_MIN_CTAS": "",
    "env -i NCCL_MAX_CTAS=8": "",
    "env A=b": "",
    "docker run image": "docker",
    "docker run --rm -e A=b image": "docker",
    "docker run -e NCCL_MAX_CTAS image": "",
    "docker run --env=NCCL_MAX_CTAS image": "",
    "docker run --env-file f image": "",
    "docker exec c": "docker",
    "docker exec -e NCCL_MAX_CTAS=8 c": "",
    "podman run image": "podman",
    "podman run -e NCCL_* image": "",
    "podman run --env-host image": "",
    "nerdctl run image": "nerdctl",
    "kubectl exec pod --": "kubectl",
    "kubectl exec -n ns pod -c c --": "kubectl",
    "ssh host": "ssh",
    "ssh -o SendEnv=NCCL_MAX_CTAS host": "",
    "ssh -oSendEnv=NCCL_* host": "",
    "srun": "",
    "srun -N 2": "",
    "srun --export=ALL": "",
    "srun --export=NONE": "srun",
    "srun --export=PATH,HOME": "srun",
    "srun --export=PATH,NCCL_MAX_CTAS": "",
    "srun --export=ALL,A=b": "",
    "mpirun -np 2": "",
    "mpirun -H localhost:8": "",
    "mpirun -H a,b -np 2": "mpirun",
    "mpirun --hostfile f": "mpirun",
    "mpirun -H a,b -x PATH": "mpirun",
    "mpirun -H a,b -x NCCL_MAX_CTAS": "",
    "mpirun -H a,b -x NCCL_MAX_CTAS=8": "",
    "mpiexec -hosts a,b -genvall": "",
    "systemd-run": "systemd-run",
    "systemd-run --user --wait": "systemd-run",
    "systemd-run --scope": "",
    "systemd-run -E NCCL_MAX_CTAS": "",
    "systemd-run --setenv=NCCL_MAX_CTAS=8": "",
    "chroot /x": "",
    "nsenter -t 1": "",
    "singularity exec x.sif": "",
    "singularity exec --cleanenv x.sif": "singularity",
    "apptainer exec -e x.sif": "apptainer",
    "apptainer run --containall x.sif": "apptainer",
    "apptainer exec -e --env NCCL_MAX_CTAS=8 x.sif": "",
    "tmux new-session": "tmux",
    "nice -n 5": "",
    "numactl -N 0": "",
    "nohup": "",
    "uv run": "",
    "sudo docker run image": "sudo and docker",
}
JOINED = ("su ", "runuser -l")


@pytest.mark.parametrize(("before", "named"), DROPS.items())
def test_wrappers_that_drop_the_variable_are_named(before: str, named: str) -> None:
    last = [LINE] if before.startswith(JOINED) else SERVE
    decided = decide([*before.split(), *last])
    found = [w for w in decided.warnings if w.code == "variable-dropped"]
    assert [w.message for w in found] == (
        [f"{named} {'do' if ' and ' in named else 'does'} not pass NCCL_MAX_CTAS on to the server"]
        if named
        else []
    )
    assert len(found) == len(decided.warnings)
    for warning in found:
        assert warning.remedy.startswith("put `eplb-launch --` directly before `vllm serve`")


@pytest.mark.parametrize("before", [words for words, named in DROPS.items() if named])
def test_a_value_of_the_environment_is_dropped_too(before: str) -> None:
    last = [LINE] if before.startswith(JOINED) else SERVE
    decided = decide([*before.split(), *last], {"NCCL_MAX_CTAS": "4"})
    assert "variable-dropped" in codes(decided)


INSIDE = {
    "unset": (f"unset NCCL_MAX_CTAS; exec {LINE}", "variable-dropped"),
    "another value": (f"export NCCL_MAX_CTAS=x; {LINE}", "variable-overwritten"),
    "a value not known": (f"NCCL_MAX_CTAS=$(pick) {LINE}", "variable-overwritten"),
    "an empty value": (f"NCCL_MAX_CTAS= {LINE}", "variable-overwritten"),
    "a default": (f"NCCL_MAX_CTAS=${{NCCL_MAX_CTAS:-4}} {LINE}", ""),
    "digits": (f"NCCL_MAX_CTAS=4 {LINE}", ""),
    "digits that are too many": (f"NCCL_MAX_CTAS=64 {LINE}", "value-too-high"),
    "nothing": (f"cd / && exec {LINE}", ""),
    "sudo in it": (f"exec sudo {LINE}", "variable-dropped"),
    "the launcher in it": (f"exec sudo eplb-launch -- {LINE}", ""),
}


@pytest.mark.parametrize(("script", "code"), INSIDE.values(), ids=INSIDE)
def test_a_shell_string_may_set_or_unset_the_variable(script: str, code: str) -> None:
    decided = decide(["sh", "-c", script])
    assert codes(decided) == [code] * bool(code)
    assert "\0" not in "".join(w.message + w.remedy for w in decided.warnings)


SEARCHED = {
    "wrapper": (["numactl", "-N", "0", *SERVE], 1),
    "sudo": (["sudo", *SERVE], 1),
    "another value": (["env", "NCCL_MAX_CTAS=x", *SERVE], 1),
    "nothing kept": (["env", "-i", *SERVE], 1),
    "container": (["docker", "run", "-e", "NCCL_MAX_CTAS", "image", *SERVE], 1),
    "shell": (["bash", "-c", LINE], 1),
    "shell that exports": (["bash", "-c", f"export NCCL_MAX_CTAS=x; exec {LINE}"], 1),
    "wrappers and a shell": (["sudo", "-E", "numactl", "-N", "0", "bash", "-c", LINE], 1),
    # The script does something else if the variable is set.
    "shell that looks at it": (["sh", "-c", f"NCCL_MAX_CTAS=${{NCCL_MAX_CTAS:-x}} {LINE}"], 2),
}


@pytest.mark.parametrize(("command", "times"), SEARCHED.values(), ids=SEARCHED)
def test_a_plan_finds_its_server_once(
    command: list[str], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def counted(*given: Any, **named: Any) -> Any:
        found.append(given)
        return real(*given, **named)

    real = find.find
    monkeypatch.setattr(find, "find", counted)
    decided = decide(command)
    assert decided.environment == {"NCCL_MAX_CTAS": "8"}
    assert len(found) == times


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("NCCL_MAX_CTAS=${NCCL_MAX_CTAS:-x} nice", ""),
        ("NCCL_MAX_CTAS=$NCCL_MAX_CTAS docker run -e NCCL_MAX_CTAS image", ""),
        ("docker run -e NCCL_MAX_CTAS=$NCCL_MAX_CTAS image", ""),
        ("NCCL_MAX_CTAS=${NCCL_MAX_CTAS+x} nice", "variable-overwritten"),
        ("NCCL_MAX_CTAS=x;", "variable-overwritten"),  # exported, as it is set outside then
        ("unset NCCL_MAX_CTAS; mpirun -x NCCL_MAX_CTAS", "variable-dropped"),
    ],
)
def test_a_script_that_reads_the_variable_is_followed_with_it(script: str, code: str) -> None:
    assert codes(decide(["sh", "-c", f"{script} {LINE}"])) == [code] * bool(code)


@pytest.mark.parametrize(
    ("before", "named"),
    [
        ("sh -c 'exec env -i {}'", "env"),
        ("su u -c 'exec sudo {}'", "sudo"),
        ("env -i sh -c 'unset NCCL_MAX_CTAS; exec {}'", "env"),
        ("sh -c 'unset NCCL_MAX_CTAS; exec sudo {}'", "sh and sudo"),
        ("./start.sh --x sudo ./other.sh {}", "sudo"),
        ("nohup ./start.sh docker run image ./other.sh {}", "docker"),
    ],
)
def test_the_program_that_drops_it_is_named(before: str, named: str) -> None:
    (warning,) = decide(shlex.split(before.format(LINE))).warnings
    assert warning.message.startswith(f"{named} do")


def test_what_wrappers_behind_an_unknown_program_set_counts() -> None:
    decided = decide("./start.sh env NCCL_MAX_CTAS=4 ./other.sh")
    assert (decided.current, decided.environment) == ("4", {})


def test_env_that_sets_another_value_overwrites_the_cap() -> None:
    decided = decide("env NCCL_MAX_CTAS=x")
    (warning,) = decided.warnings
    assert (warning.code, warning.message) == (
        "variable-overwritten",
        "env sets NCCL_MAX_CTAS=x for the server, and overwrites the value set here",
    )


def test_slurm_variables_decide_what_srun_passes_on() -> None:
    assert codes(decide("srun", {"SLURM_EXPORT_ENV": "NONE"})) == ["variable-dropped"]
    assert codes(decide("srun", {"SLURM_EXPORT_ENV": "ALL"})) == []
    assert codes(decide("srun --export=ALL", {"SLURM_EXPORT_ENV": "NONE"})) == []
    assert codes(decide("mpirun", {"SLURM_NNODES": "2"})) == ["variable-dropped"]
    assert codes(decide("mpirun", {"SLURM_NNODES": "1"})) == []


def test_apptainer_has_variables_of_its_own() -> None:
    environ = {"APPTAINERENV_NCCL_MAX_CTAS": "8"}
    assert codes(decide("apptainer exec -e x.sif", environ)) == []


def test_remedies_name_the_place_and_the_option() -> None:
    def remedy(command: list[str]) -> str:
        return decide(command).warnings[0].remedy

    assert remedy(["sudo", *SERVE]).endswith("or give sudo --preserve-env=NCCL_MAX_CTAS")
    module = ["python3", "-m", "vllm.entrypoints.openai.api_server", *ASYNC]
    assert "before `python3 -m vllm.entrypoints.openai.api_server`" in remedy(["doas", *module])
    assert "before `vllm serve`" in remedy(["doas", "/opt/venv/bin/vllm", *SERVE[1:]])
    image = ["docker", "run", "image", "--enable-expert-parallel", *ASYNC]
    assert "before the server's own command, or give docker -e NCCL_MAX_CTAS" in remedy(image)


RAY = "--distributed-executor-backend ray"
# The arguments, the release, and the codes of warnings and notes.
PLACES: dict[str, tuple[str, str | None, list[str]]] = {
    "Ray": (RAY, "0.16.0", ["ray-workers"]),
    "Ray for data parallelism": ("--data-parallel-backend ray", "0.16.0", ["ray-workers"]),
    "its short form": ("-dpb=ray", "0.12.0", ["ray-workers"]),
    "Ray, newer": (RAY, "0.17.1", []),
    "Ray, not known": (RAY, None, ["ray-workers-unsure"]),
    "no Ray": ("--distributed-executor-backend mp", "0.16.0", []),
    "Ray, executor v2": (
        f"{RAY} --eplb-config.communicator torch_nccl",
        "0.21.0",
        ["ray-node-value"],
    ),
    "Ray, executor v1": (f"{RAY} --eplb-config.communicator torch_nccl", "0.20.0", []),
    "nodes": ("--nnodes 2", "0.16.0", ["every-node"]),
    "nodes, short": ("-n 2", "0.16.0", ["every-node"]),
    "one node": ("--nnodes 1", "0.16.0", []),
    "no head": ("--headless", "0.16.0", ["every-node"]),
    "some ranks": ("--data-parallel-size-local 4", "0.16.0", ["every-node"]),
    "all ranks": ("-dpl 8", "0.16.0", []),
    "later ranks": ("-dpr 4", "0.16.0", ["every-node"]),
    "one rank": ("-dpn 3", "0.16.0", ["every-node"]),
    "an address": ("-dpa 10.0.0.1", "0.16.0", ["every-node"]),
    "the address of this host": ("-dpa 127.0.0.1", "0.16.0", []),
    "hybrid": ("--data-parallel-hybrid-lb", "0.16.0", ["every-node"]),
    "not hybrid": ("-dph --no-data-parallel-hybrid-lb", "0.16.0", []),
    "external": ("-dpe", "0.16.0", ["every-node"]),
    "torchrun": ("--distributed-executor-backend external_launcher", "0.16.0", ["every-node"]),
    "Ray starts them all": ("-dpb ray -dpl 4", "0.17.1", []),
    "not a number": ("--nnodes many", "0.16.0", []),
}


@pytest.mark.parametrize(("arguments", "version", "expected"), PLACES.values(), ids=PLACES)
def test_ray_and_several_nodes_have_their_rows(
    arguments: str, version: str | None, expected: list[str]
) -> None:
    if version and version >= "0.20":  # elsewhere the communicator is NCCL's
        arguments += " --enable-elastic-ep"
    decided = decide([*SERVE, *arguments.split()], {}, version)
    assert decided.decisive is not None
    assert codes(decided) == [code for code in expected if code == "ray-workers"]
    assert [note.code for note in decided.notes] == [c for c in expected if c != "ray-workers"]


def test_the_executor_of_ray_can_be_chosen() -> None:
    command = [*SERVE, *RAY.split(), "--enable-elastic-ep"]
    variable = "VLLM_USE_RAY_V2_EXECUTOR_BACKEND"

    def v2(version: str, value: str) -> bool:
        return bool(decide(command, {variable: value}, version).notes)

    assert [v2("0.19.0", "1"), v2("0.20.0", "1"), v2("0.20.0", "0")] == [False, True, False]
    assert [v2("0.21.0", "0"), v2("0.21.0", "1")] == [False, True]


def test_the_note_for_several_nodes_names_the_argument() -> None:
    (note,) = decide([*SERVE, "--nnodes", "2"]).notes
    assert note.message == (
        "this command starts only a part of the server (argument 11: --nnodes 2)"
    )


@pytest.mark.parametrize(("value", "expected"), [("x", ["env-plugin"]), ("none", []), ("", [])])
def test_an_nccl_environment_plugin_is_a_note(value: str, expected: list[str]) -> None:
    decided = decide(environ={"NCCL_ENV_PLUGIN": value})
    assert [note.code for note in decided.notes] == expected
    assert decided.warnings == ()


@pytest.mark.parametrize(
    ("cap", "environ", "expected"),
    [
        (4, {}, []),
        (5, {}, ["max-ctas-rounded"]),
        (8, {}, []),
        (9, {}, ["max-ctas-too-high", "max-ctas-rounded"]),
        (16, {}, ["max-ctas-too-high"]),
        (4, {"NCCL_MIN_NCHANNELS": "8"}, ["min-nchannels"]),
        (16, {"NCCL_MIN_NCHANNELS": "16"}, ["max-ctas-too-high"]),
        (4, {"NCCL_MAX_CTAS": "8"}, ["value-too-high"]),
        (16, {"NCCL_MAX_CTAS": "16"}, []),
        (4, {"NCCL_MAX_CTAS": "0x8"}, []),
    ],
    ids=str,
)
def test_another_cap_is_set_as_given(
    cap: int, environ: dict[str, str], expected: list[str]
) -> None:
    decided = decide(environ=environ, max_ctas=cap)
    kept = environ.get("NCCL_MAX_CTAS", "").isdigit()
    assert decided.environment == ({} if kept else {"NCCL_MAX_CTAS": str(cap)})
    assert [w.code for w in (*decided.warnings, *decided.notes)] == expected


@pytest.mark.parametrize(
    "options",
    [
        *({"max_ctas": n} for n in (0, -1, 65, "8", "many", None, 8.0)),
        *({"max_ctas": "fit", "sms": 0}, {"max_ctas": "fit", "sms": 5000}),
        {"sms": 132},
        {"max_ctas": 4, "sms": 132},
    ],
    ids=str,
)
def test_a_cap_outside_the_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"--max-ctas|--sms"):
        decide(**options)


def test_each_row_has_a_code_of_its_own_and_says_all() -> None:
    rows = [*WARNINGS, *NOTES]
    assert len({row.code for row in rows}) == len(rows)
    for row in rows:
        assert row.code == row.code.lower()
        assert row.message
        assert row.remedy
        assert row.source


def test_each_row_is_shown_to_fire() -> None:
    seen = {code for _, expected in VALUES.values() for code in expected}
    seen |= {code for *_, expected in FILES.values() for code in expected}
    seen |= {code for *_, expected in PLACES.values() for code in expected}
    seen |= {code for _, code in INSIDE.values()} | {"env-plugin", ""}
    seen |= {"max-ctas-rounded", "max-ctas-too-high"}
    assert seen == {row.code for row in (*WARNINGS, *NOTES)} | {""}


@pytest.mark.parametrize("text", ["x" * 500, "a b", "a\nb", "\x1b[31m", "", "\0", "é"], ids=ascii)
def test_a_value_is_shown_in_one_short_line(text: str) -> None:
    assert len(shown(text)) < 60
    assert shown(text).isprintable()


TEXT = st.text(max_size=6) | st.integers(-9, 99).map(str) | st.sampled_from(["0x8", " 8", "\0"])


@given(
    st.dictionaries(st.sampled_from([*sorted(NAMES), "HOME", "NCCL_CONF_FILE"]), TEXT),
    st.sampled_from(["", "sudo", "env -i", "docker run image", "sh -c", "mpirun -H a,b"]),
    st.sampled_from([None, "0.12.0", "0.16.0", "0.17.1", "0.16.0+rocm7"]),
)
def test_any_environment_has_a_plan(
    environ: dict[str, str], before: str, version: str | None
) -> None:
    last = [LINE] if before == "sh -c" else SERVE
    decided = decide([*before.split(), *last], environ, version)
    for warning in (*decided.warnings, *decided.notes):
        assert f"{warning.message}{warning.remedy}".isprintable()


@given(st.dictionaries(st.sampled_from(["HOME", "PATH", "A"]), st.text("/ab", max_size=3)))
def test_the_short_cut_decides_as_the_checks_do(environ: dict[str, str]) -> None:
    decided = decide(environ=environ)
    assert decided.server is not None
    looked = advise(decided.replace(ctas=None), environ, cap=8)
    assert looked == decided


def test_a_plan_without_a_server_is_left_alone() -> None:
    decided = plan(["true"], {})
    assert advise(decided, {}, cap=8) is decided


def test_odd_names_stay_in_one_line(tmp_path: Path) -> None:
    put(tmp_path, {"/a\nb.conf": "NCCL_MIN_NCHANNELS=16\n"})
    decided = decide([*SERVE, "-dpa", "a\nb"], {"NCCL_CONF_FILE": "/a\nb.conf"})
    found = [*decided.warnings, *decided.notes]
    assert [warning.code for warning in found] == ["min-nchannels", "every-node"]
    assert all(warning.message.isprintable() for warning in found)
