"""Several processes (Gloo, on the CPU): DDP and FSDP2 give what one process gives."""

import gc

import pytest
import torch
import torch.distributed as dist
from attending import aligned, attending
from torch import nn

from mnemosyne.optim import LSTM, Mnemosyne

RANKS = 2
STEPS = 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_available(), reason="torch was built without torch.distributed"),
]


def make_model():
    torch.manual_seed(0)
    # Sizes that do not divide evenly among the ranks, and one tensor with less than a row a rank.
    return nn.Sequential(
        nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 1)
    )


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 6, generator=generator)
    return x, x[:, :1] * x[:, 1:2]


def train(model, optimizer, first, last, part=slice(None)):
    for step in range(first, last):
        x, target = batch(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x[part]), target[part]).backward()
        optimizer.step()


def run(worker, tmp_path):
    torch.multiprocessing.spawn(launch, (worker, str(tmp_path)), nprocs=RANKS)


def launch(rank, worker, tmp_path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=rank, world_size=RANKS)
    worker(rank, tmp_path)
    # Models sit in cycles and hold the process group: its threads would outlive it.
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def assert_equal_models(whole, expected):
    for (name, a), b in zip(whole.named_parameters(), expected.parameters(), strict=True):
        a = a.full_tensor() if hasattr(a, "full_tensor") else a
        assert torch.equal(a, b), name


def ddp_worker(rank, tmp_path):
    for make in (Mnemosyne, LSTM, attending, aligned):
        model = nn.parallel.DistributedDataParallel(make_model())
        train(model, make(model.parameters()), 0, STEPS, part=slice(8 * rank, 8 * rank + 8))
        whole = make_model()
        train(whole, make(whole.parameters()), 0, STEPS)
        for a, b in zip(model.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        gathered = [torch.empty_like(a) for _ in range(RANKS)]
        dist.all_gather(gathered, a.detach())
        assert torch.equal(gathered[0], gathered[1])


def fsdp_worker(rank, tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (RANKS,))
    for make in (Mnemosyne, LSTM, attending, aligned):
        sharded, whole = make_model(), make_model()
        for module in (sharded[0], sharded[2], sharded):
            fully_shard(module, mesh=mesh)
        optimizer = make(sharded.parameters())
        reference = make(whole.parameters())
        # All ranks see the same batch: the averaged gradient is the unsharded one to the bit.
        train(sharded, optimizer, 0, STEPS)
        train(whole, reference, 0, STEPS)
        assert_equal_models(sharded, whole)
        for p in sharded.parameters():
            for name, value in optimizer.state[p].items():
                if name not in ("step", "extra_state"):
                    assert value.placements == p.placements, name
        if make is not LSTM:
            folder = f"{tmp_path}/{make.__name__}"
            check_distributed_checkpoint(make, sharded, optimizer, whole, reference, mesh, folder)


def check_distributed_checkpoint(make, sharded, optimizer, whole, reference, mesh, folder):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
    from torch.distributed.fsdp import fully_shard

    model_state, optimizer_state = get_state_dict(sharded, optimizer)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)

    resumed = make_model()
    for module in (resumed[0], resumed[2], resumed):
        fully_shard(module, mesh=mesh)
    nn.init.zeros_(resumed[0].weight)
    fresh = make(resumed.parameters())
    model_state, optimizer_state = get_state_dict(resumed, fresh)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
    set_state_dict(resumed, fresh, model_state_dict=model_state, optim_state_dict=optimizer_state)
    train(resumed, fresh, STEPS, 2 * STEPS)
    train(whole, reference, STEPS, 2 * STEPS)
    assert_equal_models(resumed, whole)


def test_ddp_is_one_run_on_the_whole_batch(tmp_path):
    run(ddp_worker, tmp_path)


def test_fsdp2_equals_the_unsharded_run_and_resumes_from_a_sharded_checkpoint(tmp_path):
    run(fsdp_worker, tmp_path)
