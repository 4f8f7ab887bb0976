"""chat.html in a real browser, over a double of the API."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from steps.serving.status import PAGE
from tests.serving.api_double import BYTES, NASTY, ApiDouble, model

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1280,900",
)
SECONDS = 10  # that anything may take to appear
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
HARD = "it's \"quoted\" $HOME `id` \\ ü 'a' !x"
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    for flag in FLAGS:
        options.add_argument(flag)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield driver
    driver.quit()


@pytest.fixture
def api() -> Iterator[ApiDouble]:
    with ApiDouble() as double:
        yield double


class Page:
    """The page, as somebody uses it."""

    def __init__(self, browser: Any, api: ApiDouble) -> None:
        self.browser, self.address = browser, api.address
        self.expected: list[str] = []  # what errors in the browser's log may say

    def open(self) -> None:
        self.browser.get(self.address)
        self.wait(lambda: self.text("#served") != "The server is asked what it serves.")

    def wait(self, condition: Callable[[], Found]) -> Found:
        """What the condition returns, when it is true."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        waiting = WebDriverWait(
            self.browser, SECONDS, 0.02, ignored_exceptions=[StaleElementReferenceException]
        )
        found: Found = waiting.until(lambda _: condition())
        return found

    def all(self, selector: str) -> list[Any]:
        """The elements that are shown."""
        found: list[Any] = self.browser.find_elements("css selector", selector)
        return [element for element in found if element.is_displayed()]

    def one(self, selector: str) -> Any:
        (element,) = self.all(selector)
        return element

    def text(self, selector: str) -> str:
        return str(self.browser.find_element("css selector", selector).text)

    def texts(self, selector: str) -> list[str]:
        return [element.text for element in self.all(selector)]

    def script(self, source: str, *given: Any) -> Any:
        return self.browser.execute_script(source, *given)

    def focused(self) -> Any:
        return self.browser.switch_to.active_element

    def ask(self, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self.one("#question").send_keys(text, Keys.ENTER)

    def ended(self, turns: int = 1) -> None:
        """Wait until all answers are at their end."""
        self.wait(lambda: len(self.all(".turn")) == turns and self.all("#send"))

    def copied(self, selector: str) -> str:
        """What a copy button gives the clipboard."""
        self.browser.execute_cdp_cmd(
            "Browser.grantPermissions",
            {
                "origin": self.address,
                "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"],
            },
        )
        button = self.one(selector)
        button.click()
        self.wait(lambda: button.text == "Copied")
        return str(
            self.browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
        )

    def complaints(self) -> list[str]:
        """Errors in the browser's log, but for those that the test is about."""
        return [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] in ("SEVERE", "WARNING")
            and not any(words in entry["message"] for words in self.expected)
        ]


