from .file import convert

SOURCES: tuple[str, ...]
TRIANGLES: tuple[str, ...]

__all__ = ["SOURCES", "TRIANGLES", "convert"]
