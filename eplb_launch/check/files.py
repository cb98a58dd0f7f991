"""The files of a task: the script that it names, and the `--config` files."""

from __future__ import annotations

import os
import re

from eplb_launch.check import sources
from eplb_launch.check.tasks import File, Task, Word
from eplb_launch.command.wrappers import SHELLS

_CONFIG = re.compile(r"--config[\s\\]+([\w./-]+\.[\w-]+)")
_MAX_FILES = 100


def with_script(task: Task) -> Task:
    """Return a task with a script that it names in the place of that name, where it is known.

    `/scripts/run.sh ARGUMENTS` and `bash /scripts/run.sh ARGUMENTS` become `bash -c TEXT ..`.
    """
    texts = [word.text for word in task.words]
    for index in range(min(len(texts), 2)):
        if index and texts[0].rpartition("/")[2] not in SHELLS:
            break
        path = os.path.normpath(os.path.join(task.directory, texts[index]))
        file = task.files.get(path)
        if file is None or (not index and "sh" not in file.text.partition("\n")[0]):
            continue
        first = task.words[index]
        end = file.line + file.text.count("\n")
        script = Word(file.text, file.source, file.line, end, block=True)
        shell = [first.replace(text=text) for text in ("bash", "-c")]
        return task.replace(words=(*shell, script, first, *task.words[index + 1 :]))
    return task


def with_config_files(task: Task) -> Task:
    """Return a task with the files that `--config` names, where they are beside what names them.

    What a path means on the machine that it is for is not known here. A file of that name beside
    the manifest, as configMapGenerator and COPY have it, is taken to be it.
    """
    files = dict(task.files)
    texts = [word.text for word in task.words]
    for index, word in enumerate(task.words):
        names = _CONFIG.findall(word.text)[:_MAX_FILES]
        for name in [*names, *(texts[index + 1 : index + 2] if word.text == "--config" else ())]:
            path = os.path.normpath(os.path.join(task.directory, name))
            folder = word.source.directory
            beside = [os.path.join(folder, name.lstrip("/")), os.path.join(folder, path[1:])]
            beside.append(os.path.join(folder, os.path.basename(name)))
            for place in beside if path not in files else ():
                found = word.source.near(place, sources.YAML, guessed=True)
                if found is not None:
                    files[path] = File(found.text, found)
                    break
    return task.replace(files=files)
