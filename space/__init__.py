"""What can be searched, and what it costs: pure, no I/O, no database.

Exports are loaded on first use, so a command that needs only configurations and costs never imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from space.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "config": "CondenseNetConfig",
        "cost": "Cost cost_of",
        "deployed": "DeployedCondenseNet deploy",
        "errors": "InvalidConfig",
        "network": "CondenseNet",
        "operator_count": "fvcore_cost",
        "search_space": "SearchSpace",
    },
)
