"""Generated images as the report shows them: bytes that were looked at, made into PNG by this module alone."""

import base64
import binascii
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

SIDE = 64  # pixels; larger pictures are damage
MOST = 16  # pictures of a row of metrics.jsonl
GAP = 2  # pixels between pictures in a strip


@dataclass(frozen=True)
class Pictures:
    """A few grey images of one size: `height` × `width` bytes each, 0 black."""

    height: int
    width: int
    images: Sequence[bytes]

    @staticmethod
    def read(value: Any) -> "Pictures | None":
        """The field `pictures` of a row, when it is what it should be; of more than `MOST` images the first."""
        if not isinstance(value, dict):
            return None
        height, width, rows = value.get("height"), value.get("width"), value.get("rows")
        if not _side(height) or not _side(width) or not isinstance(rows, list) or not rows:
            return None
        images = []
        for row in rows[:MOST]:
            if not isinstance(row, str) or len(row) > 4 * (SIDE * SIDE // 3 + 2):
                return None
            try:
                image = base64.b64decode(row, validate=True)
            except (binascii.Error, ValueError):
                return None
            if len(image) != height * width:
                return None
            images.append(image)
        return Pictures(height, width, tuple(images))

    def strip(self) -> tuple[int, int, bytes]:
        """All of them in one row: width, height and grey values, row by row."""
        lines = []
        for y in range(self.height):
            parts = [image[y * self.width : (y + 1) * self.width] for image in self.images]
            lines.append(bytes(GAP).join(parts))
        return len(lines[0]), self.height, b"".join(lines)


def png(width: int, height: int, grey: bytes) -> bytes:
    """An 8-bit greyscale PNG (ISO/IEC 15948) of `height` rows of `width` bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + grey[y * width : (y + 1) * width] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def data_uri(width: int, height: int, grey: bytes) -> str:
    """The PNG in an attribute."""
    return f"data:image/png;base64,{base64.b64encode(png(width, height, grey)).decode('ascii')}"


def _side(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SIDE
