"""A finger that draws digits in a browser's page, touch by touch."""

from typing import Any

Strokes = list[list[tuple[float, float]]]

DIGITS: dict[int, Strokes] = {
    # In shares of the pad's sides, as people draw them.
    0: [[(0.5, 0.15), (0.3, 0.35), (0.3, 0.65), (0.5, 0.85), (0.7, 0.65), (0.7, 0.35), (0.5, 0.15)]],
    1: [[(0.4, 0.25), (0.55, 0.12), (0.55, 0.88)]],
    2: [[(0.3, 0.3), (0.5, 0.13), (0.7, 0.3), (0.6, 0.5), (0.3, 0.85), (0.72, 0.85)]],
    3: [[(0.32, 0.2), (0.55, 0.13), (0.68, 0.3), (0.48, 0.47), (0.7, 0.66), (0.55, 0.86), (0.3, 0.8)]],
    4: [[(0.35, 0.15), (0.3, 0.5), (0.7, 0.5)], [(0.65, 0.15), (0.65, 0.88)]],
    7: [[(0.3, 0.15), (0.7, 0.15), (0.45, 0.88)]],
}


def draw(page: Any, digit: int, *, slant: float = 0.0) -> None:
    """Draw a digit on the phone's page and say which one it is; `slant` leans it to the right."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    finger = page.context.new_cdp_session(page)
    for stroke in DIGITS[digit]:
        for kind, points in (("touchStart", stroke[:1]), *(("touchMove", [each]) for each in stroke[1:])):
            at = [
                {"x": box["x"] + (x + slant * (0.5 - y)) * box["width"], "y": box["y"] + y * box["height"]}
                for x, y in points
            ]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    finger.detach()
    # Where touches are dispatched one by one, Chromium makes no click of Playwright's own taps any more.
    page.locator("#labels button").nth(digit).click()
