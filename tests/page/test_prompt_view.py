"""How a prompt is read, shown while it is written."""

from __future__ import annotations

import httpx
import pytest

from browser import Ui
from serving import Server

pytestmark = [pytest.mark.processes, pytest.mark.page]


def marks(ui: Ui, kind: str) -> list[str]:
    return ui.find(f"#prompt-marks mark.{kind}").all_text_contents()


def test_weights_are_colours_at_their_place(ui: Ui) -> None:
    ui.read_prompt("a 🦊 (red:1.3) fox, [dull] snow and (very (deep:1.5) blue)")
    assert marks(ui, "stronger") == ["red", "very ", "deep", " blue"]
    assert marks(ui, "weaker") == ["dull"]
    colours = {
        word: ui.find("#prompt-marks mark", has_text=word).evaluate(
            "one => getComputedStyle(one).backgroundColor"
        )
        for word in ("red", "dull", "deep")
    }
    assert len(set(colours.values())) == 3
    # They lie behind the same words: the backdrop has the text itself, wrapped as it is.
    assert (
        ui.find("#prompt-marks").text_content().rstrip("\u200b") == ui.find("#prompt").input_value()
    )


def test_marks_stand_where_the_words_of_the_text_field_stand(ui: Ui) -> None:
    """The backdrop wraps as the field does, with a scroll bar too: both have one height."""
    for prompt in ("(a:1.2) " + "some words that wrap, " * 20, "long\n" * 60 + "(end:1.2)"):
        ui.read_prompt(prompt)
        sizes = ui.page.evaluate(
            """() => ["prompt", "prompt-marks"].map((id) => {
                const node = document.getElementById(id);
                return [node.clientWidth, node.scrollHeight];
            })"""
        )
        assert sizes[0][0] == sizes[1][0]
        assert abs(sizes[0][1] - sizes[1][1]) <= 2
    ui.find("#prompt").evaluate("one => { one.scrollTop = one.scrollHeight; }")
    ui.page.wait_for_timeout(100)
    tops = ui.page.evaluate(
        """() => ["prompt", "prompt-marks"].map((id) => document.getElementById(id).scrollTop)"""
    )
    assert abs(tops[0] - tops[1]) <= 2
    assert tops[0] > 0


def test_chunks_have_borders_and_counts(ui: Ui, server: Server) -> None:
    prompt = "one two three, " * 40 + "BREAK last"
    ui.read_prompt(prompt)
    read = httpx.post(f"{server.url}/inspect_prompt", json={"prompt": prompt}).json()["prompt"]
    windows = read["windows"]
    assert ui.find("#prompt-marks .border").count() == len(windows) - 1 >= 2
    assert ui.find("#prompt-count").text_content() == (
        f"{read['token_count']} tokens in {len(windows)} chunks"
    )
    counts = ui.find("#prompt-read .chunk-count").all_text_contents()
    assert counts == [f"{n}: {one['token_count']} of 75" for n, one in enumerate(windows, 1)]
    before = ui.find("#prompt-marks .border").first.evaluate(
        """border => {
            const range = document.createRange();
            range.setStart(border.parentElement, 0);
            range.setEndBefore(border);
            return range.toString();
        }"""
    )
    assert before == prompt[: windows[1]["start"]]
    assert marks(ui, "break") == ["BREAK"]


def test_a_schedule_is_shown_over_the_steps(ui: Ui) -> None:
    ui.set(prompt_style="a1111", num_inference_steps=10)
    ui.read_prompt("a [red:blue:0.4] (fox:1.2) [by day|by night] AND snow :0.6")
    ui.find("#prompt-reading summary").click()
    assert ui.find(".timeline .segment").count() == 10
    rows = {
        row.locator(".text-words").text_content(): row.locator(".text-steps").text_content()
        for row in ui.find(".text-row").all()
    }
    assert rows == {
        "a red (fox:1.2) by day": "1, 3",
        "a red (fox:1.2) by night": "2, 4",
        "a blue (fox:1.2) by day": "5, 7, 9",
        "a blue (fox:1.2) by night": "6, 8, 10",
        "snow": "1 to 10, times 0.6",
    }
    ui.find(".text-row").nth(4).click()
    assert marks(ui, "stronger") == []  # of this text alone
    assert ui.find(".text-row").nth(4).get_attribute("aria-pressed") == "true"


