"""The page at ``/`` in a real browser: its microphone asks, the receptionist answers, and both are on the page."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Page, expect

from tests.browser.conftest import Server, heard_words

CLICK_TO_SOUND_BAR_MS = 1_500
NUMBER = "+15550100"
PLUMBER = "+15550101"


async def _call(page: Page, server: Server, number: str = NUMBER) -> None:
    await page.goto(server.url)
    await expect(page.get_by_role("status")).to_have_text("Ready.")
    await page.get_by_label("Call", exact=True).select_option(number)
    await page.get_by_role("button", name="Call", exact=True).click()


async def test_a_spoken_question_gets_the_right_spoken_answer(page: Page, demo_server: Server) -> None:
    await _call(page, demo_server)
    lines = page.get_by_role("log").get_by_role("listitem")
    await expect(lines.nth(0)).to_contain_text("Thank you for calling Bright Smile Dental", timeout=20_000)
    await expect(lines.nth(1)).to_contain_text(re.compile("You.*opening hours", re.S), timeout=30_000)
    await expect(lines.nth(2)).to_contain_text(re.compile("Receptionist.*Friday", re.S), timeout=20_000)
    asked_ms = await page.evaluate("performance.now()")
    await expect(page.get_by_role("status")).to_have_text("Connected. Speak.", timeout=20_000)
    clicked, sounded = await page.evaluate("[listenIn.clickedAt, listenIn.firstSoundAt]")
    words = await heard_words(page, demo_server.model_url, asked_ms - 2_000)
    assert "Friday" in words, words
    assert re.search(r"\b(2|two)(\b|pm)", words), words
    await page.get_by_role("button", name="Hang up").click()
    await expect(page.get_by_role("status")).to_have_text("You have hung up.")
    print(f"click to first sound: {sounded - clicked:.0f} ms")
    assert sounded - clicked < CLICK_TO_SOUND_BAR_MS


async def test_mute_keys_and_a_second_call(page: Page, demo_server: Server) -> None:
    await _call(page, demo_server, PLUMBER)
    lines = page.get_by_role("log").get_by_role("listitem")
    await expect(lines.nth(0)).to_contain_text("Rapid Plumbing", timeout=20_000)
    mute = page.get_by_role("button", name="Mute")
    await mute.click()
    await expect(mute).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="Keypad").click()
    for key in ("1", "star", "0", "hash"):
        await page.get_by_role("button", name=key, exact=True).click()
    # The question is spoken into a muted microphone: nobody hears it.
    await page.wait_for_timeout(9_000)
    await expect(page.locator("#transcript .caller")).to_have_count(0)
    await expect(page.get_by_role("alert")).to_be_hidden()
    await page.get_by_role("button", name="Hang up").click()
    await page.get_by_label("Call", exact=True).select_option(NUMBER)
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(lines.nth(0)).to_contain_text("Bright Smile Dental", timeout=20_000)
    await expect(mute).to_have_attribute("aria-pressed", "false")
    await page.get_by_role("button", name="Hang up").click()
    await expect(page.get_by_role("status")).to_have_text("You have hung up.")


async def test_a_server_that_lists_no_numbers_is_called_at_the_one_in_the_address(
    browser: Browser, demo_server: Server
) -> None:
    page = await browser.new_page()
    await page.route("**/api/numbers", lambda route: route.fulfill(json=[]))
    await page.goto(demo_server.url)
    await expect(page.get_by_role("status")).to_have_text("There is no number to call here.")
    await page.goto(f"{demo_server.url}/?number=%2B15550100")
    await expect(page.get_by_label("Call", exact=True)).to_have_value("+15550100")
    await expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()


async def test_what_goes_wrong_is_said_in_words(browser: Browser, demo_server: Server) -> None:
    page = await browser.new_page()
    await page.route(
        "**/api/numbers", lambda route: route.fulfill(json=[{"number": "+15559999", "business_name": "No"}])
    )
    await page.goto(demo_server.url)
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_have_text("there is no such number or key here")
    await expect(page.get_by_role("status")).to_have_text("No call.")
    await page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("opened as https://")
