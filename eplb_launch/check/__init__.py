"""`eplb-launch check`: the vLLM servers that deployment files start, reviewed.

The way of the data, a room each: `sources` reads files, `nodes` makes trees of YAML with lines; a
`kind` takes some of them and gives what they start as `tasks`: `kubernetes` (with `containers`,
`pods`, `config_maps`, `clusters`, `kserve` and `ray`), `compose` (with `extends` and
`interpolation`), `systemd` (with `units`), `dockerfiles` (with `instructions`) and `shell_files`;
`reader` has the list of the kinds, and asks all of them.

`judging` asks the Plan (by `decisions`) about each task, with its `files`, and about each command
of its `scripts` (which `worker` reads with `grammar`; `sourced` and `engines` say what else sets
variables there); `verdicts` says what that means, `fixes` what to do. All that is said is in
`model`; `reports` and `sarif` print it; `run` does all of that for a command line. Nothing is
started, and nothing here is imported to launch a command.
"""
