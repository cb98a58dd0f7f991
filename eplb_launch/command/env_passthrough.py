"""Which programs between the launcher and the server do not hand the environment on.

What a program does with it is data in `prefixes`; this adds those that drop it silently, the
options that keep it all the same, and what a person can do.

Imported only for a command that can hang and that has such programs.
"""

from __future__ import annotations

from eplb_launch.command.entrypoints import UNKNOWN, find_server
from eplb_launch.command.wrappers import LAUNCHERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from eplb_launch.command.entrypoints import Prefix, Server

    Test = Callable[["_Words"], bool]


class _Words:
    """The words of a program, for the tests below."""

    def __init__(self, prefix: Prefix, name: str, environ: Mapping[str, str]) -> None:
        self.words = prefix.words[1:]
        self.name = name  # of the variable
        self.environ = environ

    def has(self, *options: str) -> bool:
        """Whether one of the options is there; of a short one also among others: -nE."""
        letters = [option[1] for option in options if len(option) == 2]
        return any(
            word in options or (word[:1] == "-" and word[1:2] != "-" and _in(word, letters))
            for word in self.words
        )

    def values(self, *options: str) -> Iterator[str]:
        """Yield the values of the options: `--x=v`, `--x v`, `-xv`, `-x v`."""
        for index, word in enumerate(self.words):
            if word in options:
                yield from self.words[index + 1 : index + 2]
            for option in options:
                if word.startswith(option + "="):
                    yield word[len(option) + 1 :]
                elif len(option) == 2 and word.startswith(option) and len(word) > 2:
                    yield word[2:]

    def names(self, *options: str) -> bool:
        """Whether a value of the options names the variable: in a list, with a value, with `*`."""
        return any(
            self.name == name or (name[-1:] == "*" and self.name.startswith(name[:-1]))
            for value in self.values(*options)
            for name in (item.partition("=")[0] for item in value.replace(" ", ",").split(","))
        )

    def assigns(self) -> bool:
        """Whether the variable is given a value among the words."""
        return any(word.startswith(self.name + "=") for word in self.words)


def _in(word: str, letters: list[str]) -> bool:
    for letter in word[1:]:
        if letter in letters:
            return True
        if letter in "CDRTUghprtu":  # of sudo: the rest is a value
            break
    return False


def _sudo(words: _Words) -> bool:
    kept = words.has("-E", "--preserve-env") or words.names("--preserve-env")
    return not kept and not words.assigns()


def _mpirun(words: _Words) -> bool:
    """Open MPI hands on to other hosts only what -x names; mpiexec of MPICH has -genv instead."""
    if words.names("-x") or any(word.startswith(("-genv", "-env")) for word in words.words):
        return False
    hosts = ",".join(words.values("-H", "-host", "--host", "-hosts"))
    named = {item.partition(":")[0] for item in hosts.split(",")} - {"", "localhost", "127.0.0.1"}
    files = ("-hostfile", "--hostfile", "-machinefile", "--machinefile", "-f")
    spread = ("-npernode", "--npernode", "-ppn", "-N")
    nodes = words.environ.get("SLURM_JOB_NUM_NODES") or words.environ.get("SLURM_NNODES") or "1"
    return bool(named) or nodes != "1" or any(w in files + spread for w in words.words)


def _always(_words: _Words) -> bool:
    return True


# Programs that drop it: when they do, and their manual. Without a row, `prefixes` says it.
DROPS: Mapping[str, tuple[Test, str]] = {
    "sudo": (_sudo, "sudo(8), env_reset"),
    "doas": (lambda words: not words.assigns(), "doas.conf(5), keepenv"),
    "pkexec": (_always, "pkexec(1)"),
    "machinectl": (lambda words: not words.names("--setenv", "-E"), "machinectl(1)"),
    "mpirun": (_mpirun, "mpirun(1) of Open MPI"),
    "mpiexec": (_mpirun, "mpirun(1) of Open MPI"),
    "orterun": (_mpirun, "mpirun(1) of Open MPI"),
    "srun": (
        lambda words: (
            not any(words.values("--export"))
            and words.environ.get("SLURM_EXPORT_ENV", "ALL").partition(",")[0] != "ALL"
        ),
        "srun(1), SLURM_EXPORT_ENV",
    ),
}


def _container(words: _Words) -> bool:
    return (
        words.names("-e", "--env")
        or "--env-host" in words.words
        # What is in a file of the user's own choice is not looked at.
        or any(words.values("--env-file"))
    )


# Options that keep it, for programs that drop it by `prefixes`.
KEEPS: Mapping[str, Test] = {
    **dict.fromkeys(("docker", "podman", "nerdctl", "docker-compose"), _container),
    **dict.fromkeys(("su", "runuser"), lambda words: words.names("-w", "--whitelist-environment")),
    "ssh": lambda words: any("SendEnv" in v or "SetEnv" in v for v in words.values("-o")),
    **dict.fromkeys(
        ("singularity", "apptainer"),
        lambda words: (
            f"SINGULARITYENV_{words.name}" in words.environ
            or f"APPTAINERENV_{words.name}" in words.environ
        ),
    ),
    "ray": lambda words: any(words.name in word for word in words.words),
}
# What makes a program hand the variable on, where that is one option.
OPTIONS: Mapping[str, str] = {
    "sudo": "--preserve-env={name}",
    "su": "--whitelist-environment={name}",
    "runuser": "--whitelist-environment={name}",
    "systemd-run": "--setenv={name}",
    "machinectl": "--setenv={name}",
    **dict.fromkeys(("docker", "podman", "nerdctl", "docker-compose", "enroot"), "-e {name}"),
    **dict.fromkeys(("mpirun", "mpiexec", "orterun"), "-x {name}"),
    **dict.fromkeys(("singularity", "apptainer", "firejail"), "--env {name}={value}"),
    **dict.fromkeys(("kubectl", "oc"), "--env={name}={value}"),
    **dict.fromkeys(("srun", "sbatch"), "--export=ALL,{name}"),
    "tmux": "-e {name}={value}",
}


def dropping(server: Server, environ: Mapping[str, str], name: str) -> list[Prefix]:
    """Return the programs on the way to `server` that do not hand the variable `name` on.

    `environ` is what the first of them gets. A program after which the variable is set again does
    not count.
    """
    found: list[Prefix] = []
    for prefix in server.prefixes:
        if prefix.name in LAUNCHERS or (found and _sets(prefix, name)):
            found.clear()
        elif _drops(prefix, environ, name):
            found.append(prefix)
    if found and found[-1].name not in DROPS and server.environ.get(name, UNKNOWN) != UNKNOWN:
        found.clear()  # its table says that nothing of ours arrives: this is set behind it
    return found


def arriving(
    command: tuple[str, ...], environ: Mapping[str, str], name: str, value: str
) -> str | None:
    """Return what the server gets for a variable that is set to `value`; None: nothing."""
    server = find_server(command, {**environ, name: value})
    return server.environ.get(name) if server else value


def _sets(prefix: Prefix, name: str) -> bool:
    return any(name + "=" in word for word in prefix.words)


def _drops(prefix: Prefix, environ: Mapping[str, str], name: str) -> bool:
    words = _Words(prefix, name, environ)
    if prefix.name in DROPS and DROPS[prefix.name][0](words):
        return True
    if _sets(prefix, name) or (prefix.name in KEEPS and KEEPS[prefix.name](words)):
        return False
    # Where its own words hold the command (`su -c`, `sh -c`), that is found instead.
    return arriving((*prefix.words, "vllm", "serve", "m"), {}, name, "1") != "1"
