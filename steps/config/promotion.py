"""Schema of the group ``promotion/``: what a version must show, and which one wins."""

from dataclasses import dataclass


@dataclass
class PromotionConfig:
    """Policy that moves aliases."""

    alias: str = "champion"  # alias the winner gets
