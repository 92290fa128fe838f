"""Files of ours in independent readers, and theirs in ours."""

import json

import numpy as np
import torch
from command_line import run, run_json
from safetensors import safe_open
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MLP = "mlp_digits_interpolate"


def test_safetensors_reads_our_weights(tmp_path):
    run_json("train", "--task", MLP, "--optimizer", "sgd", "--steps", 3, "--out", tmp_path)
    with safe_open(tmp_path / "weights.safetensors", "pt") as weights:
        assert weights.metadata()["optimizer"] == "sgd"
        for name in weights.keys():
            assert torch.isfinite(weights.get_tensor(name)).all()
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as checkpoint:
        assert checkpoint.get_tensor("step").item() == 3


def test_we_read_what_safetensors_writes(tmp_path):
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
    dtypes += [torch.int16, torch.int8, torch.uint8, torch.bool]
    tensors = {str(dtype): torch.ones(2, 3).to(dtype) for dtype in dtypes}
    tensors["scalar"] = torch.tensor(1.5)
    tensors["empty"] = torch.zeros(0, 4)
    path = tmp_path / "theirs.safetensors"
    save_file(tensors, path, metadata={"made by": "safetensors"})
    info = run_json("info", path)
    assert info["tensors"] == len(tensors) and info["numbers"] == 6 * len(dtypes) + 1
    assert info["metadata.made by"] == "safetensors"
    assert "[2, 3]" in run("info", path).stdout


def test_tensorboard_reads_our_events(tmp_path):
    run_json("train", "--task", MLP, "--optimizer", "sgd", "--steps", 12, "--out", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    loss = events.Scalars("loss")
    assert [event.step for event in loss] == list(range(1, 13))
    np.testing.assert_allclose(
        [event.value for event in loss], [line["loss"] for line in lines], rtol=1e-6
    )
    assert len(events.Scalars("validation_loss")) == 1
