"""A user's own texts and images on the command line."""

import json
import struct

import numpy as np
import pytest
from command_line import refused, run, run_json
from PIL import Image
from safetensors import safe_open

SHORT = ("--optimizer", "adamw", "--steps", 5, "--validate-every", 0)


def metadata(folder):
    with safe_open(folder / "weights.safetensors", "np") as reader:
        return reader.metadata()


OF_WORDS = ["flt_word_lm", "tied_word_lm", "gru_word_lm"]


def novel(words):
    return "".join(words[i * 7 % len(words)] + (" " if i % 9 else "\r\n") for i in range(900))


@pytest.mark.parametrize("task", ["char_lm", "gru_lm", "flt_char_lm", *OF_WORDS])
def test_a_text_file_is_trained_on(tmp_path, task):
    text = novel(["Fragen", "\u00fcber", "\u4e16\u754c", "\x07bell", "na\u00efve"])
    file = tmp_path / "my novel.txt"
    file.write_bytes(text.encode())
    result = run_json("train", "--task", task, *SHORT, "--data", file, "--out", tmp_path / "run")
    assert np.isfinite(result["validation_loss"])
    vocabulary = json.loads(metadata(tmp_path / "run")["vocabulary"])
    if task in OF_WORDS:
        assert set(vocabulary) == {"<unk>", "<eos>", *text.split()}
    else:
        assert vocabulary == sorted(set(text))
    weights = tmp_path / "run" / "weights.safetensors"
    evaluated = run_json("evaluate", "--task", task, "--weights", weights, "--data", file)
    assert evaluated["validation_loss"] == pytest.approx(result["validation_loss"], rel=1e-5)


def test_files_of_one_run_are_not_taken_for_another_text(tmp_path):
    one, other, run_folder = tmp_path / "one.txt", tmp_path / "other.txt", tmp_path / "run"
    one.write_text(novel(["abc", "bcd"]))
    other.write_text(novel(["abc", "bcd"]).translate(str.maketrans("abcd", "wxyz")))
    command = ("train", "--task", "char_lm", *SHORT, "--out", run_folder)
    run_json(*command, "--data", one)
    assert "expected data" in refused(*command, "--resume", "--data", other)
    weights = run_folder / "weights.safetensors"
    evaluate = ("evaluate", "--task", "char_lm", "--weights", weights)
    assert "vocabulary" in refused(*evaluate, "--data", other)
    compare = ("compare", "--task", "char_lm@5", "--optimizers", "sgd@1e-2", "--seeds", 1)
    losses = [
        run_json(*compare, "--data", file, "--out", tmp_path / "compare")["rows"][0][
            "training_loss"
        ]
        for file in (one, other, one)
    ]
    assert losses[0] == losses[2]


@pytest.mark.parametrize(
    "content, words",
    [
        (b"caf\xe9 " * 400, ["UTF-8 text", "0xe9", "offset 3"]),
        (("no " * 1000).encode("utf-16"), ["UTF-8 text"]),
        (b"\x1f\x8b broken", ["gzip"]),
        (b"", ["1,000 characters"]),
        (b"x" * 5000, ["not all equal"]),
    ],
)
def test_what_is_no_text_is_one_line(tmp_path, content, words):
    file = tmp_path / "text"
    file.write_bytes(content)
    message = refused("train", "--task", "char_lm", *SHORT, "--data", file)
    for word in [*words, str(file)]:
        assert word in message, message


def pictures(channels, side=(12, 10), per_class=12):
    random = np.random.default_rng(3)
    shape = (3, per_class, *side, channels)
    base = random.integers(0, 256, (3, 1, *side, channels))
    return np.clip(base + random.integers(-40, 40, shape), 0, 255).astype(np.uint8)


def write_folder(folder, images, kind="png"):
    for name, part in zip(["a", "b", "c"], images, strict=True):
        (folder / name).mkdir(parents=True)
        for i, pixels in enumerate(part):
            image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
            image.save(folder / name / f"{i:03d}.{kind}")