@pytest.fixture
def page(browser: Any, api: ApiDouble) -> Iterator[Page]:
    """The page is opened; a test fails where the browser logs an error."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page = Page(browser, api)
    page.open()
    yield page
    assert page.complaints() == []
    browser.get("about:blank")


def test_page_is_self_contained() -> None:
    text = PAGE.read_text("utf-8")
    for forbidden in ("http://", "https://", "@import", "innerHTML", "outerHTML", "insertAdjacent"):
        assert forbidden not in text, forbidden


def test_it_says_what_is_served(page: Page) -> None:
    assert page.text("#served") == (
        "Served here: chat@champion (version 3 · int4), chat@challenger (version 4 · fp32)."
    )
    assert page.text("#version-0") == "version 3 · int4"
    assert [option.text for option in page.all("#model-0 option")] == [
        "chat",
        "chat@champion",
        "chat@challenger",
    ]


def test_an_example_is_asked(page: Page, api: ApiDouble) -> None:
    example = page.all("#examples button")[0]
    wanted = example.text
    example.click()
    page.ended()
    assert page.text(".question") == wanted == api.bodies[0]["messages"][-1]["content"]
    assert page.all("#empty") == []


def test_pieces_are_shown_before_the_end(page: Page, api: ApiDouble) -> None:
    page.ask("wait")
    page.wait(lambda: page.text(".answer-text") == "first")
    assert page.all("#send") == [] and page.all("#stop")
    assert page.script("return document.querySelector('.answer').ariaBusy") == "true"
    assert page.script("return document.querySelector('#spoken').textContent") == ""
    api.gate.set()
    page.ended()
    assert page.text(".answer-text") == "first second"
    assert page.script("return document.querySelector('.answer').ariaBusy") == "false"
    assert page.script("return document.querySelector('#spoken').textContent") == (
        "chat: first second"
    )
    assert page.text(".facts .by") == "version 3 · 0123456789ab"
    assert page.text(".facts .first-token").startswith("first token 0.")
    assert page.text(".facts .rate").endswith(" tokens/s")
    assert page.text(".facts .tokens") == "5 tokens in, 3 out"
    (body,) = api.bodies
    assert body["stream"] is True and body["stream_options"] == {"include_usage": True}
    assert (body["temperature"], body["max_tokens"]) == (0, 512)


@pytest.mark.parametrize("by", ["button", "escape"])
def test_stop_aborts_the_request(page: Page, api: ApiDouble, by: str) -> None:
    from selenium.webdriver.common.keys import Keys

    page.ask("forever")
    page.wait(lambda: "more more" in page.text(".answer-text"))
    if by == "button":
        page.one("#stop").click()
    else:
        page.focused().send_keys(Keys.ESCAPE)
    assert api.left.wait(SECONDS)
    page.ended()
    assert page.text(".facts .told") == "stopped"
    assert page.text(".facts .rate").startswith("about ")  # the server's count did not come
    assert page.focused().get_attribute("id") == "question"
    page.ask("and then?")
    page.ended(2)
    roles = [message["role"] for message in api.bodies[1]["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert api.bodies[1]["messages"][1]["content"].startswith("more more")


def test_two_versions_side_by_side(page: Page, api: ApiDouble) -> None:
    page.one("#compare").click()
    assert page.text("#version-1") == "version 4 · fp32"  # another one than the first
    page.ask("well?")
    page.ended()
    assert sorted(body["model"] for body in api.bodies) == ["chat", "chat@challenger"]
    assert page.texts(".answer-text") == ["version 3 says yes", "version 4 says yes"]
    assert [text.split(" · ")[0] for text in page.texts(".facts .by")] == ["version 3", "version 4"]
    left, right = page.all(".answer")
    assert left.rect["y"] == right.rect["y"] and left.rect["x"] < right.rect["x"]
    page.ask("again?")
    page.ended(2)
    second = {body["model"]: body["messages"] for body in api.bodies[2:]}
    assert second["chat"][1]["content"] == "version 3 says yes"
    assert second["chat@challenger"][1]["content"] == "version 4 says yes"
    page.one("#compare").click()
    page.ask("alone?")
    page.ended(3)
    assert len(api.bodies) == 5


def test_an_alias_that_moves_is_seen_when_the_picker_is_focused(page: Page, api: ApiDouble) -> None:
    api.models = [model("chat", 4, "fp32", "champion"), *api.models[1:]]
    page.script("document.getElementById('model-0').focus()")
    page.wait(lambda: page.text("#version-0").startswith("version 4 · fp32, was version 3 until"))
    api.models = api.models[1:]
    page.script("document.getElementById('question').focus()")
    page.script("document.getElementById('model-0').focus()")
    page.wait(lambda: "chat (not served now)" in page.text("#model-0"))


def test_curl_asks_the_same(page: Page, api: ApiDouble, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page.one("#question").send_keys(HARD, Keys.SHIFT + Keys.ENTER + Keys.NULL, "line 2")
    page.ask("")
    page.ended()
    command = page.copied(".curl")
    assert api.bodies[0]["messages"][-1]["content"] == f"{HARD}\nline 2"
    assert "SLM_API_KEY" not in command
    done = run_by_bash(command, tmp_path)
    assert api.bodies[1] == api.bodies[0]
    assert "data: [DONE]" in done.stdout


def run_by_bash(command: str, folder: Path, **extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "NO_PROXY": "*", **extra},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_a_key_is_asked_for_and_sent(page: Page, api: ApiDouble, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page.expected = ["status of 401"]
    api.key = "the schlüssel of the tests"
    sent = f"Bearer {api.key}".encode().decode("latin-1")  # a header is its bytes
    page.ask("hello")
    page.ended()
    assert "The server wants an API key." in page.text(".error")
    assert page.focused().get_attribute("id") == "key"
    page.focused().send_keys(api.key, Keys.ENTER)
    page.wait(lambda: page.text(".answer-text") == "version 3 says yes")
    page.ended()
    assert api.authorizations == [None, sent]
    assert page.all("#key-form") == [] and page.all(".error") == []
    assert page.script("return [sessionStorage.length, localStorage.length]") == [1, 0]
    command = page.copied(".curl")
    assert api.key not in command and '-H "Authorization: Bearer $SLM_API_KEY"' in command
    run_by_bash(command, tmp_path, SLM_API_KEY=api.key)
    assert api.authorizations[2] == sent
    page.one("#key-toggle").click()
    page.one("#forget").click()
    assert page.script("return sessionStorage.length") == 0


def test_a_key_is_asked_for_at_the_beginning(page: Page, api: ApiDouble) -> None:
    from selenium.webdriver.common.keys import Keys

    page.expected = ["status of 401"]
    api.key = "a-key-of-the-tests"
    page.open()
    assert page.text("#served").startswith("The server wants an API key.")
    page.wait(lambda: page.focused().get_attribute("id") == "key")
    page.focused().send_keys("another", Keys.ENTER)
    page.wait(lambda: page.focused().get_attribute("id") == "key")
    page.focused().send_keys(api.key, Keys.ENTER)
    page.wait(lambda: page.text("#version-0") == "version 3 · int4")
    assert page.text("#served").startswith("Served here: ")


@pytest.mark.parametrize(("header", "wait"), [(None, 0), ("7", 7), ("soon", 0), ("-3", 0)])
def test_retry_after_is_read(page: Page, header: str | None, wait: int) -> None:
    assert page.script("return waitOf(arguments[0])", header) == wait
    in_a_minute = page.script("return waitOf(new Date(Date.now() + 60000).toUTCString())")
    assert 58 <= in_a_minute <= 60


def test_a_busy_server_says_how_long_to_wait(page: Page, api: ApiDouble) -> None:
    page.expected = ["status of 429"]
    page.ask("busy")
    page.ended()
    said = page.text(".error")
    assert "The server is busy: too many requests wait.\n2 requests wait already" in said
    assert "The server asks to wait 1 second." in said
    again = page.one(".error .again")
    assert again.text == "Ask again in 1 s" and not again.is_enabled()
    page.wait(lambda: again.is_enabled())
    again.click()
    page.wait(lambda: page.text(".answer-text") == "version 3 says yes")
    assert api.bodies[0] == api.bodies[1]


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        ("wrong", 400, ["did not accept", "expected at most 64", "Field: max_tokens."]),
        ("broken", None, ["The answer broke off.\nno memory", "Code: model_error."]),
        ("cut", None, ["The answer broke off.", "ended before the answer did"]),
    ],
)
def test_what_fails_is_said_beside_the_question(
    page: Page, api: ApiDouble, question: str, status: int | None, words: list[str]
) -> None:
    page.expected = [f"status of {status}"] if status else []
    page.ask(question)
    page.ended()
    for word in words:
        assert word in page.text(".turn .error")
    assert page.text(".answer-text") == ("" if status else "half")
    assert page.one(".turn .again").is_enabled()
    page.ask("go on")  # what failed is not part of the conversation
    page.ended(2)
    assert len(api.bodies[-1]["messages"]) == 1


def test_a_server_that_is_gone_is_said(page: Page) -> None:
    page.expected = ["ERR_INTERNET_DISCONNECTED"]
    page.browser.execute_cdp_cmd("Network.enable", {})
    offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {**offline, "offline": True})
    page.ask("hello")
    page.ended()
    assert "The server could not be reached." in page.text(".error")
    page.browser.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1, "offline": False},
    )
    page.browser.execute_cdp_cmd("Network.disable", {})
    page.one(".error .again").click()
    page.wait(lambda: page.text(".answer-text") == "version 3 says yes")


def test_markup_of_a_model_is_text(page: Page) -> None:
    page.ask("markup")
    page.ended()
    assert page.text(".answer-text") == NASTY
    assert page.script("return window.hit") is None
    assert page.all(".answer img, .answer script") == []


def test_code_is_a_block_with_a_button(page: Page) -> None:
    page.ask("code")
    page.ended()
    assert page.texts(".answer-text > .text") == ["Take this:", "It greets."]
    assert page.texts(".answer-text pre") == ["print('<b>hi</b>')"]
    assert page.text(".block-head span") == "python"
    assert page.copied(".block-head button") == "print('<b>hi</b>')"
    assert page.copied(".foot .copy").startswith("Take this:\n\n```python\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("one\ntwo", ["one\ntwo"]),
        ("~~~\n```\n~~~", [("", "```")]),
        ("````md\n```py\nx\n```\n````\nend", [("md", "```py\nx\n```"), "end"]),
        ("list:\n  ```sh\n  ls\n  ```", ["list:", ("sh", "  ls")]),
        ("```py\nunfinished\n", [("py", "unfinished\n")]),
        ("```inline``` is no fence", ["```inline``` is no fence"]),
        ("\n\n```\n\n```\n\n", [("", "")]),
    ],
)
def test_fences_are_found(page: Page, text: str, parts: list[str | tuple[str, str]]) -> None:
    found = page.script("return partsOf(arguments[0])", text)
    assert [
        one["text"] if one.get("head") is None else (one["head"], one["text"]) for one in found
    ] == parts


def test_events_may_be_cut_anywhere(page: Page) -> None:
    page.ask("bytes")
    page.ended()
    assert page.text(".answer-text") == BYTES


def test_reasoning_and_tool_calls(page: Page) -> None:
    page.ask("tools")
    page.ended()
    assert page.texts(".calls pre") == ['weather({"city": "Paris"})']
    assert page.texts(".reasoning .text") == []  # closed at the end
    page.one(".reasoning summary").click()
    assert page.texts(".reasoning .text") == ["I need the weather."]


def test_settings_are_sent(page: Page, api: ApiDouble) -> None:
    page.one("#settings-toggle").click()
    page.one("#system").send_keys("Be short.")
    page.one("#temperature").clear()
    page.one("#max-tokens").clear()
    page.one("#max-tokens").send_keys("3")
    page.one("#extra").send_keys('{"seed": 7')
    page.ask("hello")
    assert "not valid JSON" in page.text("#extra-note") and api.bodies == []
    page.one("#extra").send_keys("}")
    page.ask("")
    page.ended()
    (body,) = api.bodies
    assert body["messages"][0] == {"role": "system", "content": "Be short."}
    assert (body["max_tokens"], body["seed"]) == (3, 7) and "temperature" not in body
    assert page.text(".facts .told") == "cut at max tokens"
    page.one("#new").click()
    assert page.all(".turn") == [] and page.all("#empty")
    page.ask("hello")
    page.ended()
    assert [message["role"] for message in api.bodies[1]["messages"]] == ["system", "user"]


def test_all_of_it_by_keyboard(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.one("#settings-toggle").send_keys(Keys.ENTER)
    page.one("#key-toggle").send_keys(Keys.SPACE)
    page.one("#compare").send_keys(Keys.SPACE)
    page.one("#question").send_keys("code", Keys.ENTER)
    page.ended()
    reached = [at_focus(page)]
    while reached.count(reached[0]) < 2 and len(reached) < 60:
        page.focused().send_keys(Keys.TAB)
        reached.append(at_focus(page))
    names = {name for name, _, _ in reached}
    assert {
        *("compare", "settings-toggle", "key-toggle", "new", "model-0", "model-1", "key", "system"),
        *("temperature", "max-tokens", "extra", "conversation", "question", "send"),
        *("Copy code", "Copy", "Copy as curl", "Ask again"),
    } <= names
    unlabelled = [one for one in reached if one[0] != "body" and not one[1]]
    assert unlabelled == []
    without_ring = [one for one in reached if one[0] != "body" and not one[2]]
    assert without_ring == []


def at_focus(page: Page) -> tuple[str, str, bool]:
    """The focused element's name, its label for screen readers, and whether a ring is drawn."""
    name, ring = page.script(
        """const it = document.activeElement;
        const style = getComputedStyle(it);
        const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
        const own = it === document.body ? "body" : it.id || it.ariaLabel || it.textContent;
        return [own, ring]"""
    )
    return name, page.focused().accessible_name or page.focused().text, ring


