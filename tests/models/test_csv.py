"""Reading a cohort from CSV: columns in any order, and an error that names row, column, value and range."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError
from privacy.models.schema import Feature, Schema

GOOD = "id,age,glucose,smoker\np1,40,99.5,0\np2,70,180,1\n"


@given(st.permutations(["id", "age", "glucose", "smoker"]))
def test_the_order_of_columns_does_not_matter(order: list[str]) -> None:
    schema = _schema()
    records = [
        {"id": "p1", "age": "40", "glucose": "99.5", "smoker": "0"},
        {"id": "p2", "age": "70", "glucose": "1.8E2", "smoker": "TRUE"},
    ]
    text = "\n".join(",".join(line) for line in [order, *([record[name] for name in order] for record in records)])
    cohort = schema.read_csv(text)
    assert cohort.ids == ("p1", "p2")
    assert cohort.values.tolist() == [[40.0, 99.5, 0.0], [70.0, 180.0, 1.0]]


def _schema() -> Schema:
    return Schema(
        "ward",
        2,
        (
            Feature("age", "a", 18, 100, "integer"),
            Feature("glucose", "mg/dL", 20, 600),
            Feature("smoker", "1", 0, 1, "boolean"),
        ),
    )


def test_a_file_with_a_byte_order_mark_blank_lines_and_quotes_is_read(small_schema: Schema, tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_bytes(b'\xef\xbb\xbfage, glucose ,smoker\r\n"40", 99.5,false\r\n\r\n')
    cohort = small_schema.read_csv(path)
    assert cohort.ids == ("1",)
    assert cohort.values.tolist() == [[40.0, 99.5, 0.0]]


def test_another_id_column_is_named_by_the_caller(small_schema: Schema) -> None:
    assert small_schema.read_csv(GOOD.replace("id,", "mrn,"), id_column="mrn").ids == ("p1", "p2")
    with pytest.raises(DecodeError, match=r"unknown column\(s\).*'mrn'"):
        small_schema.read_csv(GOOD.replace("id,", "mrn,"))
    with pytest.raises(DecodeError, match=r"missing column\(s\).*'mrn'"):
        small_schema.read_csv(GOOD, id_column="mrn")
    with pytest.raises(UsageError, match="is a feature"):
        small_schema.read_csv(GOOD, id_column="age")


def test_a_feature_called_id_is_a_feature() -> None:
    schema = Schema("s", 1, (Feature("id", "1", 0, 10),))
    cohort = schema.read_csv("id\n5\n5\n")
    assert cohort.ids == ("1", "2")
    assert cohort.values.tolist() == [[5.0], [5.0]]


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("180", "", r"CSV row 2 \(line 3\), column 'glucose': the value is missing"),
        ("180", "high", r"row 2 \(line 3\), column 'glucose': 'high' is not a number"),
        ("180", "nan", "'nan' is not a number"),
        ("180", "-Infinity", "is not a number"),
        ("180", "1e999", "inf is not a finite number"),
        ("180", "1_80", "is not a number"),
        ("180", "١٨٠", "is not a number"),
        ("180", "0x10", "is not a number"),
        ("180", '"18,0"', "'18,0' is not a number"),
        ("180", "601", r"601.0 is outside the range \[20.0, 600.0\] \(unit mg/dL\)"),
        ("70", "70.5", "column 'age': 70.5 is not an integer"),
        ("70", "170", r"170.0 is outside the range \[18.0, 100.0\]"),
        (",1\n", ",0.5\n", "column 'smoker': 0.5 is not 0 or 1"),
        (",1\n", ",yes\n", "'yes' is not a number"),
        (",1\n", "\n", r"row 2 \(line 3\): 3 cells, the header has 4"),
        (",1\n", ",1,1\n", "5 cells"),
        ("p2", "p1", "id 'p1' is also the id of row 1"),
        ("p2", " ", "the id is empty"),
        ("smoker\n", "smokes\n", r"missing column\(s\) for schema 'ward': 'smoker'"),
        ("smoker\n", "age\n", r"repeated column\(s\) for schema 'ward': 'age'"),
        ("id,", "name,", r"unknown column\(s\) for schema 'ward': 'name'"),
        (GOOD, "id,age,glucose,smoker\n", "no patient rows"),
        (GOOD, "", "missing column"),
        (GOOD, "cohort.csv", "missing column"),
        ("p2", '"p2', "unexpected end of data"),
    ],
)
def test_a_wrong_cell_is_refused_where_it_is(small_schema: Schema, good: str, bad: str, message: str) -> None:
    assert small_schema.read_csv(GOOD).ids == ("p1", "p2")
    assert good in GOOD
    with pytest.raises(DecodeError, match=message):
        small_schema.read_csv(GOOD.replace(good, bad))


def test_a_file_that_is_not_there_or_not_text_is_refused(small_schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        small_schema.read_csv(tmp_path / "absent.csv")
    path = tmp_path / "latin1.csv"
    path.write_bytes(GOOD.replace("p1", "José").encode("latin-1"))
    with pytest.raises(DecodeError, match="not UTF-8"):
        small_schema.read_csv(path)


@given(st.text(max_size=60))
@example("age,glucose,smoker\n" + "9" * 200_000)
@example("age,glucose,smoker\n\0,,")
def test_any_text_gives_a_cohort_or_a_decode_error(text: str) -> None:
    for source in (text, "age,glucose,smoker\n" + text):
        try:
            cohort = _schema().read_csv(source)
        except DecodeError:
            continue
        _schema().validate(cohort.values)


@given(st.lists(st.tuples(st.integers(18, 100), st.floats(20, 600), st.booleans()), min_size=1, max_size=5))
def test_numbers_written_in_full_read_back_exactly(rows: list[tuple[int, float, bool]]) -> None:
    text = "age,glucose,smoker\n" + "".join(f"{age},{glucose!r},{smoker}\n" for age, glucose, smoker in rows)
    assert _schema().read_csv(text).values.tolist() == [[float(value) for value in row] for row in rows]
