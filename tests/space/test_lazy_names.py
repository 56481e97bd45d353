"""A package's lazy names are those of its modules."""

from __future__ import annotations

import importlib

import pytest

import space
from space.lazy_names import lazy_names


@pytest.mark.parametrize("package", ["space", "workers.latency"])
def test_a_package_exports_exactly_the_names_it_lists(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == dir(module)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_name_is_its_modules_own():
    from space.config import CondenseNetConfig

    assert space.CondenseNetConfig is CondenseNetConfig


def test_a_name_that_is_not_there_is_an_attribute_error():
    load, names = lazy_names("space", {"config": "LayerShape CondenseNetConfig"})
    assert names() == ["CondenseNetConfig", "LayerShape"]
    with pytest.raises(AttributeError, match=r"^module 'space' has no attribute 'Cost'$"):
        load("Cost")
