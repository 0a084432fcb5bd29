"""A function on a GPU whose kernels are started all at once: a CUDA graph.

A step of decoding is 300 kernels of a few microseconds. Python takes longer to ask for them, one by
one, than the GPU to run them; a graph that was recorded once is asked for as a whole.
"""
import torch

# {device: (the graph recorded last, the stream on which all are recorded)}. That graph keeps the
# memory that all of them compute in, of which the next one takes over what is free. So what a graph
# returns is to be used before another one runs.
latest = {}


class Recording:
    """recording(function, x) = function(x), on a GPU from a CUDA graph.

    The first call with an x of some shape runs as it is, and makes what is made once. The second is
    recorded; from then on the recording is replayed. That reads and writes the very tensors that
    were there when it was recorded: after one of them was replaced, forget() must be called. The
    function must not wait for the GPU. What it returns is overwritten by the next call."""

    def __init__(self):
        self.forget()

    def forget(self):
        self.x = None
        self.graph = None
        self.result = None

    def __call__(self, function, x):
        if self.x is None or self.x.shape != x.shape:
            self.forget()
            self.x = torch.empty_like(x)
            return function(x)
        self.x.copy_(x)
        if self.graph is None:
            self.graph, self.result = recorded(function, self.x)
        self.graph.replay()
        return self.result


def recorded(function, x):
    """(a CUDA graph of function(x), what it returns)."""
    graph = torch.cuda.CUDAGraph()
    before, stream = latest.get(x.device, (None, None))
    stream = stream or torch.cuda.Stream(x.device)
    pool = before.pool() if before else None
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        # Other threads may go on to use the GPU meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        try:
            result = function(x)
        finally:
            graph.capture_end()
    latest[x.device] = graph, stream
    return graph, result
