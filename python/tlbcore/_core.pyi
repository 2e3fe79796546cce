from typing import Final

__all__ = ["__version__", "build_features", "build_profile"]

__version__: Final[str]

def build_features() -> list[str]: ...
def build_profile() -> str: ...
