"""The page in a real browser, at a phone's size and with a finger, against real servers."""

from collections.abc import Callable

import pytest

from .browsing import Browsing, Run
from .relay import relay

TINY = ("--problem", "digits/tiny", "--epochs", "1", "--uplink", "eden-1bit")
# Its model and its updates are several messages.
LITE = ("--problem", "digits/lite", "--phones", "1", "--rounds", "2", "--downlink", "float32")
MODEL = 4 * 29_322
Start = Callable[..., Run]
Open = Callable[..., Browsing]


def test_drawings_are_trained_on_beside_python_phones_and_every_byte_is_accounted_for(
    start: Start, phone: Open
) -> None:
    run = start(*TINY, "--phones", "3", "--rounds", "3")
    assert run.url.startswith("http://127.0.0.1:") and run.url.endswith("/")
    run.python_phones(2)
    mine = phone(run.url)
    mine.wait_text("#ledger", "0 drawings stayed here; 0 bytes left")
    assert mine.page.locator("#join").is_disabled()
    for digit in (0, 1, 4, 7):
        mine.draw(digit)
    mine.wait_text("#ledger", "4 drawings stayed here; 0 bytes left")
    mine.page.locator("#join").click()
    mine.wait_text("#says", "all 3 rounds are done", 120)
    run.wait()
    assert [(each["accepted"], each["late"]) for each in run.rounds()] == [(3, 0)] * 3
    (shard,) = {event["shard"] for event in run.events if str(event.get("phone", "")).startswith("browser-")}
    came = [event for event in run.events if event["event"] == "phone_came" and event["shard"] == shard]
    assert [event["link"] for event in came] == ["browser"]
    assert mine.number("#accepted") == 3
    assert mine.number("#payload") == run.traffic(shard, "payload")["uplink"]
    assert mine.number("#up") == run.traffic(shard, "message")["uplink"]
    assert mine.number("#down") == run.traffic(shard, "message")["downlink"]
    assert f"4 drawings stayed here; {mine.number('#up')} bytes left" in mine.text("#ledger")
    rows = mine.page.locator("#probabilities tr")
    for kind in ("before", "after"):
        values = rows.locator(f".{kind}").evaluate_all("cells => cells.map(cell => Number(cell.dataset.value))")
        assert len(values) == 10
        assert abs(sum(values) - 1) < 1e-5
    assert mine.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert mine.quiet()


def test_an_upload_goes_on_at_the_byte_where_the_link_broke(start: Start, phone: Open) -> None:
    run = start(*LITE, "--uplink", "float32")
    with relay(run.port) as line:
        mine = phone(f"http://127.0.0.1:{line.port}/")
        mine.draw(4)
        line.cut_up = 70_000
        mine.page.locator("#join").click()
        mine.wait_text("#accepted", "1")
        assert line.cuts == 1
        mine.wait_text("#says", "all 2 rounds are done", 120)
    run.wait()
    assert [each["accepted"] for each in run.rounds()] == [1, 1]
    up = run.traffic(0, "payload")["uplink"]
    # What was in the sockets when the line broke went twice; it is less than the part that was on the disk.
    assert 2 * MODEL <= up < 2 * MODEL + 70_000
    assert mine.number("#payload") == 2 * MODEL


