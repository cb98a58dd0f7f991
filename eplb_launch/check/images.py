"""Images: the release and the entry point that a name implies; `docker run` commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from eplb_launch.command.wrappers import WRAPPERS, row_of
from eplb_launch.model import UNKNOWN, Record, Server
from eplb_launch.vllm.releases import minor_release, release_of

ENGINES = frozenset(name for name in WRAPPERS if "image" in row_of(name))
_STARTS = ("create", "run")
# Repositories whose tag is vLLM's version: docker/Dockerfile* of vLLM, and others like it.
_NAMES = """
    vllm vllm-cpu vllm-cpu-env vllm-cpu-release-repo vllm-nonroot vllm-openai vllm-openai-cpu
    vllm-openai-nonroot vllm-openai-rocm vllm-openai-xpu vllm-sagemaker
"""
_TAGGED_BY_VERSION = frozenset(_NAMES.split())
_OWN_VERSIONS = "lmcache"  # it publishes images under vLLM's names, with versions of its own
# All releases of vLLM are 0.N: another number is the publisher's.
_TAG = re.compile(r"v?(0\.\d+(?:\.\d+)?(?:(?:rc|\.?dev|\.?post)\d+)*)(?:$|[-_+.])")
_NAMED = re.compile(r"(?:^|[-_.])vllm[-_]?v?(0\.\d+(?:\.\d+)?)")  # rocm7.0.0_vllm_0.11.1_2025
# Images as their publishers build them: they do not contain eplb-launch.
_PUBLISHED = re.compile(
    r"^(?:(?:docker\.io|index\.docker\.io|public\.ecr\.aws/q9t5s3a7)/)?vllm/vllm-|^ghcr\.io/llm-d/"
    r"|^nvcr\.io/nvidia/(?:ai-dynamo/)?vllm|^lmcache/vllm-|^quay\.io/vllm/|^rocm/vllm"
)
# Folders that may be on PATH or contain Python modules.
_PROGRAMS = re.compile(
    r"^/(?:$|opt\b|usr\b|bin\b|app\b|home\b|root/\.local|workspace)|eplb|venv|bin$"
)
# A step that may install eplb-launch.
_BRINGS = re.compile(r"\b(?:install|add|sync|cp|curl|wget)\b")
_LAUNCHER = re.compile(r"eplb|requirements|\s-r\b|\s\.(?:\s|$)")
# Proxies, sidecars and other engines: some of their options have the names of vLLM's options.
_OTHER = re.compile(r"sglang|trtllm|tensorrt|router|routing|sidecar|proxy|gateway|scheduler|-epp\b")


def brings(text: str) -> bool:
    """Whether a step in a text may install eplb-launch."""
    if "--from" in text:
        return True
    lines = text.replace("\\\n", " ").split("\n")
    steps = ((line, _BRINGS.search(line)) for line in lines)
    return any(step and _LAUNCHER.search(line, step.end()) for line, step in steps)


def split(image: str) -> tuple[str, str]:
    """Return the name and the tag of an image, without its registry and digest."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    return name, tag


def version(image: str) -> tuple[str | None, str]:
    """Return the vLLM version that an image's name gives, or None, and the source of the answer."""
    name, tag = split(image)
    if not image:
        return None, "no image names it"
    trusted = name in _TAGGED_BY_VERSION and _OWN_VERSIONS not in image.lower()
    match = (_TAG.match(tag) if trusted else None) or (
        _NAMED.search(tag) if "vllm" in tag else None
    )
    if match and minor_release(match[1]) is not None:
        return match[1], f"the tag of the image, {tag}"
    return None, "the image's name does not give it"


def is_vllm(image: str) -> bool:
    """Whether the name of an image says that vLLM is in it."""
    return "vllm" in split(image)[0]


def is_bare(image: str, mounts: Iterable[str]) -> bool:
    """Whether an image is as it was published, and no mount may bring a program."""
    published = _PUBLISHED.search(image) is not None
    return published and not any(_PROGRAMS.search(path) for path in mounts)


def is_other(image: str) -> bool:
    """Whether the name of an image says that another program is in it."""
    return not is_vllm(image) and _OTHER.search(split(image)[0]) is not None


def entry_point(image: str) -> tuple[str, ...]:
    """Return the ENTRYPOINT of one of vLLM's own images; () if it has none or is another image."""
    name, _ = split(image)
    if name not in ("vllm-openai", "vllm-openai-cpu", "vllm-openai-xpu", "vllm-openai-rocm"):
        return ()
    found, _ = version(image)
    release = release_of("0.12" if found in ("0.11.1", "0.11.2") else found)
    return release.image_for_rocm if name.endswith("rocm") else release.image


class Run(Record):
    """A `docker run` command, or that of another engine."""

    engine: str
    image: str  # "" if it is not known
    unread: tuple[str, ...]  # the --env-file files
    bare: bool = False  # the image is as it was published, and no mount may bring a program

    @property
    def entry(self) -> str:
        """The program that the image starts, such as "vllm serve"; "" if it is not known."""
        words = entry_point(self.image)
        return words[-1] if "-m" in words else " ".join(words)


def run_of(server: Server) -> Run | None:
    """Return the `docker run` command that starts a server; None if there is none."""
    for wrapper in reversed(server.wrappers):
        if wrapper.name in ENGINES and any(word in _STARTS for word in wrapper.words[:8]):
            image = wrapper.words[-1]  # it follows the options
            is_service = any("compose" in word for word in wrapper.words[:2])
            known = "" if is_service or UNKNOWN in image else image
            # `-v HOST:PATH`, `--mount type=bind,..,target=PATH`
            mounts = _values(wrapper.words, "-v", "--volume", "--mount")
            places = [place for mount in mounts for place in re.split("[:,=]", mount)]
            files = tuple(f"{file} (--env-file)" for file in _values(wrapper.words, "--env-file"))
            return Run(wrapper.name, known, files, is_bare(known, places))
    return None


def of_command(server: Server) -> str:
    """Return the image that a command names; "" if it names none, or a file."""
    run = run_of(server)
    if run is not None:
        return run.image
    for wrapper in reversed(server.wrappers):
        if wrapper.name.partition(" ")[0] in ("apptainer", "singularity"):
            scheme, _, image = wrapper.words[-1].partition("docker://")
            return "" if scheme else image
        for image in _values(wrapper.words, "--container-image"):  # of srun, by Pyxis
            return image.removeprefix("docker://").replace("#", "/")
    return ""


def _values(words: Sequence[str], *options: str) -> Iterator[str]:
    """Yield the values of options: `-v VALUE`, `--volume=VALUE`."""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name in options:
            yield value if equals else following
