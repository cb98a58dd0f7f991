// Compiled at run time (NVRTC). No headers, so that nothing but PyTorch has to be there.

enum { STARTED, ENDED, PEER, GIVE_UP };  // words of `flags`, which the host sees

__device__ unsigned long long now() {
    unsigned long long nanoseconds;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(nanoseconds));
    return nanoseconds;
}

// Stands in for DeepEP's low-latency dispatch (csrc/kernels/internode_ll.cu): 1024 threads a block,
// one block on an SM (by the shared memory that the host asks for), launched cooperatively, a
// barrier over the grid, then a wait for what the peers send. Ends by itself after `limit` ns.
extern "C" __global__ void __launch_bounds__(1024, 1)
dispatch(volatile unsigned *counts, volatile unsigned *flags, unsigned long long limit) {
    if (threadIdx.x == 0) {
        const unsigned long long end = now() + limit;
        if (atomicAdd((unsigned *)&counts[0], 1) + 1 == gridDim.x) flags[STARTED] = 1;
        __threadfence_system();
        while (counts[0] < gridDim.x && now() < end) __nanosleep(500);
        if (blockIdx.x == 0) {
            while (!flags[PEER] && !flags[GIVE_UP] && now() < end) __nanosleep(2000);
            counts[1] = 1;
            __threadfence();
        }
        while (!counts[1] && now() < end) __nanosleep(500);
        if (atomicAdd((unsigned *)&counts[2], 1) + 1 == gridDim.x) flags[ENDED] = 1;
        __threadfence_system();
    }
    __syncthreads();  // the whole block stays until its first thread is done
}

// Marks the SMs that have room for a block of that size. With a block for every SM, each of them
// lasting longer than it takes to place them all, those are the SMs that are free.
extern "C" __global__ void __launch_bounds__(1024, 1)
probe(volatile unsigned *seen, unsigned long long duration) {
    if (threadIdx.x == 0) {
        unsigned sm;
        asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
        seen[sm] = 1;
        __threadfence_system();
        const unsigned long long end = now() + duration;
        while (now() < end) __nanosleep(1000);
    }
    __syncthreads();
}
