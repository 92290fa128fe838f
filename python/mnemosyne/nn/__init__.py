"""Attention that is linear in the number of tokens and knows where they are, in C++.

FourierLearner-Transformers (Choromanski et al., arXiv 2302.01925). What is the paper's and what is
ours, and which position encoding to take: docs/position.md.

>>> import torch, mnemosyne
>>> attention = mnemosyne.nn.LinearAttention(64, 4, causal=True, position="damped")
>>> attention(torch.randn(2, 100, 64)).shape
torch.Size([2, 100, 64])
"""

from mnemosyne.nn import functional
from mnemosyne.nn.attention import LinearAttention, PerformerBlock
from mnemosyne.nn.files import load, save
from mnemosyne.nn.models import CausalLM, PointEncoder, ViT
from mnemosyne.nn.position import DampedPosition, FourierPosition, position_metadata

__all__ = [
    "CausalLM",
    "DampedPosition",
    "FourierPosition",
    "LinearAttention",
    "PerformerBlock",
    "PointEncoder",
    "ViT",
    "functional",
    "load",
    "position_metadata",
    "save",
]
