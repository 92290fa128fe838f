"""The cost of a step of the optimizers and of attention on a device, as ratios within one process.

    python benchmarks/gpu_step.py [cuda | cpu]

Optimizers over the shapes of ViT-Ti and, on a GPU, of GPT-2 small, over torch's fused AdamW, with
torch's Muon beside them; attention with a learned position over scaled_dot_product_attention
without one. Medians of repetitions; on a GPU by its own clock.
"""

import statistics
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

import mnemosyne
from mnemosyne import nn

REPETITIONS = 9


def transformer(width, layers, outer):
    block = [(width,)] * 4 + [(3 * width, width), (3 * width,), (width, width), (width,)]
    block += [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return outer + layers * block


MODELS = {
    "ViT-Ti": transformer(192, 12, [(1, 197, 192), (192, 3, 16, 16), (192,), (1000, 192), (1000,)]),
    "GPT-2 small": transformer(768, 12, [(50257, 768), (1024, 768), (768,), (768,)]),
}


def median_ms(run, device):
    """Milliseconds of `run`, after two runs that are not counted."""

    def once():
        if device.type == "cpu":
            begin = time.perf_counter()
            run()
            return 1e3 * (time.perf_counter() - begin)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end)

    return statistics.median([once() for _ in range(REPETITIONS + 2)][2:])


def step_ms(make, shapes, device):
    params = [torch.nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return median_ms(make(params).step, device)


OPTIMIZERS = {
    "Mnemosyne": lambda params: mnemosyne.optim.Mnemosyne(params, num_steps=1000),
    "its base rule": lambda params: mnemosyne.optim.Mnemosyne(
        params, num_steps=1000, learned=False
    ),
    "Muon (matrices alone)": lambda params: torch.optim.Muon([p for p in params if p.dim() == 2]),
}


def optimizer_rows(device):
    for model in MODELS if device.type == "cuda" else ["ViT-Ti"]:
        adamw = step_ms(lambda p: torch.optim.AdamW(p, fused=True), MODELS[model], device)
        yield f"step, {model}", "fused AdamW", adamw, 1.0
        for name, make in OPTIMIZERS.items():
            own = step_ms(make, MODELS[model], device)
            yield f"step, {model}", name, own, own / adamw


def attention_rows(device):
    width, heads = 512, 8
    for length in (1024, 4096, 16384) if device.type == "cuda" else (256,):
        x = torch.randn(4, length, width, device=device, requires_grad=True)
        own = nn.LinearAttention(width, heads, position="flt", causal=True).to(device)
        projection = torch.nn.Linear(width, 4 * width, bias=False, device=device)

        def softmax(x, projection=projection):
            q, k, v, out = (
                part.unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in projection(x).chunk(4, -1)
            )
            return scaled_dot_product_attention(q, k, v, is_causal=True) + out

        for passes in ("forward", "forward and backward"):

            def run(module, passes=passes, x=x):
                result = module(x)
                if passes != "forward":
                    result.sum().backward()

            base = median_ms(lambda run=run, softmax=softmax: run(softmax), device)
            mine = median_ms(lambda run=run, own=own: run(own), device)
            what = f"attention, {length} tokens, {passes}"
            yield what, "scaled_dot_product_attention", base, 1.0
            yield what, "LinearAttention, flt", mine, mine / base


def main():
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    print(f"| on {name}, torch {torch.__version__} | | ms | ratio |\n|---|---|---|---|")
    for rows in (optimizer_rows, attention_rows):
        for what, which, milliseconds, ratio in rows(device):
            print(f"| {what} | {which} | {milliseconds:.3g} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
