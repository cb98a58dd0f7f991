"""Start vLLM with the NCCL limit that keeps expert-parallel load balancing from hanging.

>>> plan = eplb_launch.plan(["vllm", "serve", "model", "-dp", "8", ...], os.environ)
>>> plan.environment
{'NCCL_MAX_CTAS': '8'}
"""

from __future__ import annotations

from eplb_launch._version import __version__
