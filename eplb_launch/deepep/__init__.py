"""The SMs of a GPU: what DeepEP's low-latency kernels take, and the cap that fits beside them."""
