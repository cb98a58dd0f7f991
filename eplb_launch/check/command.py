"""`eplb-launch check`: paths in, findings and an exit status out."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

from eplb_launch.check import reports
from eplb_launch.check.assess_task import assess_task
from eplb_launch.check.model import OK, Finding, Mention, Review, Trouble
from eplb_launch.check.plan_cache import Plans
from eplb_launch.check.reader import Reader, gather
from eplb_launch.check.sources import Reach
from eplb_launch.check.tasks import Task
from eplb_launch.launch import say
from eplb_launch.terminal import print_text

_MAX_NAMED = 3  # files in one line


def check(paths: Sequence[str], vllm_version: str | None = None, *, follow: bool = False) -> Review:
    """Return the review of the servers that the files at `paths` start.

    `vllm_version` is the release of all servers, whatever the images say. `follow`: a file that
    another one names is read wherever it is.
    """
    reader = Reader()
    reach = Reach(paths, follow=follow)
    for source in gather(paths, reach):
        with reader.guard(source):
            reader.take(source)

    def assessed(tasks: Iterator[Task]) -> Iterator[tuple[str, Finding]]:
        """Yield findings, each with the file whose task it is: a script may start another one."""
        for task in tasks:
            with reader.guard(task.source):
                if not task.source.spend(0):
                    continue
                for finding in assess_task(task, vllm_version, plans):
                    file = reader.name(finding.file)
                    yield reader.name(task.source.path), finding.replace(file=file)
                task.source.spend(sum(plans.done))
                plans.done.clear()

    findings: dict[tuple[str, int, str], Finding] = {}
    plans = Plans()
    for _, finding in assessed(reader.tasks()):
        findings.setdefault((finding.file, finding.line, finding.name), finding)
    found_lines = {(file, line) for file, line, _ in findings}
    started: dict[tuple[str, int, str], Finding] = {}  # by another script, the worst one
    for file, finding in assessed(reader.leftover()):
        key = finding.file, finding.line, finding.name
        if key[:2] in found_lines:
            continue
        for worst in (findings, started) if file != finding.file else (findings,):
            if key not in worst or finding.rank < worst[key].rank:
                worst[key] = finding
    # Whoever starts a script may limit NCCL for it.
    findings.update((key, one) for key, one in started.items() if one.verdict == OK)
    reader.troubles += reader.unrendered()
    reader.troubles += [Trouble(reader.name(file), 0, message) for file, message in reach.said]
    order = {name: number for number, name in enumerate(reader.names.values())}
    found = sorted(findings.values(), key=lambda f: (order.get(f.file, len(order)), f.line))
    mentions = tuple(_mentions(reader, found))
    return Review(tuple(found), tuple(reader.troubles), reader.files, tuple(reader.idle), mentions)


def _mentions(reader: Reader, found: Sequence[Finding]) -> Iterator[Mention]:
    """Yield the lines with an entry point that belong to no server, each with the reason."""
    servers = {(one.file, line) for one in found for line in one.covered_lines}
    repeated = {
        (file, line)
        for kind in reader.kinds
        for file, first, last in kind.repeated
        for line in range(first, last + 1)
    }
    not_read = {trouble.file for trouble in reader.troubles}
    for mention in reader.mentions:
        at = mention.file, mention.line
        why = "it repeats its owner or another object of that owner" if at in repeated else ""
        why = why or mention.why
        if not why and mention.file in not_read:
            why = "a part of the file is not read"
        if at not in servers:
            yield mention.replace(why=why or "no command that check can read starts it")


def run(
    paths: Sequence[str],
    *,
    style: str,
    strict: bool = False,
    vllm_version: str | None = None,
    verbose: bool = False,
    follow: bool = False,
) -> int:
    """Print the review in a style ("text", "json", "github", "sarif"). Return the exit status."""
    gc.disable()  # it doubles the time for a tree of YAML, and the process ends soon
    review = check(paths, vllm_version, follow=follow).replace(strict=strict)
    if review.idle:
        names = ", ".join(reports.printable(path) for path in review.idle[:_MAX_NAMED])
        more = f" and {len(review.idle) - _MAX_NAMED} more" if len(review.idle) > _MAX_NAMED else ""
        say(f"nothing that check reads is in {names}{more}")
    text = reports.STYLES[style](review, verbose=verbose)
    print_text(text.encode("utf-8", "backslashreplace").decode("utf-8"), end="")
    return review.status
