"""Public schemas: what a patient record is, its ranges, its encoding (docs/spec/protocol.md, sections 2, 3 and 9).

A schema is public and its digest is bound into every commitment, certificate and attestation. It is the only thing
that the overflow check and the error bounds are derived from, so values outside its ranges are refused, never clipped.

Encoding rule, version 1, part of what the digest binds. For a feature with range [minimum, maximum]:

- `unit` (default): x' = (x - center) / half_width in IEEE doubles, both operations rounded to nearest, where center is
  the double nearest to (minimum + maximum) / 2 and half_width the smallest double that is not below
  max(maximum - center, center - minimum). Hence |x'| <= 1 exactly, for every value in the range: X_max = 1.
- `identity`: x' = x, and X_max = max(|minimum|, |maximum|).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import rfc8785
from numpy.typing import ArrayLike, NDArray

from privacy.errors import DecodeError, MissingDependency, UsageError

__all__ = [
    "MAX_FEATURES",
    "Cohort",
    "Encoding",
    "Feature",
    "FeatureType",
    "Schema",
    "breast_cancer_schema",
    "decode_canonical_json",
    "diabetes_schema",
]

FeatureType = Literal["number", "integer", "boolean"]
Encoding = Literal["unit", "identity"]

SCHEMA_FORMAT = "sealproof/schema/v1"
MAX_FEATURES = 4096
MAX_MAGNITUDE = 2.0**100
_MAX_SCHEMA_BYTES = 1 << 20
_SAFE_INTEGER = 2**53 - 1

_SCHEMA_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_UNIT = re.compile(r"[!-~]{1,60}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS = {"0": 0.0, "1": 1.0, "false": 0.0, "true": 1.0}


@dataclass(frozen=True)
class Feature:
    """One column of a patient record: a name, a UCUM unit (`1` when dimensionless), an inclusive range, a type.

    Raises UsageError when a field is not usable: the range must be finite, not empty and within +-2^100; a boolean has
    the range [0, 1]; an integer has integral ends.
    """

    name: str
    unit: str
    minimum: float
    maximum: float
    type: FeatureType = "number"
    encoding: Encoding = "unit"

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or name != name.strip() or not name.isprintable():
            raise UsageError(f"feature name {name!r} must be 1 to 200 printable characters, no space at either end")
        if not isinstance(self.unit, str) or not _UNIT.fullmatch(self.unit):
            raise UsageError(f"feature {name!r}: unit {self.unit!r} is not a UCUM string (use '1' for no unit)")
        if self.type not in get_args(FeatureType):
            raise UsageError(f"feature {name!r}: type {self.type!r} is not one of {', '.join(get_args(FeatureType))}")
        if self.encoding not in get_args(Encoding):
            raise UsageError(f"feature {name!r}: encoding {self.encoding!r} is not 'unit' or 'identity'")
        for end in ("minimum", "maximum"):
            value = getattr(self, end)
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if not (number and abs(value) <= MAX_MAGNITUDE):
                raise UsageError(f"feature {name!r}: {end} {value!r} is not a number within +-2^100")
            object.__setattr__(self, end, float(value))
        if not self.minimum < self.maximum:
            raise UsageError(f"feature {name!r}: range [{self.minimum}, {self.maximum}] is empty")
        if self.type == "boolean" and (self.minimum, self.maximum) != (0.0, 1.0):
            raise UsageError(f"feature {name!r}: a boolean has the range [0, 1]")
        if self.type == "integer" and not (self.minimum.is_integer() and self.maximum.is_integer()):
            raise UsageError(f"feature {name!r}: an integer's range [{self.minimum}, {self.maximum}] is not integral")

    @cached_property
    def center(self) -> float:
        """What the encoding subtracts; 0 for `identity`."""
        if self.encoding == "identity":
            return 0.0
        return float((Fraction(self.minimum) + Fraction(self.maximum)) / 2)

    @cached_property
    def half_width(self) -> float:
        """What the encoding divides by; 1 for `identity`."""
        if self.encoding == "identity":
            return 1.0
        center = Fraction(self.center)
        exact = max(Fraction(self.maximum) - center, center - Fraction(self.minimum))
        nearest = float(exact)
        return nearest if nearest >= exact else math.nextafter(nearest, math.inf)

    @property
    def encoded_bound(self) -> float:
        """X_max: no encoded value of this feature exceeds it in magnitude."""
        return 1.0 if self.encoding == "unit" else max(abs(self.minimum), abs(self.maximum))

    def problem(self, value: float) -> str | None:
        """Why `value` cannot be this feature's value, or None when it can."""
        if math.isnan(value) or math.isinf(value):
            return f"{value!r} is not a finite number"
        if not self.minimum <= value <= self.maximum:
            return f"{value!r} is outside the range [{self.minimum!r}, {self.maximum!r}] (unit {self.unit})"
        if self.type != "number" and not value.is_integer():
            return f"{value!r} is not {'0 or 1' if self.type == 'boolean' else 'an integer'}"
        return None


