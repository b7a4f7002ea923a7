"""Generated images as the report shows them: made into PNG by this module alone."""

import base64
import struct
import zlib

from collapse_cli.records.fields import GeneratedImages

GAP = 2  # pixels between pictures in a strip


def strip(images: GeneratedImages) -> tuple[int, int, bytes]:
    """All of them in one row: width, height and grey values, row by row."""
    lines = []
    for y in range(images.height):
        pieces = [image[y * images.width : (y + 1) * images.width] for image in images.images]
        lines.append(bytes(GAP).join(pieces))
    return len(lines[0]), images.height, b"".join(lines)


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
