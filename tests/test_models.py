"""The shipped models give the answers that their cards promise."""

from pathlib import Path

import numpy as np
import pytest
import striate
import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits
from striate.models import make_digits, make_samples, make_simple_cells

FOLDER = Path(__file__).parents[1] / "models"
SAMPLES = FOLDER / "samples"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def digits():
    with striate.load(FOLDER / "digits.h5") as model:
        yield model


@pytest.fixture(scope="module")
def cells():
    with striate.load(FOLDER / "simple_cells.h5") as model:
        yield model


@pytest.fixture(scope="module")
def held_out():
    """Return the pictures that the digits were not trained on, and their classes."""
    data = load_digits()
    held = make_digits.held_out(data.target)
    return (data.images[held] / 16).astype(np.float32), data.target[held]


def answer(model, picture):
    return model.classify(picture, top=1)[0][0]


# Digits


def test_a_fifth_of_each_class_is_held_out():
    targets = load_digits().target
    held = make_digits.held_out(targets)
    assert held.sum() == 359
    share = np.bincount(targets[held]) / np.bincount(targets)
    np.testing.assert_allclose(share, 0.2, atol=0.003)


def test_the_accuracy_on_the_card(digits, held_out):
    pictures, targets = held_out
    right = (digits(pictures[..., None]).argmax(axis=1) == targets).mean()
    assert right >= 0.985
    assert round(float(right), 4) == digits.graph.metadata["held_out_accuracy"]
    assert f"{right:.2%}".replace("%", " %") in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("times", [1, 20])
def test_pictures_of_the_data_set_as_pictures(digits, held_out, times):
    pictures, targets = held_out
    names = digits.labels
    right = [
        answer(digits, np.kron(picture, np.ones((times, times)))) == names[target]
        for picture, target in zip(pictures[::5], targets[::5], strict=True)
    ]
    assert np.mean(right) > 0.96


@pytest.mark.parametrize("digit", range(10))
def test_sample_digits(digits, digit):
    (path,) = SAMPLES.glob(f"{NAMES[digit]}.*")
    assert answer(digits, path) == str(digit)


STROKES = [
    "5,1 2,3 1.6,6 3,9 5,9.4 7.6,7 7.6,3.6 5,1",
    "3,3 5,1 5,9",
    "2,3 4,1 7,2 6,5 2,9 8,9",
    "2,1.5 5,1 7.4,2.6 4.4,4.8 7.4,7 5,9 2,8.6",
    "5,1 1.5,6 8,6|6.2,4 6,9",
    "7,1 3,1 2.6,4.6 5.5,4.4 7.2,6.4 5.4,9 2.4,8.6",
    "6.4,1 3,4 2.2,7 4,9 6.6,8.4 6.8,6.2 4.6,5.4 2.4,7",
    "2,1.2 7.6,1 4,9",
    "5,4.6 2.6,3 5,1 7.2,3 5,4.6 2.4,7 5,9 7.6,7 5,4.6",
    "7,3 4.6,1 2.6,3.2 4.8,5 7,3 6.6,6 5.6,9",
]
"""The digits in straight lines, points from 0 to 10."""


def drawn(digit, side, height, pen, corner, dark):
    picture = Image.new("L", (side, side), 255 if dark else 0)
    canvas = ImageDraw.Draw(picture)
    for stroke in STROKES[digit].split("|"):
        points = np.array([point.split(",") for point in stroke.split()], float)
        line = [tuple(point) for point in points * height / 10 + corner]
        canvas.line(line, fill=0 if dark else 255, width=pen, joint="curve")
    return picture


DRAWINGS = {
    "a felt tip": (200, 160, 18, (30, 20), True),
    "a pen": (200, 160, 6, (30, 20), True),
    "a fine pen": (400, 300, 4, (40, 60), True),
    "chalk": (300, 200, 16, (70, 50), False),
    "in a corner": (600, 150, 10, (430, 20), True),
    "small on a page": (1500, 90, 6, (200, 1100), True),
    "28 pixels": (28, 22, 2, (4, 3), False),
}


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("drawing", DRAWINGS)
def test_drawn_digits(digits, drawing, digit):
    assert answer(digits, drawn(digit, *DRAWINGS[drawing])) == str(digit)


