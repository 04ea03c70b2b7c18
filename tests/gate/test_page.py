"""The review queue and the versions, in a browser."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from igla.gate.context import digest, text_of_tool
from igla.gate.home import Home
from igla.gate.log import Feedback, GateLog, NewDecision
from igla.gate.versions import ABOUT, About
from igla.sealed import MANIFEST
from igla.serve.keys import add_key

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1200,1100"
)

pytestmark = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)


def waiting_for_a_person(text: str, tool: str | None = None) -> NewDecision:
    return NewDecision(
        model="default", version="v1", action="review", probability=0.4, text=text,
        context=digest(text), tool=tool,
    )  # fmt: skip


@dataclass
class Page:
    """What a moderator does with the page."""

    driver: webdriver.Chrome
    server: httpx.Client
    log: GateLog
    home: Home

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def until(self, true: Callable[[], Any]) -> Any:
        """What comes to be true. The page draws its lists anew whenever it hears of something, also
        between finding an element and reading it: then it is looked at again."""
        redrawn = [StaleElementReferenceException]
        return WebDriverWait(self.driver, 60, 0.1, redrawn).until(lambda _: true())

    def texts(self, selector: str) -> list[str]:
        """Of all such elements, as they are at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def click(self, selector: str) -> None:
        """Click the first such element, which may be drawn anew meanwhile."""
        self.until(lambda: self.one(selector).click() is None)

    def press(self, key: str) -> None:
        self.one("body").send_keys(key)

    @property
    def shown(self) -> str:
        return "".join(self.texts(".matter"))

    def open(self, *texts: str) -> None:
        """See the page with these texts waiting, after all others were answered."""
        for waiting in self.log.waiting():
            said = {"decision": waiting.id, "outcome": "confirmed_allow"}
            self.server.post("/v1/gate/feedback", json=said)
        self.log.write([waiting_for_a_person(text) for text in texts])
        self.driver.get(f"{self.server.base_url}/gate")
        self.until(lambda: self.shown == texts[0])

    def given(self) -> list[Feedback]:
        return [one for one in self.log.feedback_since(0) if one.who == "Анна"]


