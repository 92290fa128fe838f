"""Mnemosyne: a learned optimizer that needs no learning rate, and attention that is linear.

>>> import torch, mnemosyne
>>> model = torch.nn.Linear(4, 2)
>>> optimizer = mnemosyne.optim.Mnemosyne(model.parameters())
>>> attention = mnemosyne.nn.LinearAttention(64, 4, causal=True, position="damped")
"""

import torch

try:
    from mnemosyne import _C
except ImportError as error:
    raise ImportError(
        f"mnemosyne's library does not load beside torch {torch.__version__}. It works with the "
        "minor version that it was built with only: rebuild it with scripts/test or with "
        "`pip install --no-build-isolation .`"
    ) from error

if torch.__version__.split(".")[:2] != _C.torch_version.split(".")[:2]:
    raise ImportError(
        f"mnemosyne was built with torch {_C.torch_version} and found torch {torch.__version__}: "
        "rebuild it with scripts/test or with `pip install --no-build-isolation .`"
    )

from mnemosyne import nn, optim  # noqa: E402

__version__ = _C.__version__
__all__ = ["nn", "optim"]
