"""Reading the document of an exported file: damaged files, JSON that is not accepted, and a fuzzer."""

import json
import os

import pytest
import safetensors
import safetensors.torch
import torch as th
from exports import with_document, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sb3_mirl import MIRL, load_prior
from sb3_mirl.cli.main import main
from sb3_mirl.cli.prior import diagnose
from sb3_mirl.common.text import printable
from sb3_mirl.mirl.priors import inspect_file


def test_damaged_files_are_refused(exported, tmp_path, capsys):
    whole = exported.read_bytes()
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": th.zeros(1)}, other)
    with pytest.raises(ValueError, match="was not written by sb3_mirl's export"):
        MIRL.load_exported(other)
    for content in (b"", b"x" * 1000, whole[:100], whole[:-1], whole + b"x", b"PK\x03\x04" + whole):
        exported.write_bytes(content)
        with pytest.raises(ValueError, match="is not a safetensors file, or damaged"):
            MIRL.load_exported(exported)
        assert main(["inspect", str(exported)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        MIRL.load_exported(tmp_path / "none")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 5000, str(2**64)])
def test_numbers_that_are_no_json_or_too_large_are_refused(number, bytes_of_export, tmp_path):
    def change(text):
        return text.replace('"gamma": 0.99', f'"gamma": {number}')

    (tmp_path / "a.safetensors").write_bytes(with_document(bytes_of_export, change))
    with pytest.raises(ValueError, match=r"is not JSON: (integers|numbers) must"):
        MIRL.load_exported(tmp_path / "a.safetensors")


def test_duplicate_key_is_refused(bytes_of_export, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_document(bytes_of_export, lambda text: text[:-1] + ', "format": "sb3_mirl"}'))
    with pytest.raises(ValueError, match="a key is there twice"):
        MIRL.load_exported(path)
    path.write_bytes(with_header(bytes_of_export, lambda header: header.replace(b"{", b'{"__metadata__":{},', 1)))
    with pytest.raises(ValueError, match="a key is there twice"):
        MIRL.load_exported(path)


@pytest.mark.parametrize("function", [MIRL.load_exported, inspect_file, load_prior])
def test_pipes_and_folders_are_refused_at_once(function, exported, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match="must be a file, and is a pipe, socket or device"):
            function(tmp_path / name)
    with pytest.raises(ValueError, match="must be a file, and is a folder"):
        function(tmp_path)
    for name in ("loop", "none"):
        with pytest.raises((ValueError, FileNotFoundError), match=r"[Tt]here is no file"):
            function(tmp_path / name)
    (tmp_path / "good").symlink_to(exported)
    function(tmp_path / "good")


def places(value, place=()):
    """Where in JSON there is a value: keys and positions, from the outermost in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, child in inner for found in places(child, (*place, key)))]


def check_refused_or_whole(path, content):
    """Whatever a file holds: it is loaded, or refused with ValueError and a message that fits on a screen."""
    path.write_bytes(content)
    for function in (lambda path: MIRL.load_exported(path, device="cpu"), inspect_file, diagnose):
        try:
            function(path)
        except ValueError as error:
            assert str(error) and len(str(error)) < 2000 and printable(error) == str(error)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from(
        [2**31, 2**62, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400, 1e-320, 1e308, "inf", "nan", "f4,(", "\x1b[2J"]
    ),
    st.floats(),
    st.text(max_size=5),
)


KINDS_OF_OBJECTS = ["tuple", "dict", "number", "array", "class", "schedule", "Box", "Dict", "Discrete", "MultiBinary", "shape"]


NAMES = ["torch.nn.Transformer", "torch.nn.ReLU", "torch.optim.LBFGS", "sb3_mirl.mirl.policies.CnnPolicy"]


ARRAY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["float32", "float64", "int8", "O", "f4,(", "V10"]),
        "shape": st.lists(st.sampled_from([0, 1, 3, 2**20, 2**40, -1]), max_size=3),
        "values": SCALARS | st.lists(SCALARS, max_size=3),
    }
)


VALUES = st.recursive(
    SCALARS | st.sampled_from(NAMES) | ARRAY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KINDS_OF_OBJECTS) | st.text(max_size=3), inner, max_size=2)
        | st.sampled_from(NAMES).map(lambda name: {"class": name})
    ),
    max_leaves=8,
)


FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
def test_any_value_anywhere_in_the_document_is_refused_or_read(data, bytes_of_export, tmp_path):
    def change(text):
        document = json.loads(text)
        for _ in range(data.draw(st.integers(1, 2))):
            *outer, last = data.draw(st.sampled_from(places(document)[1:]))
            part = document
            for key in outer:
                part = part[key]
            part[last] = data.draw(VALUES)
        return json.dumps(document)

    check_refused_or_whole(tmp_path / "model.safetensors", with_document(bytes_of_export, change))


@FUZZED
@given(data=st.data())
def test_any_value_in_the_header_is_refused_or_read(data, bytes_of_export, tmp_path):
    def change(header):
        header = json.loads(header)
        tensor = data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
        other = data.draw(st.sampled_from(sorted(header)))
        field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "whole", "name"]))
        if field == "whole":
            header[tensor] = header[other]
        elif field == "name":
            header[data.draw(st.text(max_size=5))] = header.pop(tensor)
        else:
            dtypes = st.sampled_from(["F32", "F64", "I8", "F4", "F8_E4M3", "BF16", "x"])
            numbers = st.lists(st.sampled_from([0, 1, 8, 2**20, 2**62, 2**64, -1, 1.5]), max_size=3)
            header[tensor][field] = data.draw(dtypes if field == "dtype" else numbers)
        return json.dumps(header).encode()

    check_refused_or_whole(tmp_path / "model.safetensors", with_header(bytes_of_export, change))


@FUZZED
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), length=st.none() | st.integers(0, 2**64 - 1))
def test_a_flipped_bit_or_a_wrong_length_is_refused_or_read(position, bit, length, bytes_of_export, tmp_path):
    content = bytearray(bytes_of_export)
    # Of the header: in the weights it makes another weight
    content[int(position * (8 + int.from_bytes(content[:8], "little")))] ^= 1 << bit
    if length is not None:
        content[:8] = length.to_bytes(8, "little")
    check_refused_or_whole(tmp_path / "model.safetensors", bytes(content))
