"""For all tests of the package."""

import pytest
import torch


@pytest.fixture(autouse=True)
def torch_starts_anew():
    """Modules without a seed draw theirs from torch: a test sees the same ones alone, too."""
    torch.manual_seed(0)
