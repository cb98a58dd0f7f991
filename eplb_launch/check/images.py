"""Images: what a name says of vLLM's release and entry point; `docker run` in a script."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from eplb_launch.command.wrappers import WRAPPERS, row_of
from eplb_launch.model import UNKNOWN, Record, Server
from eplb_launch.vllm.releases import minor_release, release_of

ENGINES = frozenset(name for name in WRAPPERS if "image" in row_of(name))
_STARTS = ("create", "run")
# The last parts of repositories whose tag is vLLM's version: those of docker/Dockerfile* of vLLM,
# and of others who build under the same name.
_NAMES = """
    vllm vllm-cpu vllm-cpu-env vllm-cpu-release-repo vllm-nonroot vllm-openai vllm-openai-cpu
    vllm-openai-nonroot vllm-openai-rocm vllm-openai-xpu vllm-sagemaker
"""
_BY_TAG = frozenset(_NAMES.split())
# All releases of vLLM are 0.N; another number counts the images of their publisher.
_TAG = re.compile(r"v?(0\.\d+(?:\.\d+)?(?:(?:rc|\.?dev|\.?post)\d+)*)(?:$|[-_+.])")
_NAMED = re.compile(r"(?:^|[-_.])vllm[-_]?v?(0\.\d+(?:\.\d+)?)")  # rocm7.0.0_vllm_0.11.1_2025

# These publish images under vLLM's names, with versions of their own.
_OTHERS = ("lmcache",)

# Images with vLLM, as they are published: none has this launcher.
_PUBLISHED = re.compile(
    r"^(?:(?:docker\.io|index\.docker\.io|public\.ecr\.aws/q9t5s3a7)/)?vllm/vllm-|^ghcr\.io/llm-d/"
    r"|^nvcr\.io/nvidia/(?:ai-dynamo/)?vllm|^lmcache/vllm-|^quay\.io/vllm/|^rocm/vllm"
)
# Folders that may be on PATH, or have modules of Python.
_PROGRAMS = re.compile(
    r"^/(?:$|opt\b|usr\b|bin\b|app\b|home\b|root/\.local|workspace)|eplb|venv|bin$"
)
# A step that installs the launcher, or may install it.
_BRINGS = re.compile(r"\b(?:install|add|sync|cp|curl|wget)\b")
_LAUNCHER = re.compile(r"eplb|requirements|\s-r\b|\s\.(?:\s|$)")
# Proxies, sidecars and other engines: their options may have the names of vLLM's.
_OTHER = re.compile(r"sglang|trtllm|tensorrt|router|routing|sidecar|proxy|gateway|scheduler|-epp\b")


def brings(text: str) -> bool:
    """Whether a step in a text installs the launcher, or may."""
    if "--from" in text:
        return True
    lines = text.replace("\\\n", " ").split("\n")
    steps = ((line, _BRINGS.search(line)) for line in lines)
    return any(step and _LAUNCHER.search(line, step.end()) for line, step in steps)


def split(image: str) -> tuple[str, str]:
    """Return the last part of an image's repository and its tag; "" where there is none."""
    rest = image.partition("@")[0].rpartition("/")[2]
    name, _, tag = rest.partition(":")
    return name, tag


def version(image: str) -> tuple[str | None, str]:
    """Return vLLM's version that an image's name says, None if it says none, and why."""
    name, tag = split(image)
    if not image:
        return None, "no image says it"
    if tag:
        own = not any(publisher in image.lower() for publisher in _OTHERS)
        match = _TAG.match(tag) if own and name in _BY_TAG else None
        match = match or (_NAMED.search(tag) if "vllm" in tag else None)
        if match and minor_release(match[1]) is not None:
            return match[1], f"the tag of the image, {tag}"
    return None, "the image's name does not say it"


def is_vllm(image: str) -> bool:
    """Whether an image has vLLM in it, by its name."""
    return "vllm" in split(image)[0]


def is_bare(image: str, mounts: Iterable[str]) -> bool:
    """Whether an image is as it was published, and no mount can bring a program."""
    published = _PUBLISHED.search(image) is not None
    return published and not any(_PROGRAMS.search(path) for path in mounts)


def is_other(image: str) -> bool:
    """Whether an image has another program than vLLM, by its name."""
    return not is_vllm(image) and _OTHER.search(split(image)[0]) is not None


def entry_point(image: str) -> tuple[str, ...]:
    """Return the ENTRYPOINT of an image of vLLM's own, () if it is not known or there is none."""
    name, _ = split(image)
    if name not in ("vllm-openai", "vllm-openai-cpu", "vllm-openai-xpu", "vllm-openai-rocm"):
        return ()
    found, _ = version(image)
    release = release_of("0.12" if found in ("0.11.1", "0.11.2") else found)
    return release.image_for_rocm if name.endswith("rocm") else release.image


class Run(Record):
    """A `docker run`, or the same of another engine."""

    engine: str
    image: str  # "" if it cannot be known
    unread: tuple[str, ...]  # files of variables
    bare: bool = False  # the image is as it was published, and no mount may bring a program

    @property
    def entry(self) -> str:
        """What the image starts by itself: "vllm serve"; "" if that is not known."""
        words = entry_point(self.image)
        return words[-1] if "-m" in words else " ".join(words)


def run_of(server: Server) -> Run | None:
    """Return the `docker run` that a server is started with, None if there is none."""
    for wrapper in reversed(server.wrappers):
        if wrapper.name in ENGINES and any(word in _STARTS for word in wrapper.words[:8]):
            image = wrapper.words[-1]  # the options end with it
            service = any("compose" in word for word in wrapper.words[:2])  # that is no image
            known = "" if service or UNKNOWN in image else image
            # `-v HOST:PATH`, `--mount type=bind,..,target=PATH`
            mounts = _values(wrapper.words, "-v", "--volume", "--mount")
            places = [place for mount in mounts for place in re.split("[:,=]", mount)]
            files = tuple(f"{file} (--env-file)" for file in _values(wrapper.words, "--env-file"))
            return Run(wrapper.name, known, files, is_bare(known, places))
    return None


def _values(words: Sequence[str], *options: str) -> Iterator[str]:
    """Yield the values of options: `-v VALUE`, `--volume=VALUE`."""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name in options:
            yield value if equals else following