def _came_once(run: Run, way: str, broken: int) -> None:
    """Assert that no byte that its receiver had kept when the line broke was sent again: of a model, `broken` bytes."""
    carried = run.traffic(0, "payload")
    if way == "up":
        # An update a round. The line broke before its hundred-thousandth byte.
        assert 2 * MODEL <= carried["uplink"] < 2 * MODEL + 100_000
    else:
        # One model, since its first version is drawn at the phone. All of it may have been on its way when the line
        # broke, and what was then is not in the account of a server that is killed within the second.
        assert MODEL - broken <= carried["downlink"] <= 2 * MODEL - broken


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_tab_that_is_closed_in_the_middle_of_a_transfer_is_followed_by_one_that_ends_it(
    start: Start, phone: Open, way: str
) -> None:
    run = start(*LITE, "--uplink", "float32")
    with relay(run.port) as line:
        mine = phone(f"http://127.0.0.1:{line.port}/")
        mine.draw(2)
        line.shut = True
        setattr(line, f"cut_{way}", 100_000)
        mine.page.locator("#join").click()
        mine.wait_text("#says", "trying again")
        kept = mine.kept()
        broken = kept["partial"]["data"] if way == "down" else 0
        if way == "up":
            assert kept["finished"]["payload"] == MODEL
        else:
            # Messages that came whole: how long one is, is what the server thinks of the link.
            assert 0 < broken < 100_000
        mine.page.close()
        line.shut = False
        mine.open()
        mine.wait_text("#says", "all 2 rounds are done", 120)
        assert line.cuts == 1
    run.wait()
    _came_once(run, way, broken)


@pytest.mark.parametrize("way", ["up", "down"])
def test_a_server_that_is_killed_in_the_middle_of_a_transfer_goes_on_with_it(
    start: Start, phone: Open, way: str
) -> None:
    run = start(*LITE, "--uplink", "float32")
    with relay(run.port) as line:
        mine = phone(f"http://127.0.0.1:{line.port}/")
        mine.draw(2)
        line.shut = True
        setattr(line, f"cut_{way}", 100_000)
        mine.page.locator("#join").click()
        mine.wait_text("#says", "trying again")
        broken = mine.kept()["partial"]["data"] if way == "down" else 0
        run.kill()
        again = start("--resume", str(run.folder), "--port", str(run.port))
        line.shut = False
        mine.wait_text("#says", "all 2 rounds are done", 120)
    again.wait()
    assert mine.number("#accepted") == 2
    _came_once(run, way, broken)


def test_a_broken_download_is_kept_and_only_the_rest_comes(start: Start, phone: Open) -> None:
    run = start(*LITE, "--uplink", "eden-1bit")
    with relay(run.port) as line:
        mine = phone(f"http://127.0.0.1:{line.port}/")
        mine.draw(7)
        line.cut_down = 100_000
        mine.page.locator("#join").click()
        mine.wait_text("#accepted", "1")
        mine.wait_text("#says", "all 2 rounds are done", 120)
        assert line.cuts == 1
    run.wait()
    # The kernel had more on its way than the phone has seen; no byte that it kept came twice.
    assert mine.number("#down") < MODEL + 40_000


def test_a_tab_that_is_closed_and_a_server_that_is_killed_lose_nothing(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "2")
    mine = phone(run.url)
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    name = mine.kept()["name"]
    run.kill()
    mine.wait_text("#says", "trying again")
    mine.page.close()
    again = start("--resume", str(run.folder), "--port", str(run.port))
    other = phone(again.url)
    other.draw(1)
    mine.open()
    # It joins by itself, as the phone that it was, with its drawing.
    mine.wait_text("#says", "waiting to be asked")
    assert mine.kept()["name"] == name
    other.page.locator("#join").click()
    for each in (mine, other):
        each.wait_text("#says", "all 2 rounds are done", 120)
        assert each.number("#accepted") == 2
    again.wait()
    # Whoever comes now finds nobody, and goes on looking.
    mine.page.locator("#join").click()
    mine.wait_text("#says", "trying again")


