"""The box widget without a browser: boxes and points, history, errors, threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from medsam_helpers.errors import ConfigError, DataError, PromptError
from medsam_helpers.widgets import BoxPrompt

BOX = [[20, 10, 60, 30]]


def browser_sends(widget, **state):
    """What arrives when the canvas was touched: all traits in one message, as ipywidgets hands it over."""
    widget.set_state({"_request": widget._request + 1, **state})


def test_boxes_set_from_code_are_answered_when_the_assignment_returns(widget, truth):
    widget.boxes = np.array([[20, 10, 40, 30], [40, 10, 60, 30]], np.float32)
    assert widget.answer.masks.shape == (2, 60, 100)
    assert widget.answer.scores == pytest.approx([400 / 6000] * 2)
    assert np.array_equal(widget.mask, truth)
    assert widget.dice == 1.0
    assert repr(widget) == "BoxPrompt(blank, 100 x 60, fill: 2 boxes, 0 points)"


def test_points_reach_the_model_with_their_labels(widget):
    widget.prompt(boxes=[[0, 0, 2, 2]], points=[[50, 40, 1], [1, 1, 0]])
    assert (widget.mask[40, 50], widget.mask[1, 1], widget.mask[0, 0]) == (True, False, True)
    widget.prompt(points=[[5, 5, 0]])
    assert widget.mask is None
    assert "click on the lesion" in widget.status


def test_a_message_from_the_browser_is_one_question_answered_under_its_number(image, fill):
    asked = []
    widget = BoxPrompt(image, lambda *prompt: asked.append(prompt) or fill(*prompt))
    for _ in range(2):
        browser_sends(widget, boxes=BOX, points=[[3, 3, 1]])
        assert len(asked) == 1, "the same again is no new question"
    browser_sends(widget, boxes=BOX, points=[])
    assert (len(asked), widget._answer["request"]) == (2, 3)


@pytest.mark.parametrize("bad", [{"boxes": [[0, 0, 101, 9]]}, {"points": [[1, 1, 2]]}, {"points": [[100, 1, 1]]}])
def test_a_prompt_that_is_none_is_refused_and_changes_nothing(widget, bad):
    widget.boxes = BOX
    with pytest.raises(PromptError):
        widget.prompt(**bad)
    with pytest.raises(PromptError):
        setattr(widget, *next(iter(bad.items())))
    browser_sends(widget, **bad)
    assert widget.state == "error"
    assert (widget.boxes, widget.points, widget.dice) == (BOX, [], 1.0)


def test_undo_goes_back_one_change_at_a_time_and_clear_can_be_undone(widget):
    widget.boxes = BOX
    browser_sends(widget, boxes=[[0, 0, 10, 10]])
    widget.clear()
    assert (widget.boxes, widget.mask) == ([], None)
    widget.undo()
    assert widget.boxes == [[0, 0, 10, 10]]
    widget._handle_custom_msg({"do": "undo"}, [])  # Ctrl+Z on the canvas
    assert (widget.boxes, widget.dice) == (BOX, 1.0)
    widget.set_image(np.zeros((8, 9, 3), np.uint8), name="other")
    widget.undo()
    assert (widget.boxes, widget.mask, widget.name) == ([], None, "other"), "another image starts anew"


def test_an_error_of_the_model_is_shown_kept_and_overcome(image, fill):
    def fails(image, boxes, points):
        if boxes[0, 0] < 10:
            raise ValueError("no such place")
        return fill(image, boxes, points)

    widget = BoxPrompt(image, fails)
    browser_sends(widget, boxes=[[5, 5, 20, 20]])
    assert (widget.state, widget.status) == ("error", "fails: ValueError: no such place")
    assert widget._answer["layers"] == [None]
    with pytest.raises(ValueError, match="no such place"):
        widget.prompt(boxes=[[6, 5, 20, 20]])
    browser_sends(widget, boxes=[[50, 5, 60, 20]])
    assert (widget.state, widget.error) == ("ready", None)
    assert widget.mask.any()
    fill.prepare = lambda image: 1 / 0
    assert BoxPrompt(image, {"big": fill}).status == "big: encoding image: ZeroDivisionError: division by zero"


def test_changes_from_two_threads_take_turns_and_the_last_box_stays(image, fill):
    alone, overlaps = threading.Lock(), []

    def model(image, boxes, points):
        overlaps.append(not alone.acquire(blocking=False))
        threading.Event().wait(0.002)  # lets the other thread come in here, if it can
        alone.release()
        return fill(image, boxes, points)

    widget = BoxPrompt(image, model)

    def drag():
        for left in range(10):
            browser_sends(widget, boxes=[[left, 0, 50, 50]])

    with ThreadPoolExecutor(2) as both:
        list(both.map(lambda _: drag(), range(2)))
    assert not any(overlaps)
    assert (widget.boxes, widget.mask.sum()) == ([[9, 0, 50, 50]], 41 * 50)


def test_the_image_is_a_copy_so_that_its_embedding_stays_true(widget, image):
    assert not np.shares_memory(widget.image, image)
    assert not widget.image.flags.writeable


def test_what_is_no_image_or_no_model_is_refused(image, fill):
    with pytest.raises(DataError, match="uint8"):
        BoxPrompt(image / 255, fill)
    for none in ({}, {"a": 3}):
        with pytest.raises(ConfigError):
            BoxPrompt(image, none)
