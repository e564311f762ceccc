"""Times of operators and of whole steps of the published 2D ST shape, in captured CUDA graphs."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multiscale.cuda_check.cases import PATCH_ROW, rotary
from multiscale.cuda_check.library import Library
from multiscale.cuda_check.patches import COPIED_BYTES_PER_SECOND

WORK = torch.float16
D, HEADS, HEAD, FF, PATCH, VOCABULARY = 1024, 16, 64, 2048, 8, 256
LOCAL_LAYERS, GLOBAL_LAYERS = 21, 25
INNER, SSM_HEADS, SSM_STATE = 2048, 32, 128
CONV = INNER + 2 * SSM_STATE
PROJECTED = 2 * INNER + 2 * SSM_STATE + SSM_HEADS


def work(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda").mul_(0.02).to(WORK)


def f32(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda")


def ints(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int32, device="cuda")


class Recorder:
    """Prepared calls that are launched in order, inside a capture or not."""

    def __init__(self, library: Library):
        self.library = library
        self.calls: list[Callable[[int], None]] = []
        self.keep_alive: list[Any] = []

    def op(self, name: str, work: torch.dtype = WORK, **arguments: Any) -> None:
        struct = self.library.prepare(name, work, arguments)
        self.keep_alive.append(arguments)
        self.calls.append(lambda stream: self.library.run(name, struct, stream))

    def gemm(self, x: Tensor, w: Tensor, y: Tensor) -> None:
        self.keep_alive.append((x, w, y))
        self.calls.append(lambda _: torch.mm(x, w.T, out=y))

    def microseconds(self, repeats: int = 40) -> float:
        """Least time of one replay of all calls: another process on the GPU disturbs only the others."""
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for call in self.calls:
                call(stream.cuda_stream)
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for call in self.calls:
                call(stream.cuda_stream)
        self.library.raise_errors()
        for _ in range(3):
            graph.replay()
        times = []
        for _ in range(repeats):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) * 1000)
        return min(times)


def bytes_of(arguments: dict[str, Any]) -> int:
    return sum(
        t.nbytes
        for value in arguments.values()
        for t in (value if isinstance(value, list) else [value])
        if isinstance(t, Tensor)
    )


def time_op(
    library: Library, title: str, name: str, make: Callable[[], dict[str, Any]], moved: int | None = None
) -> str:
    """`make` gives the arguments of one call; enough of them are rotated that no cache holds them."""
    first = make()
    size = bytes_of(first) if moved is None else moved
    copies = max(4, min(64, -(-200_000_000 // max(size, 1))))
    recorder = Recorder(library)
    for i in range(copies):
        recorder.op(name, **(first if i == 0 else make()))
    each = recorder.microseconds() / copies
    floor = size / COPIED_BYTES_PER_SECOND * 1e6
    return f"{name:16} {title:34} {each:8.2f} us  floor {floor:7.2f}  {floor / each * 100:4.0f} %"


def product(name: str, M: int, K: int, N: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        a = {"M": M, "K": K, "N": N, "w": work(N, K), "bias": f32(N)}
        if name == "NormLinear":
            return a | {"x": f32(M, K), "gain": f32(K), "prev": f32(M, K), "prev_rows": M, "y": work(M, N)}
        if name == "Linear":
            return a | {"x": work(M, K), "y": work(M, N)}
        return a | {"x": work(M, K), "residual": f32(M, N), "y": f32(M, N)}

    return make


def attention(B: int, count: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        a = {"B": B, "H": HEADS, "d": HEAD, "count": count, "start_k": work(HEADS, HEAD), "start_v": work(HEADS, HEAD)}
        a |= {name: table.cuda() for name, table in rotary(count + 1, HEAD).items()}
        return a | {"qkv": [work(B, 3 * D) for _ in range(count)], "y": work(B, D)}

    return make


def scan(R: int, steps: int) -> Callable[[], dict[str, Any]]:
    state, initial = f32(R, SSM_HEADS, SSM_STATE, HEAD), f32(SSM_HEADS, SSM_STATE, HEAD)

    def make() -> dict[str, Any]:
        M = R * steps
        a = {"M": M, "R": R, "W": PROJECTED, "H": SSM_HEADS, "P": HEAD, "N": SSM_STATE, "dt_offset": INNER + CONV}
        a |= {"xbc": f32(M, CONV), "u": work(M, PROJECTED), "dt_bias": f32(SSM_HEADS), "a": -f32(SSM_HEADS).exp()}
        a |= {"d": f32(SSM_HEADS), "state": state if R > 16 else state.clone(), "initial": initial}
        return a | {"slot": ints(range(R)), "position": ints([1] * R), "y": f32(M, INNER)}

    return make


def conv(R: int, steps: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        M = R * steps
        a = {"M": M, "R": R, "W": PROJECTED, "channels": CONV, "taps": 4, "offset": INNER, "u": work(M, PROJECTED)}
        a |= {
            "w": f32(CONV, 4),
            "b": f32(CONV),
            "state": f32(R, 3, CONV),
            "initial": f32(3, CONV),
            "slot": ints(range(R)),
        }
        return a | {"position": ints([1] * R), "y": f32(M, CONV)}

    return make


def add_norm(M: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        a = {"M": M, "K": D, "x": f32(M, D), "gain": f32(D), "delta": work(M, D), "bias": f32(D), "prev": f32(M, D)}
        return a | {"prev_rows": M, "sum": f32(M, D), "h": work(M, D)}

    return make


def sampler(B: int, top_p: float, top_k: int = 0, temperature: float = 1.0) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        rows = torch.zeros(B, dtype=torch.int32).numpy().repeat(32).view(PATCH_ROW)
        rows["slot"] = range(B)
        rows["temperature"], rows["top_p"], rows["top_k"] = temperature, top_p, top_k
        words = torch.from_numpy(rows.view("i4").reshape(B, 32)).cuda()
        a = {"B": B, "V": VOCABULARY, "P": PATCH, "step": 0, "logits": f32(B, VOCABULARY) * 2, "rows": words}
        a |= {"forced": ints([[0] * PATCH] * B), "bias": torch.zeros(B, VOCABULARY, dtype=torch.float64, device="cuda")}
        a |= {
            "counts": ints([[0] * VOCABULARY] * B),
            "id_flags": torch.zeros(B, VOCABULARY, dtype=torch.uint8, device="cuda"),
        }
        a |= {"cursor": ints([0] * B), "ids_out": ints([[0] * PATCH] * B), "logits_out": f32(B, PATCH, VOCABULARY)}
        return a | {"next": ints([0] * B)}

    return make


def cached(R: int, steps: int, capacity: int) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        M = R * steps
        a = {"M": M, "R": R, "H": HEADS, "d": HEAD, "capacity": capacity, "qkv": work(M, 3 * D), "y": work(M, D)}
        a |= {name: work(R, HEADS, capacity, HEAD) for name in ("k_cache", "v_cache")}
        a |= {name: table.cuda() for name, table in rotary(capacity + 1, HEAD).items()}
        a |= {"start_k": work(HEADS, HEAD), "start_v": work(HEADS, HEAD), "slot": ints(range(R))}
        return a | {"position": ints([capacity - steps] * R)}

    return make


def gated(M: int) -> dict[str, Any]:
    return {
        "M": M,
        "W": PROJECTED,
        "D": INNER,
        "y": f32(M, INNER),
        "u": work(M, PROJECTED),
        "gain": f32(INNER),
        "h": work(M, INNER),
    }


def gelu(M: int) -> dict[str, Any]:
    return {"M": M, "N": FF, "x": work(M, FF), "bias": f32(FF), "y": work(M, FF)}


def op_table(library: Library, names: set[str]) -> None:
    """Of the named operators, or of all."""
    if not names:
        names = {"NormLinear", "Linear", "LinearAdd", "PatchAttention", "AddNorm", "BiasGelu", "GatedNorm", "SsmScan",
                 "CausalConv", "CachedAttention", "Sample"}  # fmt: skip

    def show(title: str, name: str, make: Callable[[], dict[str, Any]], moved: int | None = None) -> None:
        if name in names:
            print(time_op(library, title, name, make, moved))

    weights = [("NormLinear", D, 3 * D), ("LinearAdd", D, D), ("NormLinear", D, FF), ("LinearAdd", FF, D)]
    weights += [("NormLinear", D, PROJECTED), ("Linear", PATCH * D, D), ("Linear", D, PATCH * D)]
    weights += [("NormLinear", D, 64)]  # next to no bytes: what a launch costs
    for M in (1, 2, 4, 8):
        for name, K, N in weights if M == 1 else weights[:4]:
            show(f"M {M} K {K} N {N}", name, product(name, M, K, N))
    for B in (1, 8, 64, 256):
        for count in (1, 8):
            row = (count * 2 + 2) * D * 2
            show(f"B {B} count {count}", "PatchAttention", attention(B, count), B * row)
    for M in (64, 256):
        show(f"M {M}", "AddNorm", add_norm(M))
        show(f"M {M}", "BiasGelu", lambda M=M: gelu(M))
        show(f"M {M}", "GatedNorm", lambda M=M: gated(M), M * INNER * 8)
    for R, steps in ((1, 1), (8, 1), (64, 1), (256, 1), (1, 128), (1, 1024)):
        moved = R * 2 * SSM_HEADS * SSM_STATE * HEAD * 4 + R * steps * (CONV + INNER) * 4
        show(f"R {R} T {steps}", "SsmScan", scan(R, steps), moved)
        show(f"R {R} T {steps}", "CausalConv", conv(R, steps), R * (6 * CONV * 4 + steps * CONV * 6))
    for R, steps, capacity in ((1, 1, 16), (1, 1, 1024), (1, 1, 8192), (64, 1, 1024), (1, 1024, 1024)):
        title = f"R {R} T {steps} capacity {capacity}"
        show(title, "CachedAttention", cached(R, steps, capacity), R * capacity * D * 4)
    for B in (1, 64, 256):
        for title, top_p, top_k, temperature in (
            ("greedy", 1, 0, 0),
            ("plain", 1, 0, 1),
            ("top-p 0.9", 0.9, 0, 1),
            ("top-k 40", 1, 40, 1),
        ):
            show(f"B {B} {title}", "Sample", sampler(B, top_p, top_k, temperature))


def local_bytes(library: Library, M: int, count: int) -> tuple[float, int]:
    """Microseconds of the first `count` bytes of a patch in the local stage, and the launches: small form, weights distinct."""
    r = Recorder(library)
    tables = {name: table.cuda() for name, table in rotary(PATCH + 1, HEAD).items()}
    layers = [
        {"qkv": work(3 * D, D), "out": work(D, D), "ff1": work(FF, D), "ff2": work(D, FF),
         "start_k": work(HEADS, HEAD), "start_v": work(HEADS, HEAD), "g": f32(D), "b1": f32(FF), "b2": f32(D),
         "prev": [f32(1, D), f32(1, D)], "cache": []}
        for _ in range(LOCAL_LAYERS)
    ]  # fmt: skip
    head, gain = f32(VOCABULARY, D), f32(D)
    table, contexts, bias = (
        work(VOCABULARY, D),
        work(M, PATCH * D),
        f32(VOCABULARY),
    )
    position_table, sample_arguments, ids = f32(PATCH, D), sampler(M, 0.9)(), ints([65] * M)
    for j in range(count):
        x = f32(M, D)
        r.op("LocalInput", B=M, D=D, V=VOCABULARY, children=PATCH, position=j, ids=ids, slot=ints(range(M)), table=table,
             contexts=contexts, pos_table=position_table, x=x)  # fmt: skip
        for layer in layers:
            qkv, attended, middle, hidden, after = work(M, 3 * D), work(M, D), f32(M, D), work(M, FF), f32(M, D)
            layer["cache"].append(qkv)
            prev, prev_middle = layer["prev"]
            r.op(
                "NormLinear",
                M=M,
                K=D,
                N=3 * D,
                x=x,
                gain=layer["g"],
                w=layer["qkv"],
                prev=prev,
                prev_rows=len(prev),
                y=qkv,
            )
            r.op("PatchAttention", B=M, H=HEADS, d=HEAD, count=j + 1, start_k=layer["start_k"], start_v=layer["start_v"],
                 qkv=list(layer["cache"]), y=attended, **tables)  # fmt: skip
            r.op("LinearAdd", M=M, K=D, N=D, x=attended, w=layer["out"], residual=x, y=middle)
            r.op("NormLinear", M=M, K=D, N=FF, x=middle, gain=layer["g"], w=layer["ff1"], bias=layer["b1"], gelu=True,
                 prev=prev_middle, prev_rows=len(prev_middle), y=hidden)  # fmt: skip
            r.op("LinearAdd", M=M, K=FF, N=D, x=hidden, w=layer["ff2"], residual=middle, bias=layer["b2"], y=after)
            layer["prev"] = [x, middle]
            x = after
        logits, following = f32(M, VOCABULARY), ints([0] * M)
        r.op("NormLinear", torch.float32, M=M, K=D, N=VOCABULARY, x=x, gain=gain, w=head, bias=bias, y=logits)
        r.op("Sample", **(sample_arguments | {"step": j, "logits": logits, "next": following}))
        ids = following
    return r.microseconds(), len(r.calls)


def global_step(library: Library, M: int) -> tuple[float, int]:
    """Microseconds of one step of the Mamba-2 stage, M sequences: the small form."""
    r = Recorder(library)
    x, slot, position = f32(M, D), ints(range(M)), ints([1] * M)
    for _ in range(GLOBAL_LAYERS):
        u, xbc, y, h, after = work(M, PROJECTED), f32(M, CONV), f32(M, INNER), work(M, INNER), f32(M, D)
        r.op("NormLinear", M=M, K=D, N=PROJECTED, norm=1, x=x, gain=f32(D), w=work(PROJECTED, D), y=u)
        r.op("CausalConv", M=M, R=M, W=PROJECTED, channels=CONV, taps=4, offset=INNER, u=u, w=f32(CONV, 4), b=f32(CONV),
             state=f32(M, 3, CONV), initial=f32(3, CONV), slot=slot, position=position, y=xbc)  # fmt: skip
        r.op("SsmScan", M=M, R=M, W=PROJECTED, H=SSM_HEADS, P=HEAD, N=SSM_STATE, dt_offset=INNER + CONV, xbc=xbc, u=u,
             dt_bias=f32(SSM_HEADS), a=-f32(SSM_HEADS).exp(), d=f32(SSM_HEADS), state=f32(M, SSM_HEADS, SSM_STATE, HEAD),
             initial=f32(SSM_HEADS, SSM_STATE, HEAD), slot=slot, position=position, y=y)  # fmt: skip
        r.op("GatedNorm", M=M, W=PROJECTED, D=INNER, y=y, u=u, gain=f32(INNER), h=h)
        r.op("LinearAdd", M=M, K=INNER, N=D, x=h, w=work(D, INNER), residual=x, y=after)
        x = after
    return r.microseconds(), len(r.calls)


def local_byte_large(library: Library, M: int) -> tuple[float, int]:
    """Microseconds of one byte (the fourth) of the local stage with cuBLAS products, M rows: the large form."""
    r = Recorder(library)
    tables = {name: table.cuda() for name, table in rotary(PATCH + 1, HEAD).items()}
    x, delta, bias = f32(M, D), work(M, D), f32(D)
    for _ in range(LOCAL_LAYERS):
        first, h, qkv, attended, out = f32(M, D), work(M, D), work(M, 3 * D), work(M, D), work(M, D)
        middle, h2, hidden, activated, after = f32(M, D), work(M, D), work(M, FF), work(M, FF), work(M, D)
        r.op("AddNorm", M=M, K=D, x=x, gain=f32(D), delta=delta, bias=bias, prev=f32(M, D), prev_rows=M, sum=first, h=h)
        r.gemm(h, work(3 * D, D), qkv)
        r.op("PatchAttention", B=M, H=HEADS, d=HEAD, count=4, start_k=work(HEADS, HEAD), start_v=work(HEADS, HEAD),
             qkv=[work(M, 3 * D), work(M, 3 * D), work(M, 3 * D), qkv], y=attended, **tables)  # fmt: skip
        r.gemm(attended, work(D, D), out)
        r.op("AddNorm", M=M, K=D, x=first, gain=f32(D), delta=out, prev=f32(M, D), prev_rows=M, sum=middle, h=h2)
        r.gemm(h2, work(FF, D), hidden)
        r.op("BiasGelu", M=M, N=FF, x=hidden, bias=f32(FF), y=activated)
        r.gemm(activated, work(D, FF), after)
        x, delta = middle, after
    r.op("Sample", **sampler(M, 0.9)())
    return r.microseconds(), len(r.calls)


def chain_table(library: Library) -> None:
    for M in (1, 2, 4, 8):
        local, launches = local_bytes(library, M, PATCH)
        stage, global_launches = global_step(library, M)
        rate = M * PATCH / (local + stage) * 1e6
        print(
            f"M {M}: local {local / PATCH:7.1f} us/byte ({local / launches:.2f} a launch), global {stage:7.1f} us/patch "
            f"({stage / global_launches:.2f} a launch): {rate:8.0f} bytes/s"
        )
    for M in (64, 256):
        local, launches = local_byte_large(library, M)
        print(
            f"M {M}: local, large form {local:7.1f} us/byte ({local / launches:.2f} a launch): "
            f"{M / local * 1e6:8.0f} bytes/s, local alone"
        )


def copied_bytes_per_second() -> float:
    source = torch.empty(1_000_000_000, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    recorder_times = []
    for _ in range(8):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        recorder_times.append(start.elapsed_time(end))
    return 2 * source.nbytes / statistics.median(recorder_times) * 1000


def describe_device() -> str:
    name = re.sub(r"\s+", " ", torch.cuda.get_device_name())
    return f"{name}, a large copy moves {copied_bytes_per_second() / 1e12:.2f} TB/s"
