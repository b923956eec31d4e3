"""A headless Chromium that a test drives by the DevTools protocol, without a package for it."""

import asyncio
import base64
import json
import shutil
from contextlib import asynccontextmanager
from itertools import count

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """A tab: what it asked the network for, what it may be told to do."""

    def __init__(self, socket):
        self.socket, self.numbers, self.replies = socket, count(1), {}
        self.requests, self.errors = [], []

    async def listen(self):
        async for message in self.socket:
            content = json.loads(message.data)
            if "id" in content:
                self.replies.pop(content["id"]).set_result(content)
            elif content["method"] == "Network.requestWillBeSent":
                self.requests.append(content["params"]["request"]["url"])
            elif content["method"] == "Network.webSocketCreated":
                self.requests.append(content["params"]["url"])
            elif content["method"] == "Runtime.exceptionThrown":
                self.errors.append(content["params"]["exceptionDetails"].get("exception", {}).get("description", "?"))

    async def tell(self, method, **parameters):
        number = next(self.numbers)
        self.replies[number] = asyncio.get_running_loop().create_future()
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        reply = await asyncio.wait_for(self.replies[number], 20)
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    async def js(self, expression):
        reply = await self.tell("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, f"{expression}: {reply['exceptionDetails']}"
        return reply["result"].get("value")

    async def until(self, expression, seconds=30.0):
        """Wait until a JavaScript expression is true."""
        for _ in range(int(seconds * 10)):
            if await self.js(f"Boolean({expression})"):
                return
            await asyncio.sleep(0.1)
        text = await self.js("document.body.innerText")
        raise AssertionError(f"never: {expression}\n{text[:1500]}")

    async def box(self, element):
        """Return left, top, width and height of what a JavaScript expression finds, once it is in sight and rests."""
        before, now = None, [0]
        while before != now:
            await self.until(element)
            before = now
            now = await self.js(
                f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
                "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height] })()"
            )
            await asyncio.sleep(0.05)
        return now

    async def mouse(self, element, *points):
        """Press the mouse at the first of some points of an element, shares of its width and height, and draw on."""
        left, top, width, height = await self.box(element)
        at = [{"x": left + x * width, "y": top + y * height, "button": "left", "clickCount": 1} for x, y in points]
        await self.tell("Input.dispatchMouseEvent", type="mouseMoved", **at[0])
        await self.tell("Input.dispatchMouseEvent", type="mousePressed", **at[0], buttons=1)
        for there in at[1:]:
            await self.tell("Input.dispatchMouseEvent", type="mouseMoved", **there, buttons=1)
        await self.tell("Input.dispatchMouseEvent", type="mouseReleased", **at[-1])

    async def click(self, element):
        await self.mouse(element, (0.5, 0.5))

    async def upload(self, selector, file):
        """Hand a file to the `<input type=file>` that a selector finds."""
        found = await self.tell("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        await self.tell("DOM.setFileInputFiles", files=[str(file)], objectId=found["result"]["objectId"])

    async def picture(self):
        """Return a PNG of the whole page, for whoever wants to look at it."""
        reply = await self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(reply["data"])


@asynccontextmanager
async def opened(url, folder, size=(1000, 900)):
    """Open a page in a browser of its own that can reach no host but 127.0.0.1; downloads land in `folder`."""
    profile = folder / "profile"
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
        f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            await asyncio.sleep(0.1)
            known = profile / "DevToolsActivePort"
            if known.is_file() and len(known.read_text().split()) == 2:
                break
        port = known.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            tabs = await (await session.get(f"http://127.0.0.1:{port}/json")).json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Network", "Page", "Runtime"):
                    await page.tell(f"{domain}.enable")
                await page.tell("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
                await page.tell("Page.navigate", url=url)
                yield page
                listening.cancel()
    finally:
        browser.terminate()
        await browser.wait()


def seen(selector, text=""):
    """Return the JavaScript expression of the first element in sight that a selector finds and that holds a text."""
    return f"[...document.querySelectorAll({selector!r})].find(e => e.offsetParent && e.innerText.includes({text!r}))"
