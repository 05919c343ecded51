"""Finding the images of a data set."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_tl.data.sources import folder, open_data
from automl_tl.errors import DataError
from automl_tl.specs import DatasetSpec

if TYPE_CHECKING:
    from automl_tl.data.index import DataIndex

WriteImage = Callable[..., Path]


def opened(data: Path | str, tmp_path: Path) -> DataIndex:
    return open_data(str(data), tmp_path / "cache", {})


def failure(data: Path | str, tmp_path: Path) -> str:
    with pytest.raises(DataError) as error:
        opened(data, tmp_path)
    return str(error.value)


def rows(index: DataIndex) -> list[tuple[str, str, str | None]]:
    return [(item.name, index.classes[item.label], item.split) for item in index.items]


def test_folder_of_classes(classes_folder: Path, tmp_path: Path) -> None:
    index = opened(classes_folder, tmp_path)
    assert index.name == "pets"
    assert index.source == str(classes_folder)
    assert index.classes == ("cat", "dog")
    assert rows(index)[0] == ("cat/0.png", "cat", None)
    assert [item.name for item in index.items] == sorted(item.name for item in index.items)
    assert all(item.path.is_file() for item in index.items)
    assert index.notes == ()


def test_junk_is_no_event_and_suffixes_mean_nothing(
    classes_folder: Path, tmp_path: Path, write_image: WriteImage
) -> None:
    for junk in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini", "__MACOSX/0.png", ".git/x"):
        place = classes_folder / "cat" / junk
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"junk")
        place = classes_folder / junk
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"junk")
    write_image(classes_folder / "cat" / "deep er" / "ünïcode 图.jpg", 50)
    write_image(classes_folder / "cat" / "no suffix", 51)
    index = opened(classes_folder, tmp_path)
    assert index.classes == ("cat", "dog")
    assert len(index.items) == 10
    assert {"cat/deep er/ünïcode 图.jpg", "cat/no suffix"} <= {item.name for item in index.items}


def test_classes_are_sorted_as_text(tmp_path: Path, write_image: WriteImage) -> None:
    for label in ("10", "9", "1", "b", "B"):
        write_image(tmp_path / "data" / label / "x.png", 1)
    assert opened(tmp_path / "data", tmp_path).classes == ("1", "10", "9", "B", "b")


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "VAL"])
def test_train_validation_and_test_folders(
    validation: str, tmp_path: Path, write_image: WriteImage
) -> None:
    for split in ("train", validation, "test"):
        for label in ("a", "b"):
            write_image(tmp_path / "data" / split / label / "x.png", 1)
    index = opened(tmp_path / "data", tmp_path)
    assert index.classes == ("a", "b")
    assert ("train/a/x.png", "a", "train") in rows(index)
    assert {split for _, _, split in rows(index)} == {"train", "validation", "test"}


def test_train_may_be_a_class_of_vehicles(tmp_path: Path, write_image: WriteImage) -> None:
    for label in ("train", "car"):
        write_image(tmp_path / "data" / label / "x.png", 1)
    assert opened(tmp_path / "data", tmp_path).classes == ("car", "train")


def test_symbolic_links_are_followed_and_loops_end(
    classes_folder: Path, tmp_path: Path, write_image: WriteImage
) -> None:
    elsewhere = write_image(tmp_path / "elsewhere" / "y.png", 70).parent
    (classes_folder / "cat" / "linked").symlink_to(elsewhere)
    (classes_folder / "cat" / "self").symlink_to(classes_folder / "cat")
    (classes_folder / "cat" / "up").symlink_to(classes_folder)
    (classes_folder / "dog" / "other").symlink_to(classes_folder / "cat")
    (classes_folder / "dog" / "gone.png").symlink_to(tmp_path / "nowhere")
    index = opened(classes_folder, tmp_path)
    assert len(index.items) == 9
    assert "cat/linked/y.png" in {item.name for item in index.items}


def test_pipes_are_not_opened(classes_folder: Path, tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(classes_folder / "cat" / "pipe.png")
    assert len(opened(classes_folder, tmp_path).items) == 8


def test_a_name_that_is_not_unicode_can_be_printed(classes_folder: Path, tmp_path: Path) -> None:
    try:
        shutil.copy(
            classes_folder / "cat/0.png", os.fsencode(classes_folder / "cat") + b"/\xff.png"
        )
    except OSError:
        pytest.skip("this file system wants Unicode names")
    item = next(item for item in opened(classes_folder, tmp_path).items if "xff" in item.name)
    item.name.encode("utf-8")
    assert item.path.is_file()


def test_notes_on_empty_classes_and_stray_files(classes_folder: Path, tmp_path: Path) -> None:
    (classes_folder / "horse").mkdir()
    (classes_folder / "README.txt").write_text("hello")
    index = opened(classes_folder, tmp_path)
    assert index.classes == ("cat", "dog")
    assert any("'horse'" in note or "horse is empty" in note for note in index.notes)
    assert any("1 file" in note for note in index.notes)


def test_wrong_folders(classes_folder: Path, tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "empty").mkdir()
    assert "is empty" in failure(tmp_path / "empty", tmp_path)
    flat = write_image(tmp_path / "flat" / "x.png", 1).parent
    assert "holds 1 file but no class folders" in failure(flat, tmp_path)
    (flat / "table.csv").write_text("path,label\nx.png,a\n")
    assert "table.csv" in failure(flat, tmp_path)
    write_image(tmp_path / "single" / "cat" / "x.png", 1)
    assert "only one, 'cat'" in failure(tmp_path / "single", tmp_path)
    wrapped = tmp_path / "wrapped"
    shutil.copytree(classes_folder, wrapped / "pets")
    assert f"did you mean {wrapped / 'pets'}?" in failure(wrapped, tmp_path)
    place = tmp_path / "deeper" / "a" / "b"
    shutil.copytree(classes_folder, place)
    (place.parent / "notes.txt").write_text("hello")
    deeper = failure(tmp_path / "deeper", tmp_path)
    assert f"only the folder 'a/b' with 2 folders inside: did you mean {place}?" in deeper
    (tmp_path / "single" / "cat" / "self").symlink_to(tmp_path / "single" / "cat")
    assert "only one, 'cat'" in failure(tmp_path / "single", tmp_path)
    assert "There is no" in failure(tmp_path / "nowhere", tmp_path)
    (tmp_path / "some.txt").write_text("nothing")
    assert "is none of these" in failure(tmp_path / "some.txt", tmp_path)
    (tmp_path / "none.bin").write_bytes(b"")
    assert "is none of these" in failure(tmp_path / "none.bin", tmp_path)


def test_wrong_split_folders(tmp_path: Path, write_image: WriteImage) -> None:
    data = tmp_path / "data"
    for label in ("a", "b"):
        write_image(data / "train" / label / "x.png", 1)
    write_image(data / "test" / "a" / "x.png", 1)
    message = failure(data, tmp_path)
    assert "must hold the same classes" in message and ": b" in message
    shutil.rmtree(data / "test")
    write_image(data / "test" / "x.png", 1)
    assert "has no class folders" in failure(data, tmp_path)
    shutil.rmtree(data / "test")
    for name in ("val", "valid"):
        write_image(data / name / "a" / "x.png", 1)
    assert "keep one of them" in failure(data, tmp_path)


def test_named_data_sets(classes_folder: Path, tmp_path: Path) -> None:
    datasets = {
        "digits": DatasetSpec("digits", load=lambda cache: folder(classes_folder, "d", "s"))
    }
    index = open_data("digits", tmp_path, datasets)
    assert (index.name, index.source) == ("d", "s")
    with pytest.raises(DataError, match=r"did you mean 'digits'\?"):
        open_data("digit", tmp_path, datasets)
    with pytest.raises(DataError, match=r"expected a folder"):
        open_data("photos/cats", tmp_path, datasets)


def table(classes_folder: Path, text: str, name: str = "table.csv") -> Path:
    path = classes_folder / name
    path.write_bytes(text.encode())
    return path


def test_csv(classes_folder: Path, tmp_path: Path) -> None:
    absolute = classes_folder / "dog" / "5.png"
    path = table(
        classes_folder,
        f'\ufeffpath,Label,split\r\ncat/0.png,1,train\r\n"cat/1.png",01,VAL\r\n\r\n'
        f"{absolute},1,\r\ndog/../dog/6.png, 01 ,test\r\ncat/0.png,1,train\r\n",
    )
    index = opened(path, tmp_path)
    assert index.name == "table"
    assert index.classes == ("01", "1")
    assert sorted(rows(index)) == sorted(
        [
            (str(absolute), "1", None),
            ("cat/0.png", "1", "train"),
            ("cat/1.png", "01", "validation"),
            ("dog/6.png", "01", "test"),
        ]
    )
    assert len(index.notes) == 1 and "repeated" in index.notes[0]


def test_of_a_files_splits_in_a_csv_the_strictest_counts(
    tmp_path: Path, write_image: WriteImage
) -> None:
    given = {"a": ("test", "train"), "b": ("train", "val", "train"), "c": ("", "test", "test", "")}
    lines = ["path,label,split", "d.png,y,"]
    for name, splits in given.items():
        lines += [f"{name}.png,x,{split}" for split in splits]
        write_image(tmp_path / f"{name}.png", 1)
    (tmp_path / "t.csv").write_text("\n".join(lines))
    index = opened(tmp_path / "t.csv", tmp_path)
    assert [item.split for item in index.items] == ["test", "validation", "test", None]
    assert index.notes == (
        "Left out from t.csv: 6 repeated lines, 3 of them with another split: test counts before "
        "validation, and that before train.",
    )


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_with_other_separators(separator: str, classes_folder: Path, tmp_path: Path) -> None:
    lines = ["path,label", "cat/0.png,a", "dog/5.png,b"]
    path = table(classes_folder, "\n".join(lines).replace(",", separator), "t.tsv")
    assert opened(path, tmp_path).classes == ("a", "b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,label\na,b\n", "has no column path"),
        ("", "has no column path and no column label"),
        ("path,label\ncat/0.png,\n", "line 2: expected a path and a label"),
        ("path,label,split\ncat/0.png,a,holdout\n", "found 'holdout'"),
        ("path,label\n../x.png,a\n", "leads out of"),
        ("path,label\ncat/../../x.png,a\n", "leads out of"),
        ("path,label\nnone.png,a\nmissing.png,b\n", "None of the paths"),
        ("path,label\ncat/0.png,a\ncat/1.png,a\n", "only one, 'a'"),
        ("path,label\n", "no file at all"),
        ("path,label," + "x" * 200_000 + "\ncat/0.png,a\n", "table.csv, line 1: field larger than"),
    ],
)
def test_wrong_csv(text: str, expected: str, classes_folder: Path, tmp_path: Path) -> None:
    assert expected in failure(table(classes_folder, text), tmp_path)


def test_csv_with_line_breaks_in_names(tmp_path: Path, write_image: WriteImage) -> None:
    names = ("a\r.png", "b\nb.png", "c\r\nc.png", 'say "d".png', "e,e.png")
    for number, name in enumerate(names):
        write_image(tmp_path / name, number)
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}",{"xy"[i % 2]}' for i, name in enumerate(names)]
    for ending in ("\n", "\r\n", "\r"):
        text = ending.join(("path,label", *rows, ""))
        (tmp_path / "t.csv").write_bytes(text.encode())
        index = open_data(str(tmp_path / "t.csv"), tmp_path, {})
        assert {item.path.name for item in index.items} == set(names)
        assert all(item.path.is_file() for item in index.items)


def test_spaces_in_a_csv_count_where_a_file_bears_them(
    tmp_path: Path, write_image: WriteImage
) -> None:
    names = (" a.png", "b.png ", "c.png", "d.png")
    for number, name in enumerate(names):
        write_image(tmp_path / name, number)
    text = "path,label\n a.png,x\nb.png , y\n c.png ,x \nd.png,y\n"
    (tmp_path / "t.csv").write_text(text)
    index = open_data(str(tmp_path / "t.csv"), tmp_path, {})
    found = {(item.path.name, index.classes[item.label]) for item in index.items}
    assert found == set(zip(names, "xyxy", strict=True))


def test_csv_in_latin_1_is_refused(classes_folder: Path, tmp_path: Path) -> None:
    path = classes_folder / "t.csv"
    path.write_bytes("path,label\ncat/0.png,grün\n".encode("latin-1"))
    assert "UTF-8" in failure(path, tmp_path)
