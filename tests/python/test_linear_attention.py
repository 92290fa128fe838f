"""torch.ops.mnemosyne.linear_attention: schema, fake kernel, autograd, compile."""

import pytest
import torch

import mnemosyne  # noqa: F401  registers the operator

B, H, HK, L, D, DV, W, R = 2, 4, 2, 70, 6, 5, 8, 2


def arguments(feature_map, dtype=torch.float32, position=False, state=False):
    torch.manual_seed(0)

    def normal(*size, dtype=dtype):
        return torch.randn(*size, dtype=dtype, requires_grad=True)

    positional = [normal(B, H, L, D), normal(B, HK, L, D), normal(B, HK, L, DV)]
    projects = feature_map not in ("identity", "elu+1", "constant")
    features = {"constant": 1, "identity": D, "elu+1": D, "hyp+": 2 * W, "trig": 2 * W}.get(
        feature_map, W
    )
    keyword = {
        "omega": torch.randn(W, D) if projects else None,
        "key_padding_mask": torch.rand(B, L) > 0.2,
        "feature_map": feature_map,
        "causal": True,
        "with_state": state != "none after",
    }
    batch = (B,) if position == "of each example" else ()
    if position:
        keyword["query_factor"] = normal(*batch, H, L, R)
        keyword["key_factor"] = normal(*batch, H, L, R)
    if position in ("fading", "of each example"):
        keyword["log_decay"] = -torch.rand(*batch, H, L, R).requires_grad_()
    if state is True:
        size = features * (R if position else 1)
        keyword["state_sums"] = normal(B, H, size, DV, dtype=torch.float32)
        keyword["state_normalizer"] = normal(B, H, size, dtype=torch.float32)
        keyword["state_offset"] = torch.zeros(B, H)
    return positional, keyword


@pytest.mark.parametrize(
    "feature_map, dtype, position, state",
    [
        ("favor+", torch.float32, False, False),
        ("hyp+", torch.bfloat16, False, True),
        ("identity", torch.float32, True, True),
        ("elu+1", torch.float64, True, False),
        ("constant", torch.float32, True, False),
        ("favor+", torch.float32, "fading", True),
        ("relu", torch.bfloat16, "fading", False),
        ("favor+", torch.float32, "fading", "none after"),
        ("relu", torch.float64, True, "none after"),
        ("favor+", torch.float32, "of each example", True),
        ("relu", torch.float64, "of each example", "none after"),
    ],
)
def test_passes_opcheck(feature_map, dtype, position, state):
    positional, keyword = arguments(feature_map, dtype, position, state)
    torch.library.opcheck(torch.ops.mnemosyne.linear_attention.default, tuple(positional), keyword)


def test_compiles_to_the_same_values_and_gradients():
    positional, keyword = arguments("favor+", position=True)

    def loss(query, key, value):
        output, sums, *_ = torch.ops.mnemosyne.linear_attention(query, key, value, **keyword)
        return output.square().sum() + sums.sin().sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for function in (loss, compiled):
        for tensor in positional:
            tensor.grad = None
        value = function(*positional)
        value.backward()
        grads = [tensor.grad.clone() for tensor in positional]
        if function is loss:
            expected = [value.detach(), *grads]
    torch.testing.assert_close([value.detach(), *grads], expected)


def test_refuses_an_unknown_feature_map():
    positional, keyword = arguments("favor+")
    keyword["feature_map"] = "softmax"
    with pytest.raises((ValueError, RuntimeError), match="expected a feature_map of identity"):
        torch.ops.mnemosyne.linear_attention(*positional, **keyword)
