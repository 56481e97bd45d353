"""The former home of `fvcore_cost`; import it from `space` or `space.operator_count`.

A submodule that shares its name with an export of the package hides it: once this module is imported,
`space.fvcore_cost` is the module and no longer the function.
"""

from space.operator_count import fvcore_cost

__all__ = ["fvcore_cost"]