@pytest.fixture(scope="module")
def page(
    serve_gate: Callable[..., Any], run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """Of a gate that learns and asks for keys, with one for everything typed in."""
    folder = tmp_path_factory.mktemp("page")
    url, keys = f"sqlite:///{folder}/gate.db", folder / "keys.json"
    key = add_key(keys, "operator", ("score", "feedback", "admin"), None)
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    for word in [*QUIET.split(), "--lang=en-GB"]:
        options.add_argument(word)
    words = ["--log", url, "--keys", str(keys), "--learn", str(folder / "gate")]
    with (
        serve_gate(str(run), *words) as running,
        closing(GateLog(url)) as log,
        httpx.Client(base_url=running.address, headers={"x-api-key": key}, timeout=60) as server,
    ):
        driver = webdriver.Chrome(options, Service(DRIVER))
        page = Page(driver, server, log, Home(folder / "gate"))
        driver.get(f"{running.address}/gate")
        page.until(lambda: page.one("#key").is_displayed())
        page.one("#key").send_keys(key, Keys.ENTER)
        page.open("дом")
        page.one("#who").send_keys("Анна")
        page.one("#allow").click()
        yield page
        said = [one["message"] for one in driver.get_log("browser")]
        assert [one for one in said if "status of 401" not in one] == []
        driver.quit()


def test_one_key_answers_and_another_takes_it_back(page: Page) -> None:
    page.open("добрый дом", "гадкий дом", "милый сад")
    before = len(page.given())
    page.press("a")
    page.until(lambda: page.shown == "гадкий дом")
    page.press("b")
    page.until(lambda: page.shown == "милый сад" and len(page.given()) == before + 2)
    first, second = page.given()[-2:]
    assert (first.text, first.outcome, first.target) == ("добрый дом", "confirmed_allow", 1)
    assert (second.text, second.outcome, second.target) == ("гадкий дом", "confirmed_block", 0)
    page.press("u")
    page.until(lambda: page.shown == "гадкий дом")
    assert [one.text for one in page.given()[before:]] == ["добрый дом"]
    page.press("a")
    page.until(lambda: len(page.given()) == before + 2)
    assert page.given()[-1].target == 1


def test_later_puts_a_decision_behind_the_others(page: Page) -> None:
    page.open("первый дом", "второй дом")
    page.press("s")
    assert page.shown == "второй дом"
    assert page.texts("#rest span:nth-child(2)") == ["первый дом"]


def test_many_are_answered_at_once_and_taken_back_at_once(page: Page) -> None:
    texts = [f"дом {number}" for number in range(7)]
    page.open(*texts)
    before = len(page.given())
    page.one("#every").click()
    assert "7 chosen" in page.one("#batch").text
    page.click("#rest input")
    assert "6 chosen" in page.one("#batch").text
    page.one("#block").click()
    page.until(lambda: len(page.given()) == before + 6)
    assert page.shown == "дом 1" and {one.target for one in page.given()[before:]} == {0}
    page.one("#undo").click()
    page.until(lambda: len(page.all("#rest li")) == 6)
    assert len(page.given()) == before


def test_what_was_decided_elsewhere_goes_and_is_not_answered_again(page: Page) -> None:
    page.open("первый дом", "второй дом", "третий дом", "четвёртый дом")
    first, _, third, _ = page.log.waiting()
    page.click("#rest li:nth-child(2) input")
    assert "1 chosen" in page.one("#batch").text
    before = len(page.given())
    # A key that is pressed in the very moment in which another decision takes the first's place.
    page.driver.execute_script(
        """new MutationObserver((_, watching) => {
             if (document.querySelector(".matter").innerText === "первый дом") return;
             watching.disconnect();
             const pressed = new KeyboardEvent("keydown", {code: "KeyA", bubbles: true});
             document.body.dispatchEvent(pressed);
           }).observe(document.getElementById("current"), {childList: true});"""
    )
    for one in (first, third):
        said = {"decision": one.id, "outcome": "confirmed_block", "who": "Борис"}
        page.server.post("/v1/gate/feedback", json=said)
    page.until(lambda: page.shown == "второй дом")
    page.until(lambda: page.texts("#rest span:nth-child(2)") == ["четвёртый дом"])
    assert page.texts("#batch") == [""]  # the one that was ticked has gone
    time.sleep(1)
    assert page.shown == "второй дом" and len(page.given()) == before
    page.press("a")
    page.until(lambda: [one.text for one in page.given()[before:]] == ["второй дом"])


def test_an_answer_whose_receipt_was_lost_counts_once(page: Page) -> None:
    page.open("потерянный дом", "другой дом")
    before = len(page.given())
    # The first answer arrives, its receipt does not; nor does the page hear how the queue stands.
    page.driver.execute_script(
        """const fetched = window.fetch;
           window.restored = () => { window.fetch = fetched; };
           window.fetch = async (path, asked) => {
             if (path.includes("/review")) throw new TypeError("away");
             const answer = await fetched(path, asked);
             if (asked.method !== "POST" || window.lost) return answer;
             window.lost = true;
             throw new TypeError("away");
           };"""
    )
    page.press("a")
    page.until(lambda: len(page.given()) == before + 1 and page.shown == "потерянный дом")
    page.press("a")
    page.until(
        lambda: page.shown == "другой дом" and not page.one("#undo").get_attribute("disabled")
    )
    assert [one.text for one in page.given()[before:]] == ["потерянный дом"]
    page.driver.execute_script("window.restored()")
    page.press("u")  # and what is said after it was taken back is another answer
    page.until(lambda: page.shown == "потерянный дом" and len(page.given()) == before)
    page.press("a")
    page.until(lambda: [one.text for one in page.given()[before:]] == ["потерянный дом"])


def test_an_answer_that_could_not_be_taken_back_is_the_next_that_undo_tries(page: Page) -> None:
    page.open("первый сад", "второй сад", "третий сад")
    before = len(page.given())
    page.press("a")
    page.until(lambda: len(page.given()) == before + 1)
    page.press("b")
    page.until(lambda: len(page.given()) == before + 2 and page.shown == "третий сад")
    page.driver.execute_script(
        """const fetched = window.fetch;
           window.fetch = async (path, asked) => {
             if (asked.method !== "DELETE") return fetched(path, asked);
             window.fetch = fetched;
             throw new TypeError("away");
           };"""
    )
    page.until(lambda: not page.one("#undo").get_attribute("disabled"))
    page.press("u")
    page.until(lambda: page.one("#error").is_displayed())
    assert len(page.given()) == before + 2
    page.press("u")
    page.until(lambda: page.shown == "второй сад")
    assert [one.text for one in page.given()[before:]] == ["первый сад"]


def test_signs_that_do_not_show_are_marked(page: Page) -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f 1\ufe0f\u20e3"
    hidden = "г\u200b\u200b\u200bад\u202eкий\u202c д\xadом\u2800\U000e0041"
    page.open("милый сад", f"{hidden}\t{family}\r\n\tдом")
    marks = ["ZWSP ×3", "RLO", "PDF", "SHY", "U+2800", "TAG A"]
    assert page.texts("#rest .sign") == marks
    assert len({one.value_of_css_property("color") for one in page.all("#rest .sign")}) == 1
    title = page.one("#rest span").get_attribute("title")
    assert title is not None and title.startswith("г[ZWSP ×3]ад[RLO]кий[PDF] д[SHY]ом")
    page.press("s")
    assert page.texts("#current .sign") == marks
    shown = page.one(".matter").get_attribute("textContent")
    assert shown is not None and shown.endswith(f"\t{family}\r\n\tдом")
    assert not set(shown) & set("\u200b\u202e\u202c\xad\u2800\U000e0041")
    assert page.one("#current .sign:nth-of-type(2)").get_attribute("title") == "U+202E"


def test_typing_a_name_answers_nothing(page: Page) -> None:
    page.open("дом с садом")
    before = len(page.given())
    page.one("#who").send_keys("ab")
    page.one("#who").send_keys("\b\b")
    assert page.shown == "дом с садом" and len(page.given()) == before


def test_a_text_is_shown_as_it_is(page: Page) -> None:
    page.open("<b>дом</b> & <script>alert(1)</script>")
    assert page.all("#current b") == []


def test_a_tool_call_is_shown_with_its_arguments(page: Page) -> None:
    page.open("дом")
    call = text_of_tool("shell", {"command": "ls"})
    page.log.write([waiting_for_a_person(call, "shell")])
    page.until(lambda: page.all("#rest li"))
    page.press("a")
    page.until(lambda: page.shown == 'tool: shell\n{"command": "ls"}')
    assert page.texts("#current .note")[0].startswith("call of shell")


def test_languages_and_light(page: Page) -> None:
    page.open("дом")
    page.one("#language").click()
    assert page.one("#allow").text.startswith("Пропустить")
    page.one("#theme").click()
    light = page.one("body").value_of_css_property("background-color")
    page.one("#theme").click()
    assert page.one("body").value_of_css_property("background-color") != light
    page.one("#theme").click()
    page.one("#language").click()
    assert page.one("#allow").text.startswith("Allow")


def test_the_first_page_leads_to_this_one_and_back(page: Page) -> None:
    page.driver.get(str(page.server.base_url))
    page.until(lambda: page.one("#gate").is_displayed())
    page.one("#gate").click()
    page.until(lambda: page.all("#review"))
    page.one("header a").click()
    page.until(lambda: page.all("#try"))


def test_a_version_is_let_serve_and_rolled_back_and_the_curve_has_both(page: Page) -> None:
    page.open("дом")
    page.until(lambda: page.texts("tr.serving td")[:1] == ["v0001"])
    assert "there are 1" in page.one("#curve-note").text
    assert not page.one("#rollback").is_displayed()  # there is no version before
    versions = page.home.versions

    def copy(making: Path) -> None:
        for file in versions.path("v0001").iterdir():
            if file.name not in (MANIFEST, ABOUT):
                shutil.copy(file, making)

    figures = {"holdout": {"before": 0.9, "after": 0.8}, "learned": 40}
    versions.add(copy, About("v0001", 0, time.time(), False, "it is worse", figures))
    page.until(lambda: len(page.all("#versions tr")) == 2)
    assert page.texts("#versions tr:first-child td")[2:5] == ["0.9 → 0.8", "40", "it is worse"]
    assert len(page.all("#curve circle")) == 2
    page.click("#versions tr:first-child button")
    page.driver.switch_to.alert.accept()
    page.until(lambda: page.texts("tr.serving td")[:1] == ["v0002"])
    decided = page.server.post("/v1/gate/decide", json={"text": "дом"}).json()
    assert decided["version"] == versions.serving().name == "v0002"
    page.one("#rollback").click()
    page.driver.switch_to.alert.accept()
    page.until(lambda: page.texts("tr.serving td")[:1] == ["v0001"])
    assert not page.one("#rollback").is_displayed()
    assert [one.event for one in page.log.audit()][-2:] == ["promoted", "rolled_back"]
