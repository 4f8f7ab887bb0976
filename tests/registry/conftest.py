"""Fixtures of the registry's tests."""

from tests.registry.fixtures import champion_is_slow, no_canary, pair, registered

__all__ = ["champion_is_slow", "no_canary", "pair", "registered"]
