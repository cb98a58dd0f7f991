"""The SMs that DeepEP's low-latency kernels take, and the cap that fits beside them."""
