"""One table over several comparisons, each of a task of its own with rates of its own.

    for task in ...; do
      mnemosyne compare --task $task --reference adamw@A,muon@M --optimizers adamw@A,muon@M,... \\
        --out runs/table/$task
    done
    python benchmarks/overall.py runs/table

`mnemosyne compare` takes one rate for all tasks, or tunes them; where the rates of a former tuning
are to be used again, tasks are compared one by one. Geometric means over tasks of the steps ratios
over both references (of training and of validation curves) with intervals of 95 % by resampling the
tasks, the worst task, and the mean ratio of final validation losses.
"""

import json
import math
import random
import sys
from pathlib import Path

REFERENCES = ("adamw", "muon")


def mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def interval(values, draws=4000):
    generator = random.Random(0)
    means = sorted(mean(generator.choices(values, k=len(values))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def read(folder):
    """By optimizer (references without their rates) and task, what a comparison found."""
    found = {}
    for path in sorted(Path(folder).glob("*/results.json")):
        for row in json.loads(path.read_text())["rows"]:
            name = row["optimizer"]
            if name.split("@")[0] in REFERENCES:
                name = f"{name.split('@')[0]}, tuned"
            values = {"validation_loss": row["validation_loss"]}
            for key, value in row.items():
                kind, _, reference = key.partition("_over_")
                if kind in ("ratio", "validation_ratio"):
                    values[kind, reference.split("@")[0]] = value
            found.setdefault(name, {})[row["cell"]] = values
    return found


def cells(found, name, tasks):
    own = found[name]
    for reference in REFERENCES:
        ratios = {task: own[task]["ratio", reference] for task in tasks}
        low, high = interval(list(ratios.values()))
        worst = min(ratios, key=ratios.get)
        yield f"{mean(list(ratios.values())):.3g} ({low:.3g} to {high:.3g})"
        yield f"{ratios[worst]:.3g} {worst}"
        yield f"{mean([own[task]['validation_ratio', reference] for task in tasks]):.3g}"
    for reference in REFERENCES:
        other = found[f"{reference}, tuned"]
        losses = [own[task]["validation_loss"] / other[task]["validation_loss"] for task in tasks]
        yield f"{mean(losses):.3g}"


def main():
    if len(sys.argv) != 2:
        sys.exit(f"expected a folder of comparisons, got {len(sys.argv) - 1} arguments")
    found = read(sys.argv[1])
    tasks = sorted(set.intersection(*(set(own) for own in found.values()))) if found else []
    if not tasks:
        sys.exit(f"expected comparisons in {sys.argv[1]}, got none of the same optimizers")
    columns = [
        f"{text} {name}"
        for name in ("AdamW", "Muon")
        for text in ("over", "worst over", "validation curves over")
    ]
    columns += ["validation loss over AdamW's", "over Muon's"]
    print(f"| {len(tasks)} tasks | " + " | ".join(columns) + " |")
    print("|---|" + "---|" * len(columns))
    for name in found:
        print(f"| {name} | " + " | ".join(cells(found, name, tasks)) + " |")


if __name__ == "__main__":
    main()
