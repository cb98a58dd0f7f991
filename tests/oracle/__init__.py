"""Ask real vLLM, release by release, and compare: `make oracle VLLM=X.Y.Z`.

`sources` gets a release, `answer` runs its own code in an interpreter of its own, `ask` talks to
that; `generate` makes command lines, `compare` says where the plan differs, `shrink` makes a
differing one small, `rows` picks and writes those that become part of the tests, and
`option_table` brings `eplb_launch/vllm/options.py` up to date. Nothing of this is part of
`make test`, but for `tests/test_oracle_tool.py`, which needs no vLLM.
"""