@pytest.mark.parametrize("digit", range(10))
@pytest.mark.parametrize("size", [24, 60, 200])
def test_printed_digits(digits, size, digit):
    picture = Image.new("RGB", (2 * size, 2 * size), (255, 250, 240))
    canvas = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    canvas.text((size // 2, size // 3), str(digit), fill=(20, 30, 90), font=font)
    assert answer(digits, picture) == str(digit)


def test_odds_are_probabilities(digits):
    odds = digits.classify(SAMPLES / "seven.png", top=10)
    assert sum(share for _, share in odds) == pytest.approx(1)
    assert odds[0][0] == "7"
    assert sorted(share for _, share in odds)[::-1] == [share for _, share in odds]


def test_the_graph_is_the_trained_network():
    torch.manual_seed(1)
    network = make_digits.untrained().eval()
    weights = {name: p.detach().numpy() for name, p in network.named_parameters()}
    graph = make_digits.graph_of(weights)
    x = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy()
    found = graph.reference({"image": x})["logits"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_digits_can_be_made_again(tmp_path, capsys):
    path = tmp_path / "digits.h5"
    settings = ["--epochs", "2", "--drawings", "200"]
    assert make_digits.main([str(path), *settings]) == 0
    assert "held out" in capsys.readouterr().out
    made, shipped = striate.read(path), striate.read(FOLDER / "digits.h5")
    assert made.specs() == shipped.specs()
    assert made.metadata["held_out_accuracy"] > 0.3
    assert made.preprocess == shipped.preprocess
    assert made.labels == shipped.labels


# Simple cells


def grating(orientation, period, sharp, contrast):
    pixels = make_samples.stripes(orientation, period)
    wave = np.asarray(pixels, np.float32) / 127.5 - 1
    wave = np.sign(wave) if sharp else wave
    return (0.5 + 0.5 * contrast * wave).clip(0, 1)


@pytest.mark.parametrize("orientation", make_simple_cells.ORIENTATIONS)
def test_stripes_of_a_known_angle(cells, orientation):
    for period in (4, 9, 25, 70):
        for sharp in (False, True):
            for contrast in (1, 0.05):
                picture = grating(orientation, period, sharp, contrast)
                assert answer(cells, picture) == f"{orientation}°"


@pytest.mark.parametrize("orientation", [5, 22, 50, 88, 128, 173])
def test_other_angles_go_to_a_neighbour(cells, orientation):
    found = int(answer(cells, grating(orientation, 12, False, 1)).rstrip("°"))
    apart = (found - orientation + 90) % 180 - 90
    assert abs(apart) <= 15


def test_45_degrees_rise_to_the_right(cells):
    picture = Image.new("L", (200, 200), 0)
    canvas = ImageDraw.Draw(picture)
    for start in range(-200, 400, 25):
        canvas.line((start, 199, start + 199, 0), fill=255, width=8)
    assert answer(cells, picture) == "45°"


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_without_contrast_there_is_no_orientation(cells, level):
    assert answer(cells, np.full((90, 70), level)) == "none"


def test_noise_has_every_orientation(cells):
    noise = np.random.default_rng(0).uniform(0, 1, (400, 300))
    shares = [share for _, share in cells.classify(noise, top=13)]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) < 0.1


@pytest.mark.parametrize(
    ("name", "orientation"),
    [
        ("stripes_15.png", "15°"),
        ("stripes_60.png", "60°"),
        ("stripes_90.png", "90°"),
        ("stripes_135.png", "135°"),
        ("temple.jpg", "0°"),
    ],
)
def test_sample_orientations(cells, name, orientation):
    assert answer(cells, SAMPLES / name) == orientation


def test_simple_cells_follow_from_the_formulas():
    made = make_simple_cells.build()
    shipped = striate.read(FOLDER / "simple_cells.h5")
    assert [node.name for node in made.nodes] == [node.name for node in shipped.nodes]
    assert made.params.keys() == shipped.params.keys()
    for name, array in made.params.items():
        np.testing.assert_allclose(array, shipped.params[name], rtol=1e-5, atol=1e-7)


def test_simple_cells_do_not_see_brightness():
    kernel = make_simple_cells.bank()
    np.testing.assert_allclose(kernel.sum(axis=(0, 1)), 0, atol=1e-6)
    np.testing.assert_allclose((kernel**2).sum(axis=(0, 1)), 1, rtol=1e-6)


# Samples


def test_the_samples_can_be_made_again(tmp_path):
    assert make_samples.main([str(tmp_path)]) == 0
    shipped = sorted(path.name for path in SAMPLES.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == shipped
    for name in shipped:
        with Image.open(tmp_path / name) as made, Image.open(SAMPLES / name) as there:
            assert made.size == there.size
            apart = np.asarray(made, float) - np.asarray(there, float)
            assert np.abs(apart).mean() < 2


def test_shipped_files_are_small():
    for path in FOLDER.rglob("*"):
        assert path.is_dir() or path.stat().st_size < 300_000, path
