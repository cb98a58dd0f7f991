"""`eplb-launch check`: a review of the vLLM servers that deployment files start.

The data goes this way. `sources` reads files, and `yaml_tree` makes trees with line numbers from
YAML. A `kind` of file takes some of them and yields `tasks`, the commands that they start. The
kinds are `kubernetes/`, `compose`, `units` (of systemd and Podman), `dockerfile`,
`shell_files`, `fields` for all other YAML, and `others` for files without a reader. `reader` lists
the kinds and asks each of them.

`assess_task` finds the servers of a task and makes a Plan for each (`plan_cache` keeps the Plans).
`scripts` finds the lines of servers in a script, `images` knows what images contain, `launcher`
knows whether the launcher is there, and `fixes` says what to do. `model` holds the results,
`reports` and `sarif` print them, and `command` does all this for a command line.

Nothing is started here. The launcher imports nothing of this when it starts a command.
"""
