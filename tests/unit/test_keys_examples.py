"""The examples of specs/crypto.md: they hold, and the program computes the same."""

from __future__ import annotations

import doctest
import pathlib
import re

import pytest
from blake3 import blake3

from vimgvc.codec import aead, keys, recovery, sealing, segment, slots

PAGE = (pathlib.Path(__file__).parents[2] / "specs" / "crypto.md").read_text()
EXAMPLES = re.findall(r"^```python-example\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
IMPORTS = {"blake3", "cryptography", "json", "struct"}
ROOT, REPO = bytes(range(32)), bytes(range(16))


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_hold(number: int) -> None:
    """Every example, run by itself, gives the output that is printed below it."""
    example = doctest.DocTestParser().get_doctest(EXAMPLES[number], {}, f"example {number + 1}", "crypto.md", 0)
    assert example.examples
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=report.append)
    assert "".join(report) == ""


def test_examples_need_little() -> None:
    """Every part with bytes has its example, and none imports more than two libraries and the standard one."""
    imported = re.findall(r">>> (?:from|import) (\w+)", "".join(EXAMPLES))
    assert set(imported) == IMPORTS
    assert len(EXAMPLES) == 8


def made_by_the_program() -> dict[str, str]:
    """What the package makes of the inputs of the examples."""
    purpose = keys.PurposeKeys(ROOT)
    seals = sealing.Sealing(purpose, REPO, lambda size: b"\xaa" * size)
    data = bytes(4095) + b"\x01"
    identifier = seals.chunk_id(data)
    # the example leaves out compression and takes a nonce that is not random
    associated = segment.Shape(segment.DATA, 0, 4096, 4124).associated(REPO, identifier)
    sealed = memoryview(bytearray(len(data) + aead.TAG_SIZE))
    aead.seal_into(blake3(associated, key=purpose.segment).digest(), bytes(range(12)), data, associated, sealed)
    index = seals.seal(aead.INDEX, b"what an index holds")
    slot = slots.make_slot(
        keys.Secret("keyfile", bytes(range(100, 164))),
        ROOT,
        b'{"a":"configuration"}',
        label="",
        created="2026-01-02T03:04:05Z",
        rng=lambda size: b"\xaa" * size,
    )
    return {
        "chunk key": purpose.chunk.hex(),
        "fingerprint": purpose.fingerprint,
        "blind": seals.blind("branch", "vm"),
        "chunk": identifier.hex(),
        "segment tag": bytes(sealed[-16:]).hex(),
        "salt": index[8:40].hex(),
        "sealed object": index[-32:].hex(),
        "slot": slots.describe_slot(slot).id,
        "slot checksum": slot[13:77].decode(),
        "argon2id": keys.stretch_passphrase("Grüße".encode(), bytes(32), keys.CHEAPEST).hex()[:32],
        "recovery code": recovery.format_code(bytes(range(200, 220))),
    }


def test_the_program_computes_what_the_examples_show() -> None:
    """Each result of the examples is what the package makes of the same inputs."""
    shown = "".join(EXAMPLES)
    assert {name: value for name, value in made_by_the_program().items() if f"'{value}'" not in shown} == {}
