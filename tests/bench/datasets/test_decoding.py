"""Pictures of every pixel format are read rightly, or refused in one line that names the file."""

import struct
import zlib

import numpy
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bench.datasets import open_dataset
from bench.datasets.decoding import read_picture
from bench.engine.task import Sources
from bench.errors import BenchError

RAMP = numpy.linspace(0, 255, 256).round().astype(numpy.uint8).reshape(16, 16)


def read(path, **how) -> numpy.ndarray:
    picture = read_picture(path, **how)
    assert picture.mode == "RGB"
    return numpy.asarray(picture).astype(int)


def written(path, picture, **how):
    picture.save(path, **how)
    return path


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    sixteen = Image.fromarray(RAMP.astype(numpy.uint16) * 257)
    for path in (
        written(tmp_path / "a.png", sixteen),
        written(tmp_path / "b.png", sixteen, format="TIFF"),  # known by its content, whatever its name
        written(tmp_path / "c.png", Image.fromarray(RAMP.astype(numpy.int32) * 257, "I"), format="PPM"),
    ):
        assert (read(path) == RAMP[:, :, None]).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_eight_bits_is_read_as_colour(tmp_path, mode):
    shown = Image.fromarray((RAMP > 127).astype(numpy.uint8) * 255).convert(mode)
    path = written(tmp_path / "a.png", shown, format="TIFF" if mode == "CMYK" else "PNG")
    assert (read(path) == ((RAMP > 127) * 255)[:, :, None]).all()


def test_a_palette_with_transparency_keeps_its_colours(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    path = written(tmp_path / "a.png", picture, transparency=bytes([0, 128]))
    assert read(path).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize(("mode", "dtype"), [("F", numpy.float32), ("I", numpy.int32)])
def test_pixels_without_a_known_range_are_refused(tmp_path, mode, dtype):
    path = written(tmp_path / "a.png", Image.fromarray(RAMP.astype(dtype), mode), format="TIFF")
    with pytest.raises(BenchError, match=r"a\.png cannot be read .* no known range; allowed: 8 or 16 bits"):
        read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_data_say(tmp_path, orientation):
    from PIL import ImageOps

    picture = Image.fromarray(numpy.stack([RAMP, RAMP.T, RAMP], 2)[:, :9])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / "a.png", picture, exif=exif)
    with Image.open(path) as opened:
        upright = numpy.asarray(ImageOps.exif_transpose(opened))
    assert (read(path) == upright).all()
    assert (read(path, upright=False) == numpy.asarray(picture)).all()


def test_imagenet_alone_is_shown_as_it_lies(tmp_path):
    """Published top-1 is measured without regard to EXIF data."""
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture = Image.fromarray(numpy.repeat(RAMP[:, :, None], 3, 2))
    for split, name in (("train", "n01440764"), ("train", "n01443537"), ("val", "n01440764")):
        (tmp_path / split / name).mkdir(parents=True)
        picture.save(tmp_path / split / name / "a.png", exif=exif)
    sources = Sources(data={"imagenet": tmp_path, "mine": tmp_path})
    config = {"input_size": (3, 16, 16), "interpolation": "bicubic"}
    rising = {
        name: bool((shown := open_dataset(name, {}, sources).split("test", config)[0][0])[0, 0, 0] < 0.5)
        and bool(shown[0, -1, -1] > 0.5)
        for name in sources.data
    }
    assert rising == {"imagenet": True, "mine": False}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(path):
    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def long_text(path):
    info = PngInfo()
    info.add_text("k", "x" * 2_000_000, zip=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


def cut(path):
    Image.fromarray(RAMP).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def broken_chunk(path):
    Image.fromarray(RAMP).save(path)
    whole = bytearray(path.read_bytes())
    whole[20] ^= 255  # within the header, whose checksum is now wrong
    path.write_bytes(whole)


@pytest.mark.parametrize(
    "make",
    [bomb, long_text, cut, broken_chunk, lambda p: p.write_bytes(b""), lambda p: p.write_text("text\n")],
)
def test_whatever_cannot_be_read_is_named_in_one_line(tmp_path, make):
    path = tmp_path / "0.png"
    make(path)
    with pytest.raises(BenchError, match=r"0\.png cannot be read as a picture: \S") as refusal:
        read_picture(path)
    assert "\n" not in str(refusal.value)
