"""The stand-alone verifier: it takes what is right, names what is wrong, and imports nothing of the project."""

import ast
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit import verifier
from apps.audit.keys import SigningKey, sign_note
from apps.audit.verifier import (
    Checkpoint,
    Frontier,
    Verifier,
    Wrong,
    canonical_json,
    event_leaf,
    main,
    open_checkpoint,
    open_note,
)

KEY, OTHER = SigningKey.make("log"), SigningKey.make("log")


def exported(count: int) -> list[dict[str, Any]]:
    events = []
    for number in range(count):
        event: dict[str, Any] = {
            "id": f"e{number}",
            "reason": "\u00e9 \u2028",
            "payload": {"b": "1", "a": [None, True]},
        }
        events.append({"index": number, **event, "leaf": event_leaf(event).hex()})
    return events


def signed(events: list[dict[str, Any]], *keys: SigningKey) -> str:
    frontier = Frontier()
    for event in events:
        frontier.append(event_leaf(event))
    return sign_note(Checkpoint("log", frontier.size, frontier.root(), ("time now",)).text, *(keys or (KEY,)))


def files(folder: Path, events: list[dict[str, Any]], note: str) -> tuple[str, str]:
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "note.txt").write_text(note)
    return str(folder / "events.jsonl"), str(folder / "note.txt")


def test_it_is_one_file_that_needs_only_python_and_cryptography() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).split(".")[0])

    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


class TestEvents:
    def run(self, folder: Path, events: list[dict[str, Any]], note: str, key: SigningKey = KEY) -> int:
        given_events, given_note = files(folder, events, note)
        return main(["events", given_events, "--note", given_note, "--key", str(key.verifier)])

    def test_a_whole_export_is_checked_against_a_note(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        events = exported(300)

        assert self.run(tmp_path, events, signed(events)) == 0
        assert capsys.readouterr().out == "right: all 300 events are as they were signed\n"

    def test_an_export_may_go_on_behind_the_note(self, tmp_path: Path) -> None:
        events = exported(30)

        assert self.run(tmp_path, events, signed(events[:20])) == 0

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda events: events[3].update(reason="never"), "event e3 does not have its leaf"),
            (lambda events: events[3].update(leaf="00" * 32), "event e3 does not have its leaf"),
            (lambda events: events[3].update(added="x"), "event e3 does not have its leaf"),
            (lambda events: events.pop(3), "event 3 is missing"),
            (lambda events: events.pop(), "the export ends after 29 of 30 events"),
            (lambda events: events.insert(3, events[7]), "event 3 is missing"),
            (lambda events: events.reverse(), "event 0 is missing"),
        ],
    )
    def test_what_was_changed_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, said: str
    ) -> None:
        events = exported(30)
        note = signed(events)
        change(events)

        assert self.run(tmp_path, events, note) == 1
        assert said in capsys.readouterr().out

    def test_an_event_that_was_replaced_with_its_leaf_breaks_the_root(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        events = exported(30)
        note = signed(events)
        events[3]["reason"] = "never"
        events[3]["leaf"] = event_leaf(events[3]).hex()

        assert self.run(tmp_path, events, note) == 1
        assert "do not have the signed root" in capsys.readouterr().out

    def test_another_key_is_not_trusted(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        events = exported(3)

        assert self.run(tmp_path, events, signed(events), OTHER) == 1
        assert "no key that you trust" in capsys.readouterr().out

    @pytest.mark.parametrize("line", ["{", "[]", "3", '"text"', "null"])
    def test_a_line_that_is_no_event_is_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
    ) -> None:
        events = exported(3)
        given_events, given_note = files(tmp_path, events, signed(events))
        Path(given_events).write_text(line + "\n")

        assert main(["events", given_events, "--note", given_note, "--key", str(KEY.verifier)]) == 1
        assert "line 1 is not an event" in capsys.readouterr().out


class TestNotes:
    def test_several_signatures_are_told(self) -> None:
        note = signed(exported(3), KEY, OTHER)

        assert open_note(note, [KEY.verifier, OTHER.verifier])[1] == [KEY.verifier, OTHER.verifier]
        assert open_checkpoint(note, [OTHER.verifier]).size == 3

    def test_a_false_signature_of_a_known_key_is_refused_even_beside_a_right_one(self) -> None:
        note = signed(exported(3), KEY, OTHER)
        head, _, last = note.rstrip("\n").rpartition(" ")
        false = last[:12] + ("A" if last[12] != "A" else "B") + last[13:]

        with pytest.raises(Wrong, match="is false"):
            open_note(f"{head} {false}\n", [KEY.verifier, OTHER.verifier])

    @given(st.text(max_size=200))
    def test_any_other_text_is_refused_without_a_fault(self, text: str) -> None:
        with pytest.raises(Wrong):
            open_checkpoint(text, [KEY.verifier])

    @given(st.data())
    def test_no_changed_character_of_the_text_passes(self, data: st.DataObject) -> None:
        note = signed(exported(3))
        text = note.split("\n\n")[0]
        place = data.draw(st.integers(0, len(text) - 1))
        letter = data.draw(st.characters(codec="utf-8").filter(lambda letter: letter != text[place]))

        with pytest.raises(Wrong):
            open_checkpoint(note[:place] + letter + note[place + 1 :], [KEY.verifier])

    @pytest.mark.parametrize("text", ["", "log", "log+", "log+00000000+AAAA", "+1+2", "a" * 10_000, "log+zz+!!"])
    def test_what_is_no_verifier_is_refused(self, text: str) -> None:
        with pytest.raises(Wrong, match="is not a verifier"):
            Verifier.parse(text)

    @pytest.mark.parametrize("text", ["log\n", "log\nx\nAAAA\n", "log\n-1\nAAAA\n", "log\n01\n" + "A" * 43 + "=\n"])
    def test_what_is_no_checkpoint_is_refused(self, text: str) -> None:
        with pytest.raises(Wrong, match="not a checkpoint"):
            Checkpoint.parse(text)


class TestCommand:
    def run(self, folder: Path, text: str, what: str, *words: str) -> int:
        (folder / "given").write_text(text)
        return main([what, str(folder / "given"), "--key", str(KEY.verifier), *words])

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"checkpoint": 3}', '{"from_checkpoint": "x"}', "{"])
    def test_what_is_no_proof_is_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
        assert self.run(tmp_path, text, "proof") == 1
        assert capsys.readouterr().out.startswith("WRONG: ")

    def test_a_note_tells_who_signed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, signed(exported(1)), "note", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"right": True, "said": f"signed by {KEY.verifier}"}

    def test_a_report_is_checked_against_its_note(self, tmp_path: Path) -> None:
        content = '{"kind":"access"}\n'
        statement = {"kind": "access", "size": 3, "sha256": hashlib.sha256(content.encode()).hexdigest()}
        note = sign_note(f"log\nreport\n{canonical_json(statement).decode()}\n", KEY)
        (tmp_path / "note").write_text(note)

        assert self.run(tmp_path, content, "report", "--note", str(tmp_path / "note")) == 0
        assert self.run(tmp_path, content + " ", "report", "--note", str(tmp_path / "note")) == 1

    def test_events_without_a_note_are_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(tmp_path, "", "events") == 1
        assert "--note FILE" in capsys.readouterr().out

    def test_a_file_that_cannot_be_read_is_wrong_use(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["proof", str(tmp_path / "absent"), "--key", str(KEY.verifier)])