@dataclass(frozen=True, eq=False)
class Cohort:
    """Records of patients that satisfy a schema: `values[k]`, of shape (features,) in raw units, belongs to `ids[k]`.

    Secret: patient data in the clear. Made by `Schema.read_csv` and `Schema.cohort`; the array is read-only.
    """

    ids: tuple[str, ...]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Cohort({len(self.ids)} patients)"


@dataclass(frozen=True)
class Schema:
    """The public description of a record: a name, a version from 1 up, and the features in the order models use.

    Raises UsageError for an unusable name or version, no feature, more than 4096 of them, or two of one name.
    """

    name: str
    version: int
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _SCHEMA_NAME.fullmatch(self.name):
            raise UsageError(f"schema name {self.name!r} must be 1 to 100 of A-Z a-z 0-9 . _ - and start with no sign")
        if type(self.version) is not int or not 1 <= self.version <= 2**31:
            raise UsageError(f"schema version {self.version!r} must be an integer from 1 up")
        object.__setattr__(self, "features", tuple(self.features))
        if not 1 <= len(self.features) <= MAX_FEATURES:
            raise UsageError(f"a schema has 1 to {MAX_FEATURES} features, this one has {len(self.features)}")
        repeated = _repeated(self.names)
        if repeated:
            raise UsageError(f"schema {self.name!r}: feature names repeat: {_listed(repeated)}")

    @property
    def d(self) -> int:
        """Number of features."""
        return len(self.features)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Feature names, in order."""
        return tuple(feature.name for feature in self.features)

    # --- canonical form -------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `encode_json` serialises, to be embedded in other canonical documents."""
        return {
            "format": SCHEMA_FORMAT,
            "name": self.name,
            "version": self.version,
            "features": [
                {
                    "name": feature.name,
                    "unit": feature.unit,
                    "minimum": feature.minimum,
                    "maximum": feature.maximum,
                    "type": feature.type,
                    "encoding": feature.encoding,
                }
                for feature in self.features
            ],
        }

    def encode_json(self) -> bytes:
        """Canonical JSON (RFC 8785). Lossless: doubles are printed so that they read back exactly."""
        return rfc8785.dumps(self.to_json())

    @staticmethod
    def from_json(value: object) -> Schema:
        """The schema that a parsed JSON object describes. Raises DecodeError."""
        document = _object("schema", value, {"format", "name", "version", "features"})
        if document["format"] != SCHEMA_FORMAT:
            raise DecodeError("schema", f"format is {document['format']!r}, expected {SCHEMA_FORMAT!r}")
        if not isinstance(document["features"], list):
            raise DecodeError("schema", "features is not a list")
        fields = {"name", "unit", "minimum", "maximum", "type", "encoding"}
        try:
            features = tuple(Feature(**_object("schema feature", item, fields)) for item in document["features"])
            return Schema(document["name"], document["version"], features)
        except (UsageError, TypeError) as error:
            raise DecodeError("schema", str(error)) from error

    @staticmethod
    def decode_json(data: bytes) -> Schema:
        """The schema whose canonical encoding is exactly `data`. Raises DecodeError for anything else."""
        if len(data) > _MAX_SCHEMA_BYTES:
            raise DecodeError("schema", f"{len(data)} bytes, at most {_MAX_SCHEMA_BYTES}")
        return Schema.from_json(decode_canonical_json("schema", data))

    def digest(self) -> bytes:
        """SHA-256 of the canonical encoding: binds names, units, ranges, types and the encoding rule."""
        return hashlib.sha256(self.encode_json()).digest()

    # --- encoding of values ---------------------------------------------------------------------------------------

    def encoded_bound(self, i: int) -> float:
        """X_i,max: no encoded value of feature `i` exceeds it in magnitude."""
        return self.features[i].encoded_bound

    def validate(self, values: ArrayLike) -> NDArray[np.float64]:
        """`values` as float64 of shape (patients, features), raw units, after checking every one against the schema.

        Raises UsageError naming the first patient, feature, value and range that do not agree.
        """
        try:
            array = np.array(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UsageError(f"values are not numbers: {error}") from error
        if array.ndim != 2 or array.shape[1] != self.d:
            raise UsageError(f"values have shape {array.shape}, expected (patients, {self.d}) for schema {self.name!r}")
        minimum = np.array([feature.minimum for feature in self.features])
        maximum = np.array([feature.maximum for feature in self.features])
        integral = np.array([feature.type != "number" for feature in self.features])
        good = (array >= minimum) & (array <= maximum)  # false for NaN
        good &= ~integral | (np.floor(array) == array)
        if not good.all():
            k, i = (int(index) for index in np.argwhere(~good)[0])
            feature = self.features[i]
            raise UsageError(f"patient {k}, feature {feature.name!r}: {feature.problem(float(array[k, i]))}")
        return array

    def encode(self, values: ArrayLike) -> NDArray[np.float64]:
        """Encoded values x', shape (patients, features), |x'_i| <= X_i,max, by the rule of this module.

        Raises UsageError for any value outside the schema.
        """
        array = self.validate(values)
        center = np.array([feature.center for feature in self.features])
        half_width = np.array([feature.half_width for feature in self.features])
        return cast("NDArray[np.float64]", (array - center) / half_width)

    # --- reading --------------------------------------------------------------------------------------------------

    def cohort(self, values: ArrayLike, ids: Sequence[str] | None = None) -> Cohort:
        """A cohort from an array in feature order; `ids` default to "1", "2", ... Raises UsageError."""
        array = self.validate(values)
        array.flags.writeable = False
        names = tuple(str(k + 1) for k in range(len(array))) if ids is None else tuple(ids)
        if not names:
            raise UsageError("a cohort has at least one patient")
        if len(names) != len(array):
            raise UsageError(f"{len(names)} ids for {len(array)} patients")
        if not all(isinstance(name, str) and name for name in names):
            raise UsageError("an id is empty or not a string")
        repeated = _repeated(names)
        if repeated:
            raise UsageError(f"ids repeat: {_listed(repeated)}")
        return Cohort(names, array)

    def read_csv(self, source: Path | str, *, id_column: str | None = None) -> Cohort:
        """Read a cohort from comma-separated text with a header line, columns in any order.

        `source` is a `Path` to a UTF-8 file, or the text itself. One more column than the features may hold the ids:
        `id_column`, or else a column called `id`; without one, ids are "1", "2", ...

        Raises DecodeError naming row (counted from 1 below the header), line and column for: a missing, unknown or
        repeated column; a missing value; something that is not a number, is not finite, not of the feature's type or
        outside its range; an empty or repeated id; a row of the wrong length; no row at all. Raises UsageError for a
        file that cannot be read.
        """
        if id_column in self.names:
            raise UsageError(f"id column {id_column!r} is a feature of schema {self.name!r}")
        lines = _csv_rows(source)
        header = [name.strip() for name in next(lines, (0, []))[1]]
        id_name = id_column if id_column is not None else "id"
        has_ids = id_name in header and id_name not in self.names
        self._check_header(header, {id_name} if has_ids or id_column is not None else set())
        ids: dict[str, int] = {}
        rows: list[list[float]] = []
        for row, (line, cells) in enumerate(lines, start=1):
            where = f"CSV row {row} (line {line})"
            if len(cells) != len(header):
                raise DecodeError(where, f"{len(cells)} cells, the header has {len(header)}")
            record = dict(zip(header, cells, strict=True))
            patient = record[id_name].strip() if has_ids else str(row)
            if not patient:
                raise DecodeError(f"{where}, column {id_name!r}", "the id is empty")
            if patient in ids:
                raise DecodeError(
                    f"{where}, column {id_name!r}", f"id {patient!r} is also the id of row {ids[patient]}"
                )
            ids[patient] = row
            rows.append([_cell(feature, record[feature.name], where) for feature in self.features])
        if not rows:
            raise DecodeError("CSV", "no patient rows (pass a pathlib.Path to read a file, a string is taken as text)")
        return self.cohort(rows, tuple(ids))

    def _check_header(self, header: list[str], extra: set[str]) -> None:
        wanted = set(self.names) | extra
        for problem, names in (
            ("repeated", _repeated(header)),
            ("missing", [name for name in (*sorted(extra), *self.names) if name not in header]),
            ("unknown", [name for name in header if name not in wanted]),
        ):
            if names:
                raise DecodeError("CSV header", f"{problem} column(s) for schema {self.name!r}: {_listed(names)}")

    # --- deriving -------------------------------------------------------------------------------------------------

    @staticmethod
    def from_data(
        name: str,
        version: int,
        feature_names: Sequence[str],
        values: ArrayLike,
        *,
        margin: float,
        units: Sequence[str] | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        types: Mapping[str, FeatureType] | None = None,
        encoding: Encoding = "unit",
    ) -> Schema:
        """A schema whose ranges contain `values` (patients, features), widened by `margin` of the spread on each side.

        Ends are rounded outward to two figures of the spread; quantities never seen negative keep a minimum of 0 or
        more. `ranges` and `types` override feature by feature.
        The result is public and tells roughly the extremes of `values`: derive it from published data or write clinical
        ranges by hand, not from a secret cohort. Raises UsageError.
        """
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != len(feature_names) or not array.size or not np.isfinite(array).all():
            raise UsageError(f"values must be finite, not empty, of shape (patients, {len(feature_names)})")
        if not 0 <= margin <= 100:
            raise UsageError(f"margin {margin!r} must be from 0 to 100 times the spread of the data")
        if units is not None and len(units) != len(feature_names):
            raise UsageError(f"{len(units)} units for {len(feature_names)} features")
        ranges, types = ranges or {}, types or {}
        unknown = [name for name in (*ranges, *types) if name not in feature_names]
        if unknown:
            raise UsageError(f"ranges or types for unknown features: {_listed(unknown)}")
        features = []
        for i, feature_name in enumerate(map(str, feature_names)):
            kind = types.get(feature_name, "number")
            low, high = ranges.get(feature_name) or _outward(array[:, i], margin, kind)
            unit = "1" if units is None else units[i]
            features.append(Feature(feature_name, unit, low, high, kind, encoding))
        schema = Schema(name, version, tuple(features))
        schema.validate(array)
        return schema


def decode_canonical_json(what: str, data: bytes) -> object:
    """Parse `data` and demand that it is the RFC 8785 form of what it says. Raises DecodeError, and nothing else."""
    try:
        value = json.loads(data.decode("utf-8"), parse_int=_json_integer)
        canonical = rfc8785.dumps(value)
    except (ValueError, RecursionError) as error:
        raise DecodeError(what, f"not canonical JSON: {error}") from error
    if canonical != data:
        raise DecodeError(what, "not canonical JSON (RFC 8785): keys, spacing, numbers or escapes differ")
    return cast("object", value)


def breast_cancer_schema() -> Schema:
    """Schema of scikit-learn's breast_cancer data (30 features of cell nuclei), derived when called."""
    bunch = _sklearn_datasets().load_breast_cancer()
    return Schema.from_data("breast-cancer", 1, [str(n) for n in bunch.feature_names], bunch.data, margin=0.1)


def diabetes_schema() -> Schema:
    """Schema of scikit-learn's diabetes data in physical units (`load_diabetes(scaled=False)`), derived when called."""
    bunch = _sklearn_datasets().load_diabetes(scaled=False)
    units = {"age": "a", "bmi": "kg/m2", "bp": "mm[Hg]", "s1": "mg/dL", "s2": "mg/dL", "s3": "mg/dL", "s6": "mg/dL"}
    names = [str(name) for name in bunch.feature_names]
    return Schema.from_data(
        "diabetes",
        1,
        names,
        bunch.data,
        margin=0.25,
        units=[units.get(name, "1") for name in names],
        ranges={"sex": (1, 2)},
        types={"sex": "integer"},
    )


def _sklearn_datasets() -> Any:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingDependency("scikit-learn", "models") from error
    return datasets


def _json_integer(text: str) -> int | float:
    # Past 2^53 a JSON number means the nearest double (RFC 8785), and its canonical text is that of the double.
    if len(text) <= 17 and abs(int(text)) <= _SAFE_INTEGER:
        return int(text)
    return float(text)


def _object(what: str, value: object, fields: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != fields:
        raise DecodeError(what, f"expected an object with exactly the fields {_listed(sorted(fields))}")
    return value


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _csv_rows(source: Path | str) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line that is not blank."""
    try:
        text = source.read_bytes().decode("utf-8") if isinstance(source, Path) else source
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DecodeError("CSV", f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DecodeError(f"CSV line {reader.line_num}", str(error)) from error


def _cell(feature: Feature, text: str, where: str) -> float:
    what = f"{where}, column {feature.name!r}"
    stripped = text.strip()
    if stripped == "":
        raise DecodeError(what, "the value is missing")
    if feature.type == "boolean" and stripped.lower() in _BOOLEANS:
        return _BOOLEANS[stripped.lower()]
    # Narrower than float(): no nan, no inf, no underscores, no digits of other scripts.
    if not _NUMBER.fullmatch(stripped):
        raise DecodeError(what, f"{stripped[:40]!r} is not a number (decimal point, no thousands separators)")
    value = float(stripped)
    problem = feature.problem(value)
    if problem is not None:
        raise DecodeError(what, problem)
    return value


def _outward(column: NDArray[np.float64], margin: float, kind: FeatureType) -> tuple[float, float]:
    """The range of `column`, widened by `margin` of its spread, rounded outward to two figures of the spread."""
    if kind == "boolean":
        return 0.0, 1.0
    low, high = Fraction(float(column.min())), Fraction(float(column.max()))
    spread = high - low or max(abs(high), Fraction(1))
    widened_low, widened_high = low - Fraction(margin) * spread, high + Fraction(margin) * spread
    if low >= 0:
        widened_low = max(widened_low, Fraction(0))
    step = Fraction(10) ** (Decimal(float(spread)).adjusted() - 1)
    if kind == "integer":
        step = max(step, Fraction(1))
    first, last = math.floor(widened_low / step), math.ceil(widened_high / step)
    return float(first * step), float((last if last > first else first + 1) * step)
