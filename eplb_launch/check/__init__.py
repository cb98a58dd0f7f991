"""`eplb-launch check`: the vLLM servers that deployment files start, reviewed.

The way of the data: `sources` reads files, `yaml_tree` makes trees of YAML with lines. A `kind`
takes some of them and gives what they start as `tasks`: `kubernetes/`, `compose/`, `systemd` (with
`dropins`), `quadlet`, `dockerfile` (with `instructions`), `shell_files`, `fields` for all other
YAML, and `others` for what no reader knows; `reader` has the list of the kinds, and asks all of
them.

`assess_task` asks the Plan (by `plan_cache`) about each server of each task, with its
`files` (`scripts` has the lines of those in a script; `scripts` and `docker_run` say what else sets
variables there); `verdict` says what that means, `presence` whether the launcher is
there, `fixes` what to do. All that is said is in `model`; `reports` and `sarif` print it; `command`
does all of that for a command line.
Nothing is started, and nothing here is imported to launch a command.
"""
