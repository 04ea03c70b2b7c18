"""The page, in a browser."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

DRIVER = shutil.which("chromedriver")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1200,1100"
)

pytestmark = pytest.mark.skipif(
    not (DRIVER and BROWSER), reason="needs chromium and chromedriver (Debian: chromium-driver)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING"})
    for word in [*QUIET.split(), "--lang=en-GB"]:
        options.add_argument(word)
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


class Page:
    """What somebody does with the page."""

    def __init__(self, driver: webdriver.Chrome, address: str):
        self.driver = driver
        driver.get(address)
        self.wait = WebDriverWait(driver, 20)
        self.wait.until(lambda _: self.one("#state").text.startswith("default"))

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def type(self, text: str) -> None:
        self.one("#text").clear()
        self.one("#text").send_keys(text)
        self.wait.until(
            lambda _: "".join(one.text for one in self.all(".words")).startswith(text[:6])
        )


@pytest.fixture
def page(browser: webdriver.Chrome, server: str) -> Iterator[Page]:
    page = Page(browser, server)
    yield page
    assert browser.get_log("browser") == []


def test_a_text_has_a_verdict_scores_and_words(page: Page, server: str) -> None:
    text = "гадкий славный дом"
    page.type(text)
    asked = {"texts": [text]}
    found = httpx.post(f"{server}/igla/v1/score", json=asked).json()["results"][0]
    assert page.one(".verdict").text == found["decision"]
    assert [one.text.split()[0] for one in page.all(".label")] == ["kind", "rude"]
    values = [float(one.get_attribute("value")) for one in page.all(".label progress")]
    assert values == pytest.approx([one["probability"] for one in found["labels"]], abs=1e-6)
    marks = page.all(".words mark")
    assert [one.text for one in marks] == text.split()
    why = httpx.post(f"{server}/igla/v1/explain", json={"text": text}).json()
    effects = [abs(one["effects"][1]) for one in why["words"]]
    strongest = max(0.2, *effects)
    assert [share(one) for one in marks] == pytest.approx(
        [0.75 * one / strongest for one in effects], abs=1e-3
    )


def share(mark: WebElement) -> float:
    """How strongly a word is marked."""
    style = mark.get_attribute("style") or ""
    return float(style.split("--share:")[1].split(";")[0])


def test_another_text_replaces_the_first(page: Page) -> None:
    page.type("глупый гадкий дом")
    page.type("добрый славный дом")
    assert page.one(".verdict").text == "allow"
    assert len(page.all(".result")) == 1


def test_two_models_stand_side_by_side(page: Page) -> None:
    page.type("глупый гадкий дом")
    page.all("#second option")[1].click()
    page.wait.until(lambda _: len(page.all(".words")) == 2)
    assert len({one.text for one in page.all(".verdict")}) == 1


def test_languages_and_light(page: Page) -> None:
    assert page.one("#copy").text == "Copy"
    page.one("#language").click()
    assert page.one("#copy").text == "Скопировать"
    assert page.one("html").get_attribute("lang") == "ru"
    page.one("#theme").click()
    light = page.one("body").value_of_css_property("background-color")
    page.one("#theme").click()
    assert page.one("body").value_of_css_property("background-color") != light
    page.driver.refresh()
    assert page.one("html").get_attribute("data-theme") == "dark"
    page.one("#theme").click()
    page.one("#language").click()


def test_the_curl_commands_work(page: Page) -> None:
    page.type("дом, который 'построил' \"Джек\"")
    assert len(page.all("#protocols button")) == 5
    for number in range(5):
        page.all("#protocols button")[number].click()
        words = shlex.split(page.one("#curl").text.replace("\\\n", ""))
        done = subprocess.run([*words, "-sf"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith(("{", "["))


def test_the_figures_move(page: Page, server: str) -> None:
    def answered() -> int:
        return int(page.one("#figures dd").text.replace(",", ""))

    page.wait.until(lambda _: page.all("#figures dd"))
    before = answered()
    for _ in range(3):
        httpx.post(f"{server}/predict", json={"inputs": "дом"})
    page.wait.until(lambda _: answered() >= before + 3)


def test_nothing_comes_from_elsewhere(server: str) -> None:
    page = httpx.get(f"{server}/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in ("/", "/page/page.js", "/page/page.css", "/page/icon.svg"):
        text = httpx.get(f"{server}{path}").text.replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text and "https://" not in text