def write_idx(folder, part, images):
    folder.mkdir(exist_ok=True)
    stacked = images.reshape(-1, *images.shape[2:])
    labels = np.repeat(np.arange(3), images.shape[1]).astype(np.uint8)
    sizes = struct.pack(f">{stacked.ndim}I", *stacked.shape)
    header = bytes([0, 0, 8, stacked.ndim])
    (folder / f"{part}-images-idx4-ubyte").write_bytes(header + sizes + stacked.tobytes())
    header = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_folder_of_images_is_the_same_as_its_pixels(tmp_path, channels, kind):
    """IDX files with what Pillow reads in the folder give the same run to the last bit."""
    train, test = pictures(channels), pictures(channels, per_class=4)
    write_folder(tmp_path / "photos" / "train", train, kind)
    write_folder(tmp_path / "photos" / "val", test, kind)
    for part, name in [("train", "train"), ("val", "t10k")]:
        folder = tmp_path / "photos" / part
        files = [sorted((folder / label).iterdir()) for label in "abc"]
        read = np.stack([[np.asarray(Image.open(file)) for file in row] for row in files])
        write_idx(tmp_path / "idx", name, read.reshape(*read.shape[:4], channels))
    command = ("train", "--task", "conv_images", *SHORT)
    for data in ("photos", "idx"):
        run_json(*command, "--data", tmp_path / data, "--out", tmp_path / f"{data}_run")
    one, other = (
        (tmp_path / f"{data}_run" / "metrics.jsonl").read_text() for data in ("photos", "idx")
    )
    assert one == other
    assert json.loads(metadata(tmp_path / "photos_run")["classes"]) == ["a", "b", "c"]


@pytest.mark.parametrize("task", ["mlp_images", "conv_images", "vit_images", "flt_vit_images"])
def test_images_of_any_size_are_learned(tmp_path, task):
    write_folder(tmp_path / "photos", pictures(3, side=(19, 23)))
    arguments = ("--optimizer", "mnemosyne", "--steps", 30, "--data", tmp_path / "photos")
    result = run_json("train", "--task", task, *arguments, "--out", tmp_path / "run")
    assert result["loss"] < 0.9 and result["validation_accuracy"] > 0.6
    weights = tmp_path / "run" / "weights.safetensors"
    same = ("--weights", weights, "--data", tmp_path / "photos")
    evaluated = run_json("evaluate", "--task", task, *same)
    assert evaluated["validation_accuracy"] == result["validation_accuracy"]


def test_images_that_do_not_fit_are_one_line(tmp_path):
    photos = tmp_path / "photos"
    write_folder(photos, pictures(3))
    command = ("train", "--task", "vit_images", *SHORT, "--data")
    Image.new("RGB", (5, 5)).save(photos / "b" / "small.png")
    message = refused(*command, photos)
    assert "expected images of one size, 12 x 10" in message and "small.png" in message
    (photos / "b" / "small.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "small.png" in refused(*command, photos)
    Image.new("CMYK", (10, 12)).save(photos / "b" / "small.jpg")
    (photos / "b" / "small.png").unlink()
    assert "CMYK" in refused(*command, photos)
    assert "a folder of images" in refused(*command[:-1])
    assert "two or more classes" in refused(*command, tmp_path)


def test_the_list_says_what_each_task_needs():
    listed = {task["name"]: task for task in run_json("tasks")}
    assert listed["char_lm"]["data"] == "tinyshakespeare"
    assert listed["char_lm"]["own_data"] == "a text file"
    assert listed["vit_images"]["own_data"] == "a folder of images"
    table = run("tasks").stdout
    assert "tinyshakespeare/ or a text file" in table and "--data novel.txt" in table
    assert "text file or folder of images" in " ".join(run("train", "--help").stdout.split())
