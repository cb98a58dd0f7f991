"""`eplb-launch check`: the vLLM servers that deployment files start, reviewed.

The way of the data: `sources` reads files, `yaml_tree` makes trees of YAML with lines. A `kind`
takes some of them and yields what they start as `tasks`: `kubernetes/`, `compose/`, `systemd` and
`quadlet` (both with `units`), `dockerfile`, `shell_files`, `fields` for all other YAML, and
`others` for files without a reader. `reader` has the list of the kinds, and asks all of them.

`assess_task` asks for the Plan of each server of a task (`plan_cache` keeps them). `scripts` finds
the lines of servers in a script, `images` knows what images bring, `launcher` whether the launcher
is there, `fixes` what to do. `model` has all that is said, `reports` and `sarif` print it, and
`command` does all of that for a command line.
Nothing is started, and nothing here is imported to launch a command.
"""