def test_a_phone_in_the_dark(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    assert page.script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(16, 20, 27)"
    )
    assert fits(page)
    page.one("#compare").send_keys(Keys.SPACE)
    page.one("#settings-toggle").click()
    page.one("#key-toggle").click()
    assert fits(page)
    page.one("#settings-toggle").click()
    page.one("#key-toggle").click()
    for number, question in enumerate(("long", "code"), 1):
        page.ask(question)
        page.ended(number)
        assert fits(page)
    upper, lower = page.all(".turn:last-child .answer")
    assert upper.rect["x"] == lower.rect["x"] and upper.rect["y"] < lower.rect["y"]


def fits(page: Page) -> bool:
    """Whether nothing is wider than the window."""
    return bool(
        page.script(
            """return [document.documentElement, ...document.querySelectorAll("header, main")]
            .every((one) => one.scrollWidth <= 390 && one.scrollWidth <= one.clientWidth)"""
        )
    )


@pytest.mark.parametrize(("motion", "animations"), [("no-preference", 1), ("reduce", 0)])
def test_motion_is_reduced(page: Page, api: ApiDouble, motion: str, animations: int) -> None:
    page.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-reduced-motion", "value": motion}]},
    )
    page.ask("think")
    page.wait(lambda: page.all(".waiting"))
    assert page.script("return document.getAnimations().length") == animations
    api.gate.set()
    page.ended()
    assert page.all(".waiting") == []
