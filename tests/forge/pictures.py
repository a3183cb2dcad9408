"""Pictures of many kinds of file whose right pixels are known before the file is written.

PNGs are written here by the standard alone, in all colour types and bit depths; JPEG and WebP by
Pillow.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.integer[Any]]
Chunk = tuple[bytes, bytes]

GREY, TRUECOLOUR, INDEXED, GREY_ALPHA, TRUECOLOUR_ALPHA = 0, 2, 3, 4, 6  # PNG's colour types
JPEG_TOLERANCE = 6  # levels; of smooth pictures, at quality 95 without subsampling
WEBP_TOLERANCE = 6  # at quality 100

INK_LIGHTNESS = 50  # L*, of which sRGB has the level 119

# The sides of the scene that row 0 and column 0 are, by Exif's number.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7_PASSES = (*ADAM7, (1, 0, 2, 1))  # first row, first column, step of rows, step of columns


class ForgedPicture(NamedTuple):
    """A file and what is right to read of it.

    Attributes:
        content: of the file.
        pixels: `[h, w, 3]`.
        alpha: `[h, w]`, or None where all is opaque.
        tolerance: levels; 0 for lossless kinds.
    """

    content: bytes
    pixels: Pixels
    alpha: Pixels | None = None
    tolerance: int = 0


def smooth(height: int, width: int, channels: int = 3) -> Pixels:
    """Make slopes that differ by channel and direction, so that no turn looks like another."""
    rows = np.linspace(0, 1, height)[:, None] if height > 1 else np.full((1, 1), 0.3)
    columns = np.linspace(0, 1, width)[None] if width > 1 else np.full((1, 1), 0.6)
    slopes = [20 + 150 * rows + 60 * columns, 230 - 40 * rows - 150 * columns]
    slopes += [60 + 120 * columns + 0 * rows, 40 + 200 * rows * columns]
    return np.stack(slopes[:channels], axis=-1).round().astype(np.uint8)


def noise(height: int, width: int, channels: int, levels: int = 256) -> Samples:
    """Draw samples from 0 to before `levels`, by a seed that the size gives."""
    chance = np.random.default_rng((height, width, channels, levels))
    return chance.integers(0, levels, (height, width, channels))


def write_png(
    samples: Samples,
    colour_type: int,
    bit_depth: int = 8,
    chunks: Sequence[Chunk] = (),
    *,
    is_interlaced: bool = False,
) -> bytes:
    """Write a PNG.

    Args:
        samples: `[h, w, c]`, numbers of `bit_depth` bits.
        colour_type: of the standard's table 12.
        bit_depth: 1, 2, 4, 8 or 16.
        chunks: name and data; they stand before the pixels.
        is_interlaced: by Adam7.
    """
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, is_interlaced)
    passes = ADAM7_PASSES if is_interlaced else ((0, 0, 1, 1),)
    parts = [samples[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(_pack_rows(part, bit_depth) for part in parts if part.size)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        write_chunk(name, data)
        for name, data in [
            (b"IHDR", header),
            *chunks,
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
    )


def write_chunk(name: bytes, data: bytes) -> bytes:
    """Write a chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_exif(orientation: int, order: str = ">") -> bytes:
    """Write an Exif block with an orientation, without the prefix that a JPEG has."""
    mark = b"MM" if order == ">" else b"II"
    head = mark + struct.pack(order + "HI", 42, 8)
    entries = struct.pack(order + "HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return head + entries + struct.pack(order + "I", 0)


def store_by(orientation: int, scene: Pixels) -> Pixels:
    """Arrange a scene as a camera that held so stores it."""
    first_row, first_column = SIDES[orientation]
    stored = scene if first_row in ("top", "bottom") else scene.swapaxes(0, 1)
    if first_row in ("bottom", "right"):
        stored = np.flip(stored, 0)
    if first_column in ("bottom", "right"):
        stored = np.flip(stored, 1)
    return np.ascontiguousarray(stored)


def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """Return an ICC profile whose red is sRGB's green, and the other way round."""
    profile = srgb_profile()
    for old, new in ((b"rXYZ", b"????"), (b"gXYZ", b"rXYZ"), (b"????", b"gXYZ")):
        profile = profile.replace(old, new, 1)
    return profile


def linear_grey_profile() -> bytes:
    """Return an ICC profile of grey whose numbers are proportional to light."""
    return _write_profile(b"GRAY", {b"kTRC": struct.pack(">4sIIHH", b"curv", 0, 1, 256, 0)})


def tabulated_srgb_profile() -> bytes:
    """Return an ICC profile of sRGB with a coarse curve, which moves 8 % of colours by a level."""
    levels = np.linspace(0, 1, 20)
    light = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    curve = struct.pack(">4sII", b"curv", 0, 20) + (light * 65535).round().astype(">u2").tobytes()
    colour = srgb_profile()
    primaries = {b"rXYZ": colour[460:480], b"bXYZ": colour[480:500], b"gXYZ": colour[500:520]}
    return _write_profile(b"RGB ", primaries | dict.fromkeys([b"rTRC", b"gTRC", b"bTRC"], curve))


def ink_profile() -> bytes:
    """Return an ICC profile of CMYK: no ink is white, cyan alone a grey, all else black."""
    lightness = np.zeros((2, 2, 2, 2), np.uint8)
    lightness[0, 0, 0, 0], lightness[1, 0, 0, 0] = 255, round(2.55 * INK_LIGHTNESS)
    colours = np.stack([lightness, np.full_like(lightness, 128), np.full_like(lightness, 128)], -1)
    identity = np.eye(3).reshape(-1) * 65_536
    table = struct.pack(">4sI4B9i", b"mft1", 0, 4, 3, 2, 0, *map(int, identity))
    ramp = bytes(range(256))
    table += 4 * ramp + colours.tobytes() + 3 * ramp
    return _write_profile(b"CMYK", {b"A2B0": table}, b"prtr", b"Lab ")


def _write_profile(
    space: bytes,
    own_tags: Mapping[bytes, bytes],
    device: bytes = b"mntr",
    connection_space: bytes = b"XYZ ",
) -> bytes:
    """Write a profile with header, description and white point as those of sRGB have them."""
    colour = srgb_profile()
    text = b"text" + bytes(4) + b"none\0\0\0\0"
    tags = {b"desc": colour[264:320], b"cprt": text, b"wtpt": colour[396:416], **own_tags}
    table, data = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(data), len(content))
        data += content
    header = bytearray(colour[:128])
    header[:4] = struct.pack(">I", 128 + len(table) + len(data))
    header[12:24] = device + space + connection_space
    return bytes(header) + table + data