def test_the_newest_tab_of_a_browser_is_its_phone(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    first = mine.page
    mine.open()
    mine.wait_text("#says", "waiting to be asked")
    assert first.locator("#says").inner_text() == "this phone goes on in another tab"
    assert len(set(run.came(2))) == 1


def test_what_one_tab_forgets_the_others_forget_too(start: Start, phone: Open) -> None:
    mine = phone(start(*TINY, "--phones", "2", "--rounds", "1").url)
    mine.draw(0)
    mine.wait_text("#ledger", "1 drawing stayed here")
    first = mine.page
    mine.open()
    mine.wait_text("#ledger", "1 drawing stayed here")
    mine.page.once("dialog", lambda dialog: dialog.accept())
    mine.page.locator("#forget").click()
    mine.wait_text("#ledger", "0 drawings stayed here")
    mine.page = first
    mine.page.bring_to_front()
    mine.wait_text("#ledger", "0 drawings stayed here")
    mine.draw(1)
    mine.wait_text("#ledger", "1 drawing stayed here")
    assert mine.quiet()


def test_a_browser_without_a_network_waits_for_it(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    mine.context.set_offline(True)
    mine.wait_text("#says", "trying again")
    mine.context.set_offline(False)
    mine.wait_text("#says", "waiting to be asked")
    came = run.came(2)
    assert len(came) == 2 and len(set(came)) == 1


WAKE_LOCKS = """
    window.locks = [];
    const request = navigator.wakeLock.request.bind(navigator.wakeLock);
    navigator.wakeLock.request = async (kind) => {
        const lock = await request(kind);
        window.locks.push(lock);
        return lock;
    };
"""
LOOKED_AT = """(state) => {
    Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_phone_keeps_its_screen_on_and_says_when_its_tab_sleeps(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.context.add_init_script(WAKE_LOCKS)
    mine.page.reload()
    mine.page.evaluate(LOOKED_AT, "hidden")
    assert mine.page.locator("#asleep").is_hidden(), "who takes no part may sleep"
    mine.page.evaluate(LOOKED_AT, "visible")
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    mine.wait_value("window.locks.length", 1)
    mine.page.evaluate(LOOKED_AT, "hidden")
    assert mine.page.locator("#asleep").is_visible()
    assert mine.page.title().startswith("asleep")
    mine.page.evaluate(LOOKED_AT, "visible")
    assert mine.page.locator("#asleep").is_hidden()
    mine.wait_value("window.locks.length", 2)
    mine.page.locator("#leave").click()
    mine.wait_text("#says", "you have left the run")
    mine.wait_value("window.locks.at(-1).released", True)


SLOW_LOCKS = """
    const given = new Promise((give) => (window.give = give));
    const before = navigator.wakeLock.request.bind(navigator.wakeLock);
    navigator.wakeLock.request = (kind) => given.then(() => before(kind));
"""


def test_a_screen_that_is_kept_on_only_after_its_owner_has_left_is_let_go(start: Start, phone: Open) -> None:
    mine = phone(start(*TINY, "--phones", "2", "--rounds", "1").url)
    mine.context.add_init_script(WAKE_LOCKS)
    mine.context.add_init_script(SLOW_LOCKS)
    mine.page.reload()
    mine.draw(0)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    mine.page.locator("#leave").click()
    mine.wait_text("#says", "you have left the run")
    mine.page.evaluate("() => window.give()")
    mine.wait_value("window.locks.length", 1)
    mine.wait_value("window.locks[0].released", True, 10)


def test_leave_keeps_the_drawings_and_forget_keeps_nothing(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(0)
    mine.draw(7)
    mine.page.locator("#undo").click()
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    mine.page.locator("#leave").click()
    mine.wait_text("#says", "you have left the run")
    mine.page.reload()
    mine.wait_text("#says", "take part")
    mine.wait_text("#ledger", "1 drawing stayed here")
    mine.page.once("dialog", lambda dialog: dialog.accept())
    mine.page.locator("#forget").click()
    mine.wait_text("#ledger", "0 drawings stayed here")
    assert mine.kept() == {}
    # To another run, by its address.
    another = start(*TINY, "--phones", "2", "--rounds", "1")
    mine.page.locator("#other").click()
    mine.page.locator("#address").fill("no address")
    mine.page.locator("#elsewhere button").click()
    assert mine.page.locator("#address").evaluate("field => field.validationMessage").startswith("This is no address")
    mine.page.locator("#address").fill(another.url.removeprefix("http://"))
    mine.page.locator("#elsewhere button").click()
    mine.page.wait_for_url(another.url)
    mine.url = another.url
    mine.wait_text("#says", "take part")


def test_a_drawing_that_is_named_with_the_finger_still_down_ends_there(start: Start, phone: Open) -> None:
    mine = phone(start(*TINY, "--phones", "1", "--rounds", "1").url)
    mine.wait_text("#says", "take part")
    box = mine.page.locator("#pad").bounding_box()
    mouse = mine.page.mouse
    mouse.move(box["x"] + 50, box["y"] + 50)
    mouse.down()
    mouse.move(box["x"] + 90, box["y"] + 150)
    # As a second finger does it.
    mine.page.evaluate("document.querySelectorAll('#labels button')[1].click()")
    mouse.move(box["x"] + 150, box["y"] + 50)
    mine.wait_text("#ledger", "1 drawing stayed here")
    assert mine.page.locator("#clear").is_disabled(), "what came after it is no drawing"
    mouse.up()
    mine.draw(4)
    mine.wait_text("#ledger", "2 drawings stayed here")
    assert mine.quiet()


def test_a_worker_that_could_not_be_loaded_is_had_anew_for_the_next_round(start: Start, phone: Open) -> None:
    mine = phone(start(*TINY, "--phones", "1", "--rounds", "1").url)
    mine.wait_text("#says", "take part")
    mine.page.route("**/phone/worker.js", lambda route: route.abort())
    with mine.page.expect_event("requestfailed", lambda request: request.url.endswith("/phone/worker.js")):
        mine.page.reload()
        mine.wait_text("#says", "take part")
    mine.page.unroute("**/phone/worker.js")
    mine.draw(1)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "all 1 rounds are done", 30)
    assert mine.number("#accepted") == 1


def test_a_page_of_another_problem_says_so_and_trains_nothing_until_it_is_reloaded(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(1)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    run.kill()
    # Its tensors are called otherwise; those of mnist/tiny would not be, and be trained on pixels of another mean.
    again = start("--problem", "digits/mlp", "--phones", "1", "--rounds", "1", "--port", str(run.port))
    mine.wait_text("#says", "this server's run is of digits/mlp now, and this page of digits/tiny: reload it")
    mine.page.reload()
    mine.wait_text("#says", "all 1 rounds are done")
    again.wait()
    assert mine.number("#accepted") == 1


FULL = """() => {
    const store = IDBObjectStore.prototype;
    window.makeRoom = [store.put, store.add];
    store.put = store.add = () => { throw new DOMException("the disk is full", "QuotaExceededError"); };
}"""
ROOM = "() => { [IDBObjectStore.prototype.put, IDBObjectStore.prototype.add] = window.makeRoom; }"


def test_a_browser_with_no_room_says_so_and_loses_no_drawing(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "1", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(1)
    mine.wait_text("#ledger", "1 drawing stayed here")
    mine.page.evaluate(FULL)
    mine.draw(4)
    mine.wait_text("#says", "this browser keeps nothing more: the disk is full")
    mine.page.evaluate(ROOM)
    # It is still on the pad.
    mine.page.locator("#labels button").nth(4).click()
    mine.wait_text("#ledger", "2 drawings stayed here")
    mine.page.evaluate(FULL)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "this browser keeps nothing more: the disk is full")
    mine.page.evaluate(ROOM)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "all 1 rounds are done")
    run.wait()
    assert mine.quiet()


def test_leaving_does_not_wait_for_a_server_that_does_not_answer(start: Start, phone: Open) -> None:
    run = start(*TINY, "--phones", "2", "--rounds", "1")
    mine = phone(run.url)
    mine.draw(1)
    mine.page.locator("#join").click()
    mine.wait_text("#says", "waiting to be asked")
    with mine.page.expect_request("**/phone/model.json"):
        mine.page.route("**/phone/model.json", lambda _: None)
        run.kill()
    mine.page.locator("#leave").click()
    mine.wait_text("#says", "you have left the run")
    assert mine.page.locator("#join").is_visible()
    mine.page.unroute("**/phone/model.json")
