"""Write optimizer_golden.h: what torch's Python optimizers and cells compute, in float64.

    python tests/data/make_optimizer_golden.py

Inputs are formulas, so that the C++ tests can repeat them without a file. Schedule-Free, which
torch does not have, is written out in NumPy after its reference implementation.
"""

import math
import pathlib

import numpy as np
import torch

torch.set_default_dtype(torch.float64)
SHAPES = [(3, 4), (5,), (3, 2, 2), ()]
NUM_STEPS = 20


def start():
    return [
        torch.sin(torch.arange(math.prod(s)) + 1.0 + k).reshape(s) for k, s in enumerate(SHAPES)
    ]


def gradient(param, step, k):
    index = torch.arange(param.numel())
    return torch.cos(0.7 * index + 1.3 * step + k).reshape(param.shape) + 0.5 * param.detach()


def train(make_optimizers, params):
    optimizers = make_optimizers(params)
    for step in range(NUM_STEPS):
        for k, param in enumerate(params):
            param.grad = gradient(param, step, k)
        for optimizer in optimizers:
            optimizer.step()
    return torch.cat([p.detach().flatten() for p in params]).numpy()


def run(optimizer, **options):
    params = [torch.nn.Parameter(p) for p in start()]
    return train(lambda ps: [optimizer(ps, **options)], params)


def run_muon():
    """torch.optim.Muon, made to iterate in float64, on the matrices; AdamW on the rest."""
    torch.Tensor.bfloat16 = lambda self: self.clone()
    params = [torch.nn.Parameter(p.reshape(3, 4) if p.dim() == 3 else p) for p in start()]

    def make(ps):
        matrices = [p for p in ps if p.dim() >= 2]
        others = [p for p in ps if p.dim() < 2]
        return [
            torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=0.02, weight_decay=0.1),
        ]

    return train(make, params)


def run_schedule_free(lr=0.02, beta1=0.9, beta2=0.999, eps=1e-8, decay=0.1, warmup=5):
    training, averages = [], []
    for k, first in enumerate(start()):
        y = first.numpy().flatten()
        z, v = y.copy(), np.zeros_like(y)
        weight_sum = largest = 0.0
        for step in range(NUM_STEPS):
            g = np.cos(0.7 * np.arange(y.size) + 1.3 * step + k) + 0.5 * y
            now = lr * min(1.0, (step + 1) / warmup)
            largest = max(largest, now)
            weight_sum += largest**2
            c = largest**2 / weight_sum
            v = beta2 * v + (1 - beta2) * g * g
            d = g / (np.sqrt(v / (1 - beta2 ** (step + 1))) + eps) + decay * y
            y = (1 - c) * y + c * z + now * (beta1 * (1 - c) - 1) * d
            z = z - now * d
        training.append(y)
        averages.append((y - (1 - beta1) * z) / beta1)
    return np.concatenate(training), np.concatenate(averages)


def lstm_parts(num_hidden):
    cells = [torch.nn.LSTMCell(2, num_hidden), torch.nn.LSTMCell(num_hidden, num_hidden)]
    output = torch.nn.Linear(num_hidden, 1)
    tensors = []
    for cell in cells:
        tensors += [cell.weight_ih, cell.weight_hh, cell.bias_ih]
        cell.bias_hh.data.zero_()
    count = 0
    for tensor in [*tensors, output.weight, output.bias]:
        index = torch.arange(count, count + tensor.numel())
        tensor.data = (0.3 * torch.sin(0.37 * index + 1.0)).reshape(tensor.shape)
        count += tensor.numel()
    return cells, output


def log_sign(g, p=10.0):
    """The piecewise definition of the paper's appendix."""
    large = abs(g) >= math.exp(-p)
    return [math.log(abs(g)) / p, math.copysign(1.0, g)] if large else [-1.0, math.exp(p) * g]


def run_lstm(rnnprop, num_hidden=20, num_coordinates=5, num_steps=3, decay=0.95):
    cells, output = lstm_parts(num_hidden)
    states = [(torch.zeros(num_coordinates, num_hidden),) * 2 for _ in cells]
    m = np.zeros(num_coordinates)
    v = np.zeros(num_coordinates)
    updates = []
    for step in range(num_steps):
        index = np.arange(num_coordinates)
        g = np.cos(1.7 * index + step) * 10.0 ** (-2.0 * index)
        m = decay * m + (1 - decay) * g
        v = decay * v + (1 - decay) * g * g
        root = np.sqrt(v / (1 - decay ** (step + 1))) + 1e-12
        ratios = np.stack([g / root, m / (1 - decay ** (step + 1)) / root], 1)
        x = torch.tensor(ratios if rnnprop else np.array([log_sign(value) for value in g]))
        for k, cell in enumerate(cells):
            states[k] = cell(x, states[k])
            x = states[k][0]
        out = output(x).squeeze(1)
        updates.append((0.1 * torch.tanh(out) if rnnprop else 0.01 * out).detach().numpy())
    return np.concatenate(updates)


def table(name, values):
    numbers = [repr(float(value)) for value in values]
    rows = [", ".join(numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
    return f"inline constexpr double {name}[] = {{\n    " + ",\n    ".join(rows) + ",\n};\n"


def main():
    optim = torch.optim
    averaged = run_schedule_free()
    tables = {
        "kSgd": run(optim.SGD, lr=0.05),
        "kSgdMomentum": run(optim.SGD, lr=0.05, momentum=0.9),
        "kSgdNesterov": run(optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
        "kAdam": run(optim.Adam, lr=0.02, betas=(0.8, 0.95)),
        "kAdamW": run(optim.AdamW, lr=0.02, weight_decay=0.1),
        "kAdafactor": run(optim.Adafactor, lr=0.05, weight_decay=0.1),
        "kMuon": run_muon(),
        "kScheduleFreeTraining": averaged[0],
        "kScheduleFreeAverage": averaged[1],
        "kLstm": run_lstm(rnnprop=False),
        "kLstmRnnProp": run_lstm(rnnprop=True),
    }
    parts = [
        "// Written by make_optimizer_golden.py with torch "
        + torch.__version__.split("+")[0]
        + ".",
        "#pragma once\n\n// clang-format off\nnamespace mnemosyne::golden {\n",
        *[table(name, values) for name, values in tables.items()],
        "}  // namespace mnemosyne::golden",
    ]
    pathlib.Path(__file__).with_name("optimizer_golden.h").write_text("\n".join(parts) + "\n")


if __name__ == "__main__":
    with torch.no_grad():
        main()