def icc_chunk(profile: bytes) -> Chunk:
    """Make the chunk of a PNG that holds a profile."""
    return b"iCCP", b"profile\0\0" + zlib.compress(profile)


def on_white(colours: Samples, alpha: Samples) -> Pixels:
    """Lay colours `[h, w, 3]` on white by an alpha `[h, w]` of 0 to 255."""
    share = alpha[..., None] / 255
    return (colours * share + 255 * (1 - share)).round().astype(np.uint8)


def repeat_grey(grey: Samples | npt.NDArray[np.floating[Any]]) -> Pixels:
    """Make `[h, w, 3]` of levels `[h, w]`."""
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


def _pack_rows(samples: Samples, bit_depth: int) -> bytes:
    """Pack rows as PNG stores them, each with the filter's number 0 before it."""
    flat = samples.reshape(len(samples), -1)
    if bit_depth == 16:
        rows = flat.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(flat.astype(np.uint8)[..., None], axis=2)[..., 8 - bit_depth :]
        rows = np.packbits(bits.reshape(len(flat), -1), axis=1)
    return np.pad(rows, ((0, 0), (1, 0))).tobytes()


def _save(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png_colour(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    return ForgedPicture(write_png(samples, TRUECOLOUR), samples.astype(np.uint8))


def _png_interlaced(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    content = write_png(samples, TRUECOLOUR, is_interlaced=True)
    return ForgedPicture(content, samples.astype(np.uint8))


def _png_colour_alpha(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 4)
    samples[0, 0, 3] = 7
    alpha = samples[..., 3]
    flat = on_white(samples[..., :3], alpha)
    return ForgedPicture(write_png(samples, TRUECOLOUR_ALPHA), flat, alpha.astype(np.uint8))


def _png_opaque_alpha(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 4)
    samples[..., 3] = 255
    return ForgedPicture(write_png(samples, TRUECOLOUR_ALPHA), samples[..., :3].astype(np.uint8))


def _png_palette(height: int, width: int) -> ForgedPicture:
    samples, palette = noise(height, width, 1), noise(1, 256, 3)[0].astype(np.uint8)
    content = write_png(samples, INDEXED, chunks=[(b"PLTE", palette.tobytes())])
    return ForgedPicture(content, palette[samples[..., 0]])


def _png_small_palette(height: int, width: int) -> ForgedPicture:
    samples, palette = noise(height, width, 1, 4), noise(1, 4, 3)[0].astype(np.uint8)
    content = write_png(samples, INDEXED, 2, [(b"PLTE", palette.tobytes())])
    return ForgedPicture(content, palette[samples[..., 0]])


def _png_palette_alpha(height: int, width: int) -> ForgedPicture:
    samples, palette = noise(height, width, 1, 16), noise(1, 16, 3)[0].astype(np.uint8)
    samples[0, 0] = 3
    opaque = np.array([17 * entry for entry in range(16)], np.uint8)
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", opaque.tobytes())]
    alpha = opaque[samples[..., 0]]
    flat = on_white(palette[samples[..., 0]], alpha)
    return ForgedPicture(write_png(samples, INDEXED, 4, chunks), flat, alpha)


def _png_palette_hole(height: int, width: int) -> ForgedPicture:
    samples, palette = noise(height, width, 1, 16), noise(1, 16, 3)[0].astype(np.uint8)
    samples[0, 0] = 2
    chunks = [(b"PLTE", palette.tobytes()), (b"tRNS", b"\xff\xff\0")]
    alpha = np.where(samples[..., 0] == 2, 0, 255).astype(np.uint8)
    flat = on_white(palette[samples[..., 0]], alpha)
    return ForgedPicture(write_png(samples, INDEXED, 4, chunks), flat, alpha)


def _png_grey(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1)
    return ForgedPicture(write_png(samples, GREY), repeat_grey(samples[..., 0]))


def _png_bits(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1, 2)
    return ForgedPicture(write_png(samples, GREY, 1), repeat_grey(samples[..., 0] * 255))


def _png_four_levels(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1, 4)
    return ForgedPicture(write_png(samples, GREY, 2), repeat_grey(samples[..., 0] * 85))


def _png_grey_hole(height: int, width: int) -> ForgedPicture:
    """One of 16 levels is transparent."""
    samples = noise(height, width, 1, 16)
    samples[0, 0] = 5
    alpha = np.where(samples[..., 0] == 5, 0, 255).astype(np.uint8)
    content = write_png(samples, GREY, 4, [(b"tRNS", struct.pack(">H", 5))])
    return ForgedPicture(content, on_white(repeat_grey(samples[..., 0] * 17), alpha), alpha)


def _png_bits_hole(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1, 2)
    samples[0, 0] = 0
    alpha = (samples[..., 0] * 255).astype(np.uint8)
    content = write_png(samples, GREY, 1, [(b"tRNS", struct.pack(">H", 0))])
    return ForgedPicture(content, np.full((height, width, 3), 255, np.uint8), alpha)


def _png_colour_hole(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    samples[0, 0] = (1, 2, 3)
    alpha = np.where((samples == (1, 2, 3)).all(axis=2), 0, 255).astype(np.uint8)
    content = write_png(samples, TRUECOLOUR, chunks=[(b"tRNS", struct.pack(">3H", 1, 2, 3))])
    return ForgedPicture(content, on_white(samples, alpha), alpha)


def _png_grey_alpha(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 2)
    samples[0, 0, 1] = 0
    flat = on_white(repeat_grey(samples[..., 0]), samples[..., 1])
    content = write_png(samples, GREY_ALPHA)
    return ForgedPicture(content, flat, samples[..., 1].astype(np.uint8))


def _png_grey_16(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1, 2**16)
    right = repeat_grey((samples[..., 0] / 257).round())
    return ForgedPicture(write_png(samples, GREY, 16), right, tolerance=1)


def _png_grey_hole_16(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1, 2**16)
    samples[0, 0] = 40_000
    alpha = np.where(samples[..., 0] == 40_000, 0, 255).astype(np.uint8)
    flat = on_white(repeat_grey((samples[..., 0] / 257).round()), alpha)
    content = write_png(samples, GREY, 16, [(b"tRNS", struct.pack(">H", 40_000))])
    return ForgedPicture(content, flat, alpha, tolerance=1)


def _png_colour_16(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3, 2**16)
    right = (samples / 257).round().astype(np.uint8)
    return ForgedPicture(write_png(samples, TRUECOLOUR, 16), right, tolerance=1)


def _png_colour_hole_16(height: int, width: int) -> ForgedPicture:
    samples, hole = noise(height, width, 3, 2**16), (300, 600, 50_000)
    samples[0, 0] = hole
    alpha = np.where((samples == hole).all(axis=2), 0, 255).astype(np.uint8)
    flat = on_white((samples / 257).round().astype(np.uint8), alpha)
    content = write_png(samples, TRUECOLOUR, 16, [(b"tRNS", struct.pack(">3H", *hole))])
    return ForgedPicture(content, flat, alpha, tolerance=1)


def _png_grey_alpha_16(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 2, 256) * 257
    samples[0, 0, 1] = 0
    grey, alpha = samples[..., 0] // 257, samples[..., 1] // 257
    flat = on_white(repeat_grey(grey), alpha)
    return ForgedPicture(write_png(samples, GREY_ALPHA, 16), flat, alpha.astype(np.uint8))


def _png_colour_alpha_16(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 4, 256) * 257
    samples[0, 0, 3] = 0
    alpha = samples[..., 3] // 257
    flat = on_white(samples[..., :3] // 257, alpha)
    return ForgedPicture(write_png(samples, TRUECOLOUR_ALPHA, 16), flat, alpha.astype(np.uint8))


def _png_srgb_profile(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    content = write_png(samples, TRUECOLOUR, chunks=[icc_chunk(srgb_profile())])
    return ForgedPicture(content, samples.astype(np.uint8))


def _png_tabulated_srgb(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    content = write_png(samples, TRUECOLOUR, chunks=[icc_chunk(tabulated_srgb_profile())])
    return ForgedPicture(content, samples.astype(np.uint8))


def _png_profile(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 3)
    content = write_png(samples, TRUECOLOUR, chunks=[icc_chunk(swapped_profile())])
    return ForgedPicture(content, samples[..., [1, 0, 2]].astype(np.uint8), tolerance=1)


def _png_grey_profile(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 1)
    light = samples[..., 0] / 255
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    content = write_png(samples, GREY, chunks=[icc_chunk(linear_grey_profile())])
    return ForgedPicture(content, repeat_grey((255 * curved).round()), tolerance=1)


def _png_turned(height: int, width: int) -> ForgedPicture:
    scene = noise(height, width, 4).astype(np.uint8)
    scene[0, 0, 3] = 9
    chunks = [(b"eXIf", write_exif(6, "<"))]
    content = write_png(store_by(6, scene), TRUECOLOUR_ALPHA, chunks=chunks)
    return ForgedPicture(content, on_white(scene[..., :3], scene[..., 3]), scene[..., 3])


def _jpeg(height: int, width: int) -> ForgedPicture:
    pixels = smooth(height, width)
    content = _save(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0)
    return ForgedPicture(content, pixels, tolerance=JPEG_TOLERANCE)


def _jpeg_progressive(height: int, width: int) -> ForgedPicture:
    pixels = smooth(height, width)
    image = Image.fromarray(pixels)
    content = _save(image, "JPEG", quality=95, subsampling=0, progressive=True)
    return ForgedPicture(content, pixels, tolerance=JPEG_TOLERANCE)


def _jpeg_grey(height: int, width: int) -> ForgedPicture:
    grey = smooth(height, width)[..., 0]
    content = _save(Image.fromarray(grey), "JPEG", quality=95)
    return ForgedPicture(content, repeat_grey(grey), tolerance=JPEG_TOLERANCE)


def _jpeg_cmyk(height: int, width: int) -> ForgedPicture:
    """As Photoshop writes it: Pillow adds Adobe's marker and inverts the numbers."""
    inks = smooth(height, width, 4)
    content = _save(Image.fromarray(inks, mode="CMYK"), "JPEG", quality=95, subsampling=0)
    rest = 255 - inks.astype(float)
    right = (rest[..., :3] * rest[..., 3:] / 255).round().astype(np.uint8)
    return ForgedPicture(content, right, tolerance=JPEG_TOLERANCE)


def _jpeg_cmyk_profile(height: int, width: int) -> ForgedPicture:
    inks = np.full((height, width, 4), (255, 0, 0, 0), np.uint8)
    image = Image.fromarray(inks, mode="CMYK")
    content = _save(image, "JPEG", quality=95, icc_profile=ink_profile())
    return ForgedPicture(content, np.full((height, width, 3), 119, np.uint8), tolerance=2)


def _jpeg_profile(height: int, width: int) -> ForgedPicture:
    pixels = smooth(height, width)
    image = Image.fromarray(pixels)
    profile = swapped_profile()
    content = _save(image, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    return ForgedPicture(content, pixels[..., [1, 0, 2]], tolerance=JPEG_TOLERANCE)


def _jpeg_turned(orientation: int) -> Callable[[int, int], ForgedPicture]:
    def forge(height: int, width: int) -> ForgedPicture:
        scene = smooth(height, width)
        image = Image.fromarray(store_by(orientation, scene))
        exif = b"Exif\0\0" + write_exif(orientation)
        content = _save(image, "JPEG", quality=95, subsampling=0, exif=exif)
        return ForgedPicture(content, scene, tolerance=JPEG_TOLERANCE)

    return forge


def _webp(height: int, width: int) -> ForgedPicture:
    """The corner of a larger picture, without steep slopes: its chroma has half the resolution."""
    pixels = np.ascontiguousarray(smooth(height + 96, width + 96)[:height, :width])
    content = _save(Image.fromarray(pixels), "WEBP", quality=100)
    return ForgedPicture(content, pixels, tolerance=WEBP_TOLERANCE)


def _webp_lossless_alpha(height: int, width: int) -> ForgedPicture:
    samples = noise(height, width, 4).astype(np.uint8)
    samples[0, 0, 3] = 100
    content = _save(Image.fromarray(samples), "WEBP", lossless=True, exact=True)
    return ForgedPicture(content, on_white(samples[..., :3], samples[..., 3]), samples[..., 3])


def _webp_profile_turned(height: int, width: int) -> ForgedPicture:
    scene = noise(height, width, 3).astype(np.uint8)
    image = Image.fromarray(store_by(8, scene))
    content = _save(image, "WEBP", lossless=True, icc_profile=swapped_profile(), exif=write_exif(8))
    return ForgedPicture(content, scene[..., [1, 0, 2]], tolerance=1)


KINDS: Mapping[str, Callable[[int, int], ForgedPicture]] = {
    "png-colour": _png_colour,
    "png-interlaced": _png_interlaced,
    "png-colour-alpha": _png_colour_alpha,
    "png-opaque-alpha": _png_opaque_alpha,
    "png-palette": _png_palette,
    "png-small-palette": _png_small_palette,
    "png-palette-alpha": _png_palette_alpha,
    "png-palette-hole": _png_palette_hole,
    "png-grey": _png_grey,
    "png-bits": _png_bits,
    "png-four-levels": _png_four_levels,
    "png-grey-hole": _png_grey_hole,
    "png-bits-hole": _png_bits_hole,
    "png-colour-hole": _png_colour_hole,
    "png-grey-alpha": _png_grey_alpha,
    "png-grey-16": _png_grey_16,
    "png-grey-hole-16": _png_grey_hole_16,
    "png-colour-16": _png_colour_16,
    "png-colour-hole-16": _png_colour_hole_16,
    "png-grey-alpha-16": _png_grey_alpha_16,
    "png-colour-alpha-16": _png_colour_alpha_16,
    "png-srgb-profile": _png_srgb_profile,
    "png-tabulated-srgb": _png_tabulated_srgb,
    "png-profile": _png_profile,
    "png-grey-profile": _png_grey_profile,
    "png-turned": _png_turned,
    "jpeg": _jpeg,
    "jpeg-progressive": _jpeg_progressive,
    "jpeg-grey": _jpeg_grey,
    "jpeg-cmyk": _jpeg_cmyk,
    "jpeg-cmyk-profile": _jpeg_cmyk_profile,
    "jpeg-profile": _jpeg_profile,
    **{f"jpeg-turned-{number}": _jpeg_turned(number) for number in SIDES},
    "webp": _webp,
    "webp-lossless-alpha": _webp_lossless_alpha,
    "webp-profile-turned": _webp_profile_turned,
}