def test_warnings_stand_at_their_prompt_and_in_it(ui: Ui) -> None:
    ui.read_prompt("a (red fox <lora:absent:1>")
    warnings = ui.find("#prompt-warnings li").all_text_contents()
    assert any(
        one.startswith("no image is made of it: No LoRA is named 'absent'") for one in warnings
    )
    assert any("never closed" in one for one in warnings)
    assert marks(ui, "warning") == ["("]
    assert ui.find("#negative_prompt-warnings li").count() == 0


def test_the_style_changes_the_reading(ui: Ui) -> None:
    ui.read_prompt("a [cat|dog]")
    assert marks(ui, "weaker") == ["cat|dog"]
    ui.set(prompt_style="a1111")
    ui.wait_for_reading()
    assert ui.find("#prompt-read .schedule").count() == 1
    assert marks(ui, "weaker") == []


def test_a_burst_of_keys_is_one_question(ui: Ui) -> None:
    before = sum(url.endswith("/inspect_prompt") for url in ui.requests)
    ui.find("#prompt").press_sequentially("a long sentence that is typed", delay=15)
    ui.wait_for_reading()
    assert sum(url.endswith("/inspect_prompt") for url in ui.requests) - before <= 2


def test_marks_move_along_until_the_server_has_read_the_change(ui: Ui) -> None:
    """The pure part: what is before and behind a change stays at its word."""
    cases = [
        ("a (red:1.2) fox", "a very (red:1.2) fox", [3, 6], [8, 11]),
        ("a (red:1.2) fox", "a (red:1.2) fox too", [3, 6], [3, 6]),
        ("a (red:1.2) fox", "a (dark red:1.2) fox", [3, 6], [8, 11]),
        ("a (red:1.2) fox", "a (reddish:1.2) fox", [3, 6], [3, 6]),
        ("a (dark red:1.2) fox", "a (dark blood red:1.2) fox", [3, 11], [3, 17]),
        ("a (red:1.2) fox", "a fox", [3, 6], None),
    ]
    for before, after, place, expected in cases:
        moved = ui.page.evaluate(
            """async ([before, after, [start, end]]) => {
                const { moved } = await import("/ui/marks.js");
                return moved([{ start, end }], before, after).map((one) => [one.start, one.end]);
            }""",
            [before, after, place],
        )
        assert moved == ([] if expected is None else [expected]), (before, after)


def test_loras_are_chips_with_weights(ui: Ui) -> None:
    bodies = ui.record_streams()
    ui.write("a red circle")
    ui.set(num_inference_steps=2)
    for name in ("demo-frame", "demo-pastel"):
        ui.find("#addon").fill(name)
        ui.page.keyboard.press("Enter")
    ui.page.get_by_label("Weight of demo-frame").fill("0.6")
    ui.page.get_by_label("Weight of demo-frame").press("Tab")
    ui.draw()
    ui.button("Remove demo-pastel").click()
    ui.draw()
    assert [body["loras"] for body in bodies] == [
        [{"name": "demo-frame", "weight": 0.6}, {"name": "demo-pastel", "weight": 1}],
        [{"name": "demo-frame", "weight": 0.6}],
    ]
    assert "<lora:demo-frame:0.6>" in ui.find(".parameters pre").text_content()


def test_tags_and_embeddings_of_the_prompt_are_chips_that_change_it(ui: Ui) -> None:
    prompt = ui.find("#prompt")
    ui.write("a circle")
    ui.find("#addon").fill("midnight")
    ui.page.keyboard.press("Enter")
    assert prompt.input_value() == "a circle, demo-midnight-sun"
    weight = ui.page.get_by_label("Weight of demo-midnight-sun")
    for number, expected in (
        ("1.2", "a circle, (demo-midnight-sun:1.2)"),
        ("1", "a circle, demo-midnight-sun"),
    ):
        ui.wait_for_reading()
        weight.fill(number)
        weight.press("Tab")
        assert prompt.input_value() == expected
    ui.read_prompt("a 🦊 <lora:demo-frame:0.5>, demo-midnight-sun, end")
    weight = ui.page.get_by_label("Weight of demo-frame")
    weight.fill("0.8")
    weight.press("Tab")
    assert prompt.input_value() == "a 🦊 <lora:demo-frame:0.8>, demo-midnight-sun, end"
    ui.wait_for_reading()
    ui.button("Remove demo-midnight-sun").click()
    assert prompt.input_value() == "a 🦊 <lora:demo-frame:0.8>, end"
