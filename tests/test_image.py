"""Pictures of every kind become the arrays that a person expects."""

import io
import struct
import threading
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageDraw
from striate import GraphError, ImageError, MissingExtraError
from striate.image import Ink, Postprocess, Preprocess, Resize, load_image

PLAIN = Preprocess(scale=1.0)
GREY = Preprocess(colour="L", scale=1.0)


def pixels(source, preprocess=PLAIN):
    array = load_image(source, preprocess)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array.shape[0] == 1
    return array[0]


def saved(picture, path, **settings):
    picture.save(path, **settings)
    return path


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, colour, rows):
    """Return a PNG file made by hand, for kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# Kinds of pictures


def test_rgb_pixels_come_unchanged(tmp_path):
    colours = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    path = saved(Image.fromarray(colours), tmp_path / "a.png")
    np.testing.assert_array_equal(pixels(path), colours)
    np.testing.assert_array_equal(
        pixels(path, Preprocess(colour="BGR", scale=1.0)), colours[..., ::-1]
    )


@pytest.mark.parametrize(("colour", "grey"), [((255, 0, 0), 76), ((0, 255, 0), 150)])
def test_luminance_weighs_colours(colour, grey):
    assert pixels(Image.new("RGB", (2, 2), colour), GREY).tolist() == [[[grey]] * 2] * 2


def test_grey_becomes_three_equal_channels(tmp_path):
    path = saved(Image.new("L", (2, 1), 100), tmp_path / "a.png")
    assert pixels(path).tolist() == [[[100] * 3] * 2]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_white(mode):
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 0, 255))
    assert pixels(picture.convert(mode), GREY).ravel().tolist() == [255, 0]


def test_half_transparent_pixels_are_half_white():
    assert pixels(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).tolist() == [
        [[255, 127, 127]]
    ]


def test_palette_with_a_transparent_colour(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    path = saved(picture, tmp_path / "a.gif", transparency=0)
    assert pixels(path).tolist() == [[[255] * 3, [40, 50, 60]]]
    path = saved(picture, tmp_path / "a.png")
    assert pixels(path).tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_grey_with_a_transparent_level(tmp_path):
    picture = Image.new("L", (2, 1), 0)
    picture.putpixel((1, 0), 9)
    path = saved(picture, tmp_path / "a.png", transparency=0)
    assert pixels(path, GREY).ravel().tolist() == [255, 9]


def test_one_bit_is_black_and_white(tmp_path):
    picture = Image.new("1", (2, 1), 0)
    picture.putpixel((1, 0), 1)
    path = saved(picture, tmp_path / "a.png")
    assert pixels(path, GREY).ravel().tolist() == [0, 255]


def test_sixteen_bits_are_scaled_not_cut(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 1, 16, 0, [struct.pack(">3H", 0, 32768, 65535)]))
    assert pixels(path, GREY).ravel().tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0, 257, 65535]], np.uint16)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif", GREY).ravel().tolist() == [0, 1, 255]


def test_a_float_tiff_goes_from_0_to_1(tmp_path):
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif", GREY).ravel().tolist() == [0, 128, 255]


def test_cmyk(tmp_path):
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for name, near in (("a.tif", 0), ("a.jpg", 6)):
        found = pixels(saved(picture, tmp_path / name))[0, 0]
        np.testing.assert_allclose(found, (255, 0, 0), atol=near)


def test_exif_turns_the_picture(tmp_path):
    picture = Image.new("L", (3, 2), 0)
    picture.putpixel((0, 0), 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees
    path = saved(picture, tmp_path / "a.png", exif=exif)
    found = pixels(path, GREY)[..., 0]
    assert found.shape == (3, 2)
    assert found[0, 1] == 200


def test_the_first_of_several_frames(tmp_path):
    first, second = Image.new("L", (2, 2), 10), Image.new("L", (2, 2), 20)
    path = saved(first, tmp_path / "a.gif", save_all=True, append_images=[second])
    assert (pixels(path, GREY) == 10).all()


# Arrays and other sources


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (np.array([[7, 8]], np.uint8), [7, 8]),
        (np.array([[[7], [8]]], np.uint8), [7, 8]),
        (np.array([[False, True]]), [0, 255]),
        (np.array([[0.0, 1.0]]), [0, 255]),
        (np.array([[0.0, 0.5]], np.float16), [0, 128]),
        (np.array([[0, 65535]], np.uint16), [0, 255]),
        (np.array([[0, 65535]], ">u2"), [0, 255]),
        (np.array([[[0, 255], [0, 0]]], np.uint8), [0, 255]),
    ],
)
def test_arrays(array, wanted):
    assert pixels(array, GREY).ravel().tolist() == wanted


def test_colour_arrays():
    rgb = np.array([[[1, 2, 3]]], np.uint8)
    assert pixels(rgb).tolist() == [[[1, 2, 3]]]
    assert pixels(rgb[:, :, ::-1]).tolist() == [[[3, 2, 1]]]
    opaque = np.concatenate([rgb, np.full((1, 1, 1), 255, np.uint8)], axis=-1)
    assert pixels(opaque).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), np.int64),
        np.zeros((2, 2), complex),
        np.full((2, 2), 1.01),
        np.full((2, 2), -0.1),
        np.full((2, 2), np.nan),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 5), np.uint8),
        np.zeros((0, 2), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures(array):
    with pytest.raises(ImageError, match=r"array .*wanted"):
        load_image(array, GREY)


def test_sources_other_than_paths(tmp_path):
    path = saved(Image.new("RGB", (2, 2), (1, 2, 3)), tmp_path / "a.png")
    wanted = pixels(path)
    content = path.read_bytes()
    np.testing.assert_array_equal(pixels(str(path)), wanted)
    np.testing.assert_array_equal(pixels(content), wanted)
    np.testing.assert_array_equal(pixels(io.BytesIO(content)), wanted)
    with path.open("rb") as file:
        np.testing.assert_array_equal(pixels(file), wanted)
        assert not file.closed
    with pytest.raises(ImageError, match="found int, wanted a path"):
        load_image(7, PLAIN)


def test_the_source_is_left_alone():
    array = np.full((4, 4), 9, np.uint8)
    picture = Image.new("RGB", (4, 4), (9, 9, 9))
    for source in (array, picture):
        load_image(source, Preprocess(invert=True, resize=Resize("exact", (2, 2))))
    assert (array == 9).all()
    assert picture.size == (4, 4)
    assert picture.getpixel((0, 0)) == (9, 9, 9)


# What is refused


def refused(source, message):
    with pytest.raises(ImageError, match=message) as caught:
        load_image(source, PLAIN)
    text = str(caught.value)
    assert str(source) in text
    assert "\n" not in text


def test_missing_files_and_folders(tmp_path):
    refused(tmp_path / "none.png", "no such file")
    refused(tmp_path, "found a folder")


def test_text_and_empty_files(tmp_path):
    for name, content in (("a.png", b"hello"), ("b.png", b"")):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path, "not a picture")


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif"])
def test_truncated_files(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a.{ending}")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "not a (whole )?picture")


def test_a_bomb(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(60000, 60000, 1, 0, [b"\0"]))
    refused(path, "too large")


def test_a_strip_that_would_become_huge(tmp_path):
    path = saved(Image.new("1", (60000, 1)), tmp_path / "a.png")
    edge = Preprocess(resize=Resize("shortest_edge", (224,)), crop=(224, 224))
    with pytest.raises(ImageError, match="too long and thin"):
        load_image(path, edge)


def test_programs_are_not_run(tmp_path):
    path = saved(Image.new("RGB", (8, 8)), tmp_path / "a.eps")
    refused(path, "EPS")


def test_a_fifo_does_not_hang(tmp_path):
    import os

    path = tmp_path / "a.png"
    os.mkfifo(path)
    refused(path, "no regular file")


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(MissingExtraError, match="pip install pillow"):
        load_image(np.zeros((2, 2), np.uint8), GREY)


# Steps


def test_numbers_are_scaled_and_normalised():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rgb = np.array([[[0, 128, 255]]], np.uint8)
    found = pixels(rgb, Preprocess(mean=mean, std=std))
    wanted = (rgb / 255 - mean) / std
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_bgr_takes_its_means_in_its_own_order():
    rgb = np.array([[[10, 20, 30]]], np.uint8)
    found = pixels(rgb, Preprocess("BGR", scale=1.0, mean=(30.0, 20.0, 10.0)))
    assert found.ravel().tolist() == [0, 0, 0]


def test_the_negative():
    negative = Preprocess("L", invert=True, scale=1.0)
    assert pixels(np.array([[0, 55]], np.uint8), negative).ravel().tolist() == [
        255,
        200,
    ]
    colour = np.array([[[0, 100, 255]]], np.uint8)
    negative = Preprocess(invert=True, scale=1.0)
    assert pixels(colour, negative).ravel().tolist() == [255, 155, 0]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [((480, 640), (256, 341)), ((640, 480), (341, 256)), ((100, 100), (256, 256))],
)
def test_the_shortest_edge(size, wanted):
    resize = Resize("shortest_edge", (256,))
    assert resize.target(size) == wanted
    assert pixels(np.zeros(size, np.uint8), Preprocess(resize=resize)).shape == (
        *wanted,
        3,
    )


def test_a_box_averages():
    blocks = np.kron([[0, 100], [200, 50]], np.ones((4, 4))).astype(np.uint8)
    half = Preprocess("L", resize=Resize("exact", (2, 2), "box"), scale=1.0)
    assert pixels(blocks, half)[..., 0].tolist() == [[0, 100], [200, 50]]


def test_antialiasing_averages_and_its_lack_samples():
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::4] = 240
    for antialias, wanted in ((True, 60), (False, 120)):
        resize = Resize("exact", (8, 8), "bilinear", antialias)
        found = pixels(lines, Preprocess("L", resize=resize, scale=1.0))
        np.testing.assert_allclose(found[:, 1:-1], wanted, atol=3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_without_antialiasing_points_lie_at_pixel_centres(interpolation):
    ramp = np.tile(np.arange(0, 240, 2, dtype=np.uint8), (120, 1))
    resize = Resize("exact", (40, 40), interpolation, antialias=False)
    found = pixels(ramp, Preprocess("L", resize=resize, scale=1.0))[20, 2:-2, 0]
    wanted = (np.arange(2, 38) + 0.5) * 3 * 2 - 1
    np.testing.assert_allclose(found, wanted, atol=1)


def test_the_middle_is_cropped_as_torchvision_does():
    ramp = np.tile(np.arange(9, dtype=np.uint8), (9, 1))
    crop = Preprocess("L", crop=(4, 4), scale=1.0)
    assert pixels(ramp, crop)[0, :, 0].tolist() == [2, 3, 4, 5]


def test_a_crop_larger_than_the_picture_is_black_outside():
    crop = Preprocess("L", crop=(3, 3), scale=1.0)
    assert pixels(np.full((1, 1), 7, np.uint8), crop)[..., 0].tolist() == [
        [0, 0, 0],
        [0, 7, 0],
        [0, 0, 0],
    ]


def test_the_networks_size_is_used_only_if_the_file_names_none():
    array = np.zeros((10, 20), np.uint8)
    assert load_image(array, GREY, (5, 6)).shape == (1, 5, 6, 1)
    crop = Preprocess("L", crop=(4, 4))
    assert load_image(array, crop, (5, 6)).shape == (1, 4, 4, 1)


def test_many_threads_read_the_same(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (50, 40, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / "a.png")
    edge = Preprocess(resize=Resize("shortest_edge", (32,)), crop=(24, 24))
    wanted = load_image(path, edge)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(load_image(path, edge)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all((array == wanted).all() for array in found)


# Ink


INK = Preprocess("L", ink=Ink())


def plus(side=200, middle=(100, 100), arm=40, width=10, paper=255, ink=0):
    picture = Image.new("L", (side, side), paper)
    canvas = ImageDraw.Draw(picture)
    x, y = middle
    canvas.rectangle((x - arm, y - width // 2, x + arm, y + width // 2), fill=ink)
    canvas.rectangle((x - width // 2, y - arm, x + width // 2, y + arm), fill=ink)
    return picture


def coarse(picture, preprocess=INK):
    """Return the cut out drawing at 16 x 16."""
    resize = Resize("exact", (16, 16), "box")
    steps = Preprocess("L", ink=preprocess.ink, resize=resize)
    return load_image(picture, steps)[0, :, :, 0]


def assert_alike(found, wanted):
    """Check that only the edges differ, by less than half a coarse pixel."""
    assert np.abs(found - wanted).max() < 0.5
    assert np.abs(found - wanted).mean() < 0.04


@pytest.mark.parametrize(
    "settings",
    [
        {"paper": 0, "ink": 255},
        {"paper": 180, "ink": 120},
        {"paper": 20, "ink": 60},
        {"middle": (60, 130)},
        {"side": 1200, "middle": (300, 900), "arm": 240, "width": 60},
        {"side": 1200, "middle": (300, 900)},
        {"side": 83, "middle": (41, 41)},
    ],
)
def test_a_drawing_comes_out_the_same_wherever_and_however_it_is_drawn(settings):
    assert_alike(coarse(plus(**settings)), coarse(plus()))


def test_shading_noise_and_specks_are_taken_for_paper():
    rng = np.random.default_rng(0)
    array = np.asarray(plus(paper=210, ink=90), np.float32)
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    array = array * (0.8 - 0.2 * x + 0.1 * y - 0.1 * x * x) + rng.normal(
        0, 6, (200, 200)
    )
    array[10:13, 10:13] = 20
    shaded = Image.fromarray(np.clip(array, 0, 255).astype(np.uint8))
    assert_alike(coarse(shaded), coarse(plus()))


def test_the_drawing_fills_the_square_but_for_the_margin():
    found = load_image(plus(), Preprocess("L", ink=Ink()))[0, :, :, 0]
    for edge in (found[0], found[-1], found[:, 0], found[:, -1]):
        assert edge.max() > 0.3
    found = load_image(plus(), Preprocess("L", ink=Ink(margin=0.25)))[0, :, :, 0]
    rows = np.flatnonzero(found.max(axis=1) > 0.5)
    side = len(found)
    assert rows[0] == pytest.approx(side / 4, abs=3)
    assert side - rows[-1] == pytest.approx(side / 4, abs=3)


def test_a_narrow_drawing_stands_in_the_middle_of_a_square():
    picture = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(picture).line((40, 20, 40, 180), fill=0, width=8)
    found = load_image(picture, INK)[0, :, :, 0]
    assert found.shape[0] == found.shape[1]
    columns = np.flatnonzero(found.max(axis=0) > 0.5)
    assert columns.mean() == pytest.approx((len(found) - 1) / 2, abs=1.5)
    assert len(columns) < len(found) / 6


def test_thin_strokes_are_thickened_and_thick_ones_left():
    thin, thick = plus(width=2), plus(width=24)
    wanted = Preprocess("L", ink=Ink(stroke=0.2))

    def width(picture, preprocess):
        drawing = load_image(picture, preprocess)[0, :, :, 0]
        return np.count_nonzero(drawing[len(drawing) // 10] > 0.5) / len(drawing)

    assert width(thin, INK) < 0.08
    assert width(thin, wanted) == pytest.approx(0.2, abs=0.05)
    assert width(thick, wanted) == pytest.approx(width(thick, INK), abs=0.02)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_paper_is_refused(level):
    with pytest.raises(ImageError, match="nothing is drawn"):
        load_image(np.full((50, 60), level, np.uint8), INK)


def test_blank_but_noisy_paper_is_refused():
    noise = np.random.default_rng(0).normal(200, 4, (300, 300)).astype(np.uint8)
    with pytest.raises(ImageError, match="nothing is drawn"):
        load_image(noise, INK)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 200), (400, 2)])
def test_the_smallest_pictures_do_no_harm(shape):
    array = np.zeros(shape, np.uint8)
    array[0, 0] = 255
    with suppress(ImageError):
        assert np.isfinite(load_image(array, INK)).all()


# What files say


CHOSEN = [
    Preprocess(),
    Preprocess("L", True, Ink(0.1, 0.2), Resize("exact", (8, 9), "box"), (3, 4)),
    Preprocess(
        resize=Resize("shortest_edge", (256,), "bicubic", False),
        crop=(224, 224),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
]


@pytest.mark.parametrize("settings", [*CHOSEN, Postprocess("logits", "sigmoid", 3)])
def test_attributes_go_through_json_and_back(settings):
    import json

    attributes = json.loads(json.dumps(settings.attributes(), allow_nan=False))
    assert attributes == settings.attributes()
    assert type(settings).from_attributes(attributes) == settings


def changed(kind, **changes):
    return {**kind.attributes(), **changes}


RESIZE = Resize("exact", (8, 8)).attributes()


@pytest.mark.parametrize(
    "changes",
    [
        {"colour": "HSV"},
        {"colour": 3},
        {"invert": "auto"},
        {"invert": 1},
        {"ink": {}},
        {"ink": {"margin": 0.5, "stroke": 0.0}},
        {"ink": {"margin": 0.0, "stroke": "thin"}},
        {"ink": {"margin": 0.0, "stroke": 0.0}},
        {"resize": {**RESIZE, "mode": "fit"}},
        {"resize": {**RESIZE, "size": [8]}},
        {"resize": {**RESIZE, "size": [8, 0]}},
        {"resize": {**RESIZE, "size": [8, 8.0]}},
        {"resize": {**RESIZE, "size": [8, 70000]}},
        {"resize": {**RESIZE, "size": 8}},
        {"resize": {**RESIZE, "mode": "shortest_edge"}},
        {"resize": {**RESIZE, "interpolation": "magic"}},
        {"resize": {**RESIZE, "antialias": 1}},
        {"resize": {**RESIZE, "antialias": False, "interpolation": "lanczos"}},
        {"resize": {**RESIZE, "more": 1}},
        {"resize": {"mode": "exact"}},
        {"resize": [8, 8]},
        {"crop": [224]},
        {"crop": 224},
        {"crop": [True, True]},
        {"scale": "1"},
        {"scale": True},
        {"scale": float("inf")},
        {"mean": []},
        {"mean": [0.1, 0.2]},
        {"mean": 0.5},
        {"std": [0.1, 0, 0.1]},
        {"std": [float("nan")]},
        {"gamma": 2.2},
    ],
    ids=str,
)
def test_preprocessing_that_makes_no_sense_is_refused(changes):
    with pytest.raises(GraphError):
        Preprocess.from_attributes(changed(Preprocess(), **changes))


@pytest.mark.parametrize("missing", ["colour", "resize", "std"])
def test_preprocessing_must_be_complete(missing):
    attributes = Preprocess().attributes()
    del attributes[missing]
    with pytest.raises(GraphError, match=missing):
        Preprocess.from_attributes(attributes)


@pytest.mark.parametrize(
    "changes",
    [{"activation": "argmax"}, {"top": 0}, {"top": True}, {"output": 1}, {"more": 1}],
    ids=str,
)
def test_postprocessing_that_makes_no_sense_is_refused(changes):
    with pytest.raises(GraphError):
        Postprocess.from_attributes(changed(Postprocess("y"), **changes))


def test_probabilities():
    scores = np.array([[0.0, np.log(3)], [1000.0, 1000.0]])
    softmax = Postprocess("y").probabilities(scores)
    np.testing.assert_allclose(softmax, [[0.25, 0.75], [0.5, 0.5]])
    sigmoid = Postprocess("y", "sigmoid").probabilities(np.array([0, np.log(3), -1e4]))
    np.testing.assert_allclose(sigmoid, [0.5, 0.75, 0], atol=1e-12)
    assert Postprocess("y", "none").probabilities(scores) is scores
