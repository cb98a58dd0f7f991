"""What voids a cap, or may void it: the messages, and what to do. `cases` says when a row applies.

The launcher prints a row of WARNINGS, and with --strict does not start the command. Only `explain`
shows a row of NOTES: nothing is wrong then.
"""

from __future__ import annotations

from eplb_launch.model import ANYBODY, ENVIRONMENT, FILE, LAUNCHER, PlanWarning

# The code of the warning that a wrapper overwrites the value.
OVERWRITTEN = "variable-overwritten"

_MINIMUM = "{name}={value} in {where} voids the cap: NCCL takes at least {count} CTAs for {what}"
_UNSET_IT = "unset it there, or set it to {cap} or less"
_KEPT = "vLLM's rule keeps NCCL_MAX_CTAS={value}, as it keeps all digits, "
_SET_IT = "set NCCL_MAX_CTAS={cap}, or unset it"

WARNINGS: tuple[PlanWarning, ...] = (
    PlanWarning(
        "min-nchannels",
        _MINIMUM.replace("{what}", "everything"),
        _UNSET_IT,
        "NCCL src/graph/connect.cc, ncclTopoPostset; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "min-p2p-nchannels",
        _MINIMUM.replace("{what}", "the weight exchange"),
        _UNSET_IT,
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "value-not-a-limit",
        _KEPT + "but NCCL reads no limit from it",
        _SET_IT,
        "NCCL src/init.cc; measured with NCCL 2.28.9",
        voids=ANYBODY,
    ),
    PlanWarning(
        "value-too-high",
        _KEPT + "but NCCL may then take {count} CTAs, more than {cap}",
        _SET_IT,
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; DeepEP issue 496",
        voids=ANYBODY,
    ),
    PlanWarning(
        "max-ctas-too-high",
        "NCCL_MAX_CTAS={value} is more than vLLM's {most}, which is known to work beside DeepEP",
        "give --max-ctas {most} or less, or --max-ctas fit",
        "DeepEP issue 496; vLLM PR 32860",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "value-replaced",
        "vLLM's rule replaces NCCL_MAX_CTAS={value}, though NCCL reads a limit of {number} from it",
        "write NCCL_MAX_CTAS={number}: the rule keeps plain digits",
        "NCCL src/misc/param.cc; vLLM PR 32860",
        launch_only=True,
    ),
    PlanWarning(
        "value-empty",
        "NCCL_MAX_CTAS is empty, which is no limit and hides a limit in a conf file",
        "unset it, or set it to a number",
        "NCCL src/misc/param.cc; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit",
        "NCCL_MAX_CTAS={value} in {where} is the limit, and eplb-launch sets nothing: vLLM's rule "
        "would hide it",
        "set NCCL_MAX_CTAS={value} in the environment, so that it does not depend on a file",
        "NCCL src/misc/param.cc, initEnv; measured with NCCL 2.28.9",
    ),
    PlanWarning(
        "conf-file-limit-hidden",
        "NCCL_MAX_CTAS={value} in {where} is a limit, and eplb-launch sets nothing, but the "
        "workers of vLLM do not read the file and set 8",
        "set NCCL_MAX_CTAS={value} in the environment: vLLM keeps it",
        "NCCL src/misc/param.cc, initEnv; vLLM PR 32860",
    ),
    PlanWarning(
        "conf-file-limit-unsure",
        "the value that eplb-launch sets hides NCCL_MAX_CTAS={value} in {where}, if NCCL reads "
        "that file",
        "set NCCL_MAX_CTAS={value} in the environment if you want that value",
        "NCCL src/misc/param.cc, initEnv",
    ),
    PlanWarning(
        "variable-dropped",
        "{names} {verb} not pass NCCL_MAX_CTAS on to the server",
        "put `eplb-launch --` directly before {place}{option}",
        "the manual of the program",
        voids=(LAUNCHER, ENVIRONMENT),
        launch_only=True,
    ),
    PlanWarning(
        OVERWRITTEN,
        "{name} sets NCCL_MAX_CTAS={value} for the server, and overwrites the value set here",
        "remove it there, or put `eplb-launch --` directly before {place}",
        "the manual of the program",
        voids=(LAUNCHER,),
        launch_only=True,
    ),
    PlanWarning(
        "ray-workers",
        "vLLM {version} passes no NCCL variables to its Ray workers ({option})",
        'run `eval "$(eplb-launch env -- CMD)"` before `ray start` on every node, or use '
        "`eplb-launch env --format ray -- CMD` as the runtime_env",
        "vLLM up to 0.16, vllm/ray/ray_env.py; issue 6803",
        voids=(LAUNCHER,),
        doubts=(ENVIRONMENT, FILE),
    ),
)

NOTES: tuple[PlanWarning, ...] = (
    PlanWarning(
        "ray-workers-unsure",
        "vLLM before 0.17 passes no NCCL variables to its Ray workers ({option}), and the release "
        "is not known",
        "give --vllm-version, or set the variable before `ray start` on every node",
        "vLLM vllm/ray/ray_env.py; issue 6803",
    ),
    PlanWarning(
        "ray-node-value",
        "with the Ray executor of vLLM {version}, the NCCL_MAX_CTAS that a node has set wins",
        "unset it where `ray start` runs, on every node",
        "vLLM v1/executor/ray_executor_v2.py",
    ),
    PlanWarning(
        "every-node",
        "this command starts only a part of the server ({option})",
        "put `eplb-launch --` before the command of every node",
        "vLLM vllm/config/parallel.py",
    ),
    PlanWarning(
        "env-plugin",
        "NCCL_ENV_PLUGIN may give NCCL other values, which eplb-launch cannot see",
        "look for `NCCL_MAX_CTAS set by environment` in the log with NCCL_DEBUG=INFO",
        "NCCL 2.28.7, plugins/env",
    ),
    PlanWarning(
        "max-ctas-rounded",
        "NCCL rounds {value} up to a power of two in the weight exchange: {count}",
        "use a power of two",
        "NCCL src/graph/paths.cc, ncclTopoComputeP2pChannels; measured with NCCL 2.28.9",
    ),
)
