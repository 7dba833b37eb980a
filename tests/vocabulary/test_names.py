"""Lists of names: what is read of them, and that all faults are reported at once."""

import pytest
from ram_triton.errors import SHOWN_PROBLEMS, FileError, VocabularyError
from ram_triton.vocabulary.names import LONGEST_NAME, read_names
from ram_triton.vocabulary.tag_lists import CHINESE


@pytest.fixture
def write(tmp_path):
    def write_list(text, name="names.txt"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write_list


def read(path):
    return [(listed.name, listed.name_zh, listed.threshold) for listed in read_names(path)]


def faults(path):
    with pytest.raises(VocabularyError) as refused:
        read_names(path)
    return str(refused.value).replace(f"{path}, ", "").splitlines()


def test_plain_text_has_one_name_per_line(write):
    assert read(write("cat\n  hot dog \nBMW")) == [
        ("cat", None, None),
        ("hot dog", None, None),
        ("BMW", None, None),
    ]


@pytest.mark.parametrize("separator", ["\t", ",", " , "])
def test_a_chinese_name_and_a_threshold_may_follow(write, separator):
    lines = [("cat", "猫", "0.5"), ("dog", "", "0.7"), ("car", "汽车")]
    text = "\n".join(separator.join(fields) for fields in lines)
    assert read(write(text)) == [("cat", "猫", 0.5), ("dog", None, 0.7), ("car", "汽车", None)]


def test_with_tabs_a_name_may_hold_commas(write):
    assert read(write("salt, pepper\t盐和胡椒\n")) == [("salt, pepper", "盐和胡椒", None)]


@pytest.mark.parametrize("header", ["threshold,name,name_zh", "Threshold,Tag,Chinese"])
def test_the_header_of_a_csv_file_names_its_columns_in_any_order(write, header):
    path = write(f'\ufeff{header}\n0.5,"salt, pepper",盐\n,cat,\n', "names.csv")
    assert read(path) == [("salt, pepper", "盐", 0.5), ("cat", None, None)]


def test_columns_that_mean_nothing_here_are_passed_over(write):
    assert read(write("id,name\n7,cat\n", "names.csv")) == [("cat", None, None)]


def test_a_csv_file_without_a_column_of_names_is_refused(write):
    assert "the first line has no column 'name'" in faults(write("cat,猫\n", "names.csv"))[0]


def test_a_published_folder_is_a_list_too(vocabulary_folder):
    listed = read(vocabulary_folder)
    assert listed[:2] == [("tag 0", "标签0", 0.0002), ("tag 1", "标签1", 0.0004)]
    assert len(listed) == 40


def test_lists_of_a_folder_that_are_not_equally_long_are_refused(tmp_path, vocabulary_folder):
    (tmp_path / "ram_tag_list.txt").write_text("cat\ndog\n")
    (tmp_path / CHINESE).write_text("猫\n")
    assert "has 1 lines, but ram_tag_list.txt has 2" in faults(tmp_path)[0]


def test_all_faults_are_reported_at_once_each_with_its_line(write):
    long = "x" * (LONGEST_NAME + 1)
    path = write(
        f"cat\n\n{long}\n CAT\ndog,狗,2\nfox,狐狸,0.5,red\nowl,0.5\nbell\a\n,,\n"
        "._\nhot dog\nHot_Dog.\n"
    )
    assert faults(path) == [
        "line 2: the name is empty",
        f"line 3: '{'x' * 20}…' has 101 characters, the limit is 100",
        "line 4: duplicate name 'CAT', the first is in line 1",
        "line 5: '2' is not a threshold from 0 to 1",
        "line 6: 4 fields, expected name, Chinese name and threshold",
        "line 7: '0.5' is in the place of the Chinese name",
        "line 8: 'bell\\x07' contains characters that cannot be printed",
        "line 9: the name is empty",
        "line 10: the name is empty",
        "line 12: duplicate name 'Hot_Dog.', the first is in line 11",
    ]


def test_of_very_many_faults_the_first_are_shown_and_the_rest_counted(write):
    shown = faults(write("\n" * (SHOWN_PROBLEMS + 10)))
    assert (shown[0], shown[-1]) == ("line 1: the name is empty", "… and 10 more")
    assert len(shown) == SHOWN_PROBLEMS + 1


def test_a_list_that_cannot_be_read_or_is_empty_is_refused(write, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_names(tmp_path / "none.txt")
    assert "contains no names" in faults(write(""))[0]
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(FileError, match=r"latin\.txt, line 1: is not UTF-8"):
        read_names(tmp_path / "latin.txt")
