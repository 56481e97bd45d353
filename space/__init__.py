"""What can be searched, and what it costs: pure, no I/O, no database.

Exports are loaded on first use, so a command that needs only configurations and costs never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from space.config import CondenseNetConfig
    from space.cost import Cost, cost_of
    from space.deployed import DeployedCondenseNet, deploy
    from space.errors import InvalidConfig
    from space.network import CondenseNet
    from space.operator_count import fvcore_cost
    from space.search_space import SearchSpace

__all__ = [
    "CondenseNet",
    "CondenseNetConfig",
    "Cost",
    "DeployedCondenseNet",
    "InvalidConfig",
    "SearchSpace",
    "cost_of",
    "deploy",
    "fvcore_cost",
]

_HOME = {
    "CondenseNet": "space.network",
    "CondenseNetConfig": "space.config",
    "Cost": "space.cost",
    "DeployedCondenseNet": "space.deployed",
    "InvalidConfig": "space.errors",
    "SearchSpace": "space.search_space",
    "cost_of": "space.cost",
    "deploy": "space.deployed",
    "fvcore_cost": "space.operator_count",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'space' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
