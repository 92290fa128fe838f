"""torch.ops.mnemosyne.orthogonalize: a registered op, and nearer than torch.optim.Muon's steps."""

import pytest
import torch
from torch.optim._muon import _zeropower_via_newtonschulz

import mnemosyne  # noqa: F401  (registers the op)

orthogonalize = torch.ops.mnemosyne.orthogonalize.default


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(6, 9),
        torch.randn(2, 3, 9, 6),
        torch.randn(9, 6).t(),
        torch.randn(4, 5, dtype=torch.float64),
        torch.randn(4, 5, dtype=torch.bfloat16),
        torch.empty(0, 3),
    ],
    ids=["wide", "batch", "strided", "double", "bfloat16", "empty"],
)
def test_opcheck(x):
    torch.library.opcheck(orthogonalize, (x,))


def test_has_no_gradient_and_says_so():
    x = torch.randn(4, 5, requires_grad=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        orthogonalize(x).sum().backward()


@pytest.mark.parametrize("smallest", [1e-1, 1e-2, 1e-3])
def test_is_nearer_to_the_polar_factor_than_torchs_muon(smallest):
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(48, 48))
    v, _ = torch.linalg.qr(torch.randn(80, 48))
    x = (u * torch.logspace(0, torch.tensor(smallest).log10().item(), 48)) @ v.T
    polar = u @ v.T

    ours = orthogonalize(x)
    muons = _zeropower_via_newtonschulz(x, (3.4445, -4.775, 2.0315), 5, 1e-7).float()
    assert torch.linalg.matrix_norm(ours - polar, 2) < 0.2
    assert torch.linalg.norm(ours - polar) < torch.linalg.norm(muons - polar)


def test_compiles_and_keeps_its_value():
    x = torch.randn(7, 5)
    compiled = torch.compile(lambda x: orthogonalize(x) * 2, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), orthogonalize(x) * 2, rtol=0, atol=0)
