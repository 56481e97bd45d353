"""Image files as cameras and editors write them, odd ones too: which pixels are read."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from space.errors import UnreadableImage
from workers.bundled.infer import TURNED
from workers.images.cache import prepare
from workers.images.datasets import find_source
from workers.images.image_files import DECODING
from workers.images.source import fingerprint, read_image
from workers.settings import DataSettings

SHAPE = (3, 8, 8)
ORIENTATION = 0x0112
LOSSLESS = {"png": {}, "tiff": {"compression": "tiff_deflate"}, "webp": {"lossless": True}}
TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 99: 1}  # bytes, by EXIF type


def gradient(height: int = 8, width: int = 8) -> Image.Image:
    """An image of which no turn is like another."""
    down, right = np.mgrid[:height, :width]
    pixels = np.stack([8 * down + right, 255 - 16 * right, 30 * (down > right)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def planes(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


# --- orientation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(folder, suffix, orientation):
    undo = {6: 8, 8: 6}.get(orientation, orientation)  # every other turn is its own inverse
    scene = gradient()
    lying = scene if orientation == 1 else scene.transpose(TURNED[undo])
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = folder / f"{orientation}.{suffix}"
    lying.save(file, exif=exif, **LOSSLESS.get(suffix, {"quality": 100, "subsampling": 0}))
    difference = np.abs(read_image(file, SHAPE).astype(int) - planes(scene)).max()
    assert difference <= (3 if suffix == "jpeg" else 0)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def saved_with_xmp(file: Path) -> None:
    """Save the gradient with an orientation in its XMP and none in its EXIF."""
    match file.suffix:
        case ".png":
            info = PngImagePlugin.PngInfo()
            info.add_itxt("XML:com.adobe.xmp", XMP.decode())
            gradient().save(file, pnginfo=info)
        case ".tiff":
            gradient().save(file, tiffinfo={700: XMP})
        case _:
            gradient().save(file, xmp=XMP, **LOSSLESS.get(file.suffix[1:], {"quality": 100, "subsampling": 0}))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpeg"])
def test_an_orientation_in_xmp_is_not_used_as_the_rules_say(folder, suffix):
    saved_with_xmp(folder / f"xmp.{suffix}")
    with Image.open(folder / f"xmp.{suffix}") as image:
        assert image.getexif().get(ORIENTATION) == 6  # Pillow would take it
    difference = np.abs(read_image(folder / f"xmp.{suffix}", SHAPE).astype(int) - planes(gradient())).max()
    assert difference <= (3 if suffix == "jpeg" else 0)


def test_an_orientation_in_xmp_behind_a_pngs_pixels_is_not_used_either(folder):
    saved_with_xmp(folder / "before.png")
    content = (folder / "before.png").read_bytes()
    at = content.index(b"iTXt") - 4
    size = 12 + struct.unpack(">L", content[at : at + 4])[0]
    end = content.index(b"IEND") - 4
    moved = content[:at] + content[at + size : end] + content[at : at + size] + content[end:]
    (folder / "behind.png").write_bytes(moved)
    assert np.array_equal(read_image(folder / "behind.png", SHAPE), planes(gradient()))


def exif_block(entries: list[tuple[int, int, int, bytes]], data_at: int = 8) -> bytes:
    """An EXIF block of these (tag, type, count, data): also the beginning of a TIFF."""
    begin = data_at + 2 + 12 * len(entries) + 4
    table, behind = struct.pack("<H", len(entries)), b""
    for tag, kind, count, data in sorted(entries):
        value = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<L", begin + len(behind))
        behind += data if len(data) > 4 else b""
        table += struct.pack("<HHL", tag, kind, count) + value
    return b"II*\0" + struct.pack("<L", data_at) + table + struct.pack("<L", 0) + behind


@st.composite
def odd_tags(draw: st.DrawFn) -> tuple[int, int, int, bytes]:
    """A tag of any number and type: a resolution stored as text, a pointer to nowhere, more values than bytes."""
    known = st.sampled_from([282, 283, 296, 305, 700, 0x14A, 0x8769, 0x8773, 0x8825, 0xA005, 0x927C])
    tag = draw(known | st.integers(400, 0xFFFF))
    kind, count = draw(st.sampled_from(sorted(TYPES))), draw(st.integers(0, 3) | st.just(70_000_000))
    size = TYPES[kind] * min(count, 3)
    return tag, kind, count, draw(st.binary(min_size=size, max_size=size))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(odd=odd_tags(), orientation=st.integers(0, 9), suffix=st.sampled_from(["jpeg", "png", "webp"]))
def test_nothing_in_exif_but_the_orientation_matters(folder, odd, orientation, suffix):
    turn = struct.pack("<H", orientation)
    scene, file = gradient(), folder / f"odd.{suffix}"
    plain = Image.Exif()
    plain[ORIENTATION] = orientation
    scene.save(file, exif=plain)
    expected = read_image(file, SHAPE)
    scene.save(file, exif=b"Exif\0\0" + exif_block([(ORIENTATION, 3, 1, turn), odd]))
    assert np.array_equal(read_image(file, SHAPE), expected)


@given(exif=st.binary(max_size=40), suffix=st.sampled_from(["jpeg", "png", "webp"]))
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_photo_whose_exif_is_no_exif_is_read_as_it_lies(folder, exif, suffix):
    file = folder / f"none.{suffix}"
    gradient().save(file)
    expected = read_image(file, SHAPE)
    gradient().save(file, exif=b"Exif\0\0" + exif)
    assert np.array_equal(read_image(file, SHAPE), expected)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(odd=odd_tags(), orientation=st.integers(1, 8))
def test_nothing_in_a_tiff_but_what_its_pixels_need_matters(folder, odd, orientation):
    scene, pixels = gradient(), gradient().tobytes()
    numbers = {256: 8, 257: 8, 259: 1, 262: 2, ORIENTATION: orientation, 277: 3, 278: 8}
    needed = [(tag, 3, 1, struct.pack("<H", value)) for tag, value in numbers.items()]
    needed += [(258, 3, 3, struct.pack("<HHH", 8, 8, 8)), (279, 4, 1, struct.pack("<L", len(pixels)))]
    centimetres = [] if odd[0] == 296 else [(296, 3, 1, struct.pack("<H", 3))]
    others = [*needed, *centimetres, odd]
    at = len(exif_block([*others, (273, 4, 1, b"\0\0\0\0")]))
    file = folder / "odd.tiff"
    file.write_bytes(exif_block([*others, (273, 4, 1, struct.pack("<L", at))]) + pixels)
    upright = scene if orientation == 1 else scene.transpose(TURNED[orientation])
    assert np.array_equal(read_image(file, SHAPE), planes(upright))


def test_files_that_an_earlier_version_decoded_by_other_rules_are_decoded_again(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        gradient().save(tmp_path / "pets" / name / "0.png")
    source = find_source(DataSettings(dataset=f"imagefolder:{tmp_path / 'pets'}", image_size=8))
    names = ["cat/0.png", "dog/0.png"]
    stats = [(tmp_path / "pets" / name).stat() for name in names]
    sizes = [[one.st_size, one.st_mtime_ns] for one in stats]
    files = [[names, sizes, [0, 1], None, None, None]]
    content = (source.label, source.shape, ("cat", "dog"), files)
    assert source.fingerprint == fingerprint(DECODING, *content)
    assert source.fingerprint != fingerprint(*content)  # the first version's


# --- pixels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix", "tolerance"),  # 8 bits of LAB are coarse for dark colours
    [("RGB", "bmp", 0), ("RGB", "ppm", 0), ("CMYK", "tiff", 0), ("CMYK", "jpeg", 12), ("LAB", "tiff", 40)],
)
def test_a_colour_space_is_converted(folder, mode, suffix, tolerance):
    scene, file = gradient(), folder / f"{mode}.{suffix}"
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        ImageCms.profileToProfile(scene, *profiles, outputMode="LAB").save(file)
    else:
        scene.convert(mode).save(file, **({"quality": 100} if suffix == "jpeg" else {}))
    assert np.abs(read_image(file, SHAPE).astype(int) - planes(scene)).max() <= tolerance


def test_a_palette_with_transparency_is_read_as_its_colours(folder):
    palette = Image.new("RGB", (8, 8), (200, 10, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(folder / "icon.png", transparency=b"\x00\xff")
    assert read_image(folder / "icon.png", SHAPE)[:, 0, 0].tolist() == [200, 10, 30]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("raw.pgm", b"P5 8 8 65535\n" + b"\x80\x00" * 64),
        ("plain.pgm", b"P2 8 8 65535\n" + b"32768 " * 64),
        ("twelve_bits.pgm", b"P5 8 8 4095\n" + b"\x08\x00" * 64),
    ],
)
def test_a_pgm_of_more_than_eight_bits_is_scaled_not_clipped_or_refused(folder, name, content):
    (folder / name).write_bytes(content)
    assert (read_image(folder / name, SHAPE) == 0x80).all()
    assert (read_image(folder / name, (1, 8, 8)) == 0x80).all()


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_greys_are_scaled_not_clipped(folder, suffix):
    Image.fromarray(np.full((8, 8), 0x8000, dtype=np.uint16)).save(folder / f"grey.{suffix}")
    assert (read_image(folder / f"grey.{suffix}", SHAPE) == 0x80).all()


def big_endian_tiff(file: Path, greys: np.ndarray, white_is_zero: bool) -> None:
    """Write a TIFF of 16-bit greys without compression, as scanners and old Macs do."""
    height, width = greys.shape
    numbers = {256: width, 257: height, 258: 16, 259: 1, 262: 0 if white_is_zero else 1, 273: 8, 277: 1, 278: height}
    numbers[279] = greys.nbytes
    entries = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in numbers.items())
    head = struct.pack(">2sHI", b"MM", 42, 8 + greys.nbytes)
    file.write_bytes(head + greys.astype(">u2").tobytes() + struct.pack(">H", len(numbers)) + entries + b"\0" * 4)


def test_sixteen_bit_greys_with_alpha_are_read_by_their_high_byte(folder):
    pixels = np.random.default_rng(0).integers(0, 65_536, (8, 8, 2), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (folder / "alpha.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert np.array_equal(read_image(folder / "alpha.png", (1, 8, 8), "uint16")[0], (pixels[..., 0] >> 8) * 257)


def grey_tiff(file: Path, greys: np.ndarray, white_is_zero: bool, sample_format: int = 1) -> None:
    """Write a TIFF of greys without compression."""
    height, width = greys.shape
    numbers = {256: width, 257: height, 258: 8 * greys.itemsize, 259: 1, 262: 0 if white_is_zero else 1}
    numbers |= {277: 1, 278: height, 339: sample_format}
    entries = [(tag, 3, 1, struct.pack("<H", value)) for tag, value in numbers.items()]
    entries.append((279, 4, 1, struct.pack("<L", greys.nbytes)))
    at = len(exif_block([*entries, (273, 4, 1, b"\0\0\0\0")]))
    file.write_bytes(exif_block([*entries, (273, 4, 1, struct.pack("<L", at))]) + greys.tobytes())


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_greys_of_8_and_of_16_bits_are_alike_where_a_tiffs_white_is_0(folder, white_is_zero):
    greys = np.arange(64, dtype=np.uint8).reshape(8, 8)
    grey_tiff(folder / "shallow.tiff", greys, white_is_zero)
    grey_tiff(folder / "deep.tiff", greys.astype(np.uint16) * 257, white_is_zero)
    big_endian_tiff(folder / "other way round.tiff", greys.astype(np.uint16) * 257, white_is_zero)
    expected = 255 - greys if white_is_zero else greys
    for name in ("shallow.tiff", "deep.tiff", "other way round.tiff"):
        assert np.array_equal(read_image(folder / name, (1, 8, 8))[0], expected)
        assert np.array_equal(read_image(folder / name, (1, 8, 8), "uint16")[0], expected.astype(np.uint16) * 257)


def test_signed_pixels_are_refused_as_what_they_are(folder):
    grey_tiff(folder / "signed.tiff", np.full((8, 8), -5, np.int16), white_is_zero=False, sample_format=2)
    with pytest.raises(ValueError, match=r"^signed 16-bit pixels \(mode I\); convert it to 8 or 16 bits a channel"):
        read_image(folder / "signed.tiff", (1, 8, 8))


def test_thirty_two_bit_pixels_are_refused_as_their_range_is_unknown(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("F", (8, 8), 0.5).save(tmp_path / name / "float.tiff")
    with pytest.raises(UnreadableImage, match=r"can't be read as an image: cat/float.tiff \(32-bit pixels \(mode F\)"):
        prepare(DataSettings(dataset=f"imagefolder:{tmp_path}"), tmp_path.parent / "cache-of-float")
