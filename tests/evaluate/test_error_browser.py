"""The error browser: what is packed, what the page says, and how it works in Chromium."""

import base64
import io
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_chromium import opened
from numpy.typing import NDArray
from PIL import Image

from segpets.evaluate.error_browser import Kept, Packed, error_browser, error_page, pack

CLASSES = ("pet", "background", "border")
HOSTILE = (
    "</script><script>failures.push('run')</script><img src=x onerror=alert(1)>\"'&\u2028{{7*7}}"
)
PETS_MINI = Path(__file__).parents[2] / "segpets" / "data" / "pets_mini"


def filled(*rows: list[int]) -> NDArray[np.uint8]:
    return np.array(rows, dtype=np.uint8)


TRUTH = filled([0, 0, 1, 255], [0, 2, 1, 255])
PREDICTED = filled([0, 1, 1, 2], [0, 0, 1, 1])
DOUBT = np.array([[0.0, 0.25, 0.5, 1.0], [0.1, 0.75, 0.0, 1.0]])
GREEN = np.broadcast_to(np.array([10, 200, 30], dtype=np.uint8), (2, 4, 3)).copy()


def unpacked(picture: Packed) -> NDArray[np.uint8]:
    width, height = picture.size
    content = zlib.decompress(base64.b64decode(picture.maps))
    maps = np.frombuffer(content, dtype=np.uint8).reshape(3, height, width).copy()
    maps[2] = maps[2].cumsum(0, dtype=np.uint8).cumsum(1, dtype=np.uint8)
    return maps


def data_of(page: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    found: dict[str, Any] = json.loads(text)
    return found


class Page(HTMLParser):
    """The tags of a page, what it would fetch, and its text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {key for key, _ in attrs}
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += "" if self.tags[-1:] in (["script"], ["style"]) else data


def entry(name: str, mean_iou: float | None = 0.5, **values: Any) -> Kept:
    defaults = {
        "picture": pack(GREEN, TRUTH, PREDICTED, DOUBT),
        "pixel_accuracy": 0.8,
        "iou": {"pet": 0.5, "background": mean_iou, "border": 0.0},
        "attributes": {"breed": "beagle", "species": "dog"},
    }
    return Kept(name=name, mean_iou=mean_iou, **(defaults | values))


def browser(*entries: Kept, **values: Any) -> str:
    defaults = {"classes": CLASSES, "title": "unet: test", "facts": {"resolution": "128 x 128"}}
    return error_browser(entries, **(defaults | values))


def test_a_packed_picture_holds_truth_prediction_and_uncertainty() -> None:
    picture = pack(GREEN, TRUTH, PREDICTED, DOUBT)
    truth, predicted, doubt = unpacked(picture)
    np.testing.assert_array_equal(truth, TRUTH)
    np.testing.assert_array_equal(predicted, PREDICTED)
    np.testing.assert_array_equal(doubt, [[0, 8, 16, 31], [3, 23, 0, 31]])  # of 31 steps
    kind, _, content = picture.image.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - GREEN).max() < 6


def test_shares_are_of_the_pixels_whose_class_is_known() -> None:
    picture = pack(GREEN, TRUTH, PREDICTED, DOUBT)
    assert picture.size == (4, 2)
    assert picture.holds == (0, 1, 2)
    assert picture.wrong == pytest.approx(2 / 6)
    assert picture.sure == pytest.approx(1 / 6), "of the two wrong ones, 0.25 and 0.75"
    assert pack(GREEN, TRUTH, PREDICTED, DOUBT / 4).sure == pytest.approx(2 / 6)
    assert picture.uncertainty == pytest.approx(3.6 / 8)
    nothing = pack(GREEN, np.full_like(TRUTH, 255), PREDICTED, np.full(TRUTH.shape, np.nan))
    assert (nothing.holds, nothing.wrong, nothing.sure) == ((), None, None)
    assert nothing.uncertainty == 1, "what isn't known is uncertain"


def test_a_large_image_is_made_smaller_without_inventing_classes() -> None:
    truth = np.repeat(np.repeat(TRUTH, 100, 0), 100, 1)
    predicted = np.where(truth == 0, 2, truth).astype(np.uint8)
    image = np.broadcast_to(GREEN[0, 0], (200, 400, 3)).copy()
    picture = pack(image, truth, predicted, np.zeros(truth.shape, np.float32), side=40)
    assert picture.size == (40, 20)
    small = np.repeat(np.repeat(TRUTH, 10, 0), 10, 1)
    np.testing.assert_array_equal(unpacked(picture)[0], small)
    assert picture.wrong == pytest.approx(3 / 6)
    line = pack(image[:1, :], truth[:1], predicted[:1], np.zeros((1, 400)), side=40)
    assert line.size == (40, 1)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        pack(GREEN, TRUTH, PREDICTED[:1], DOUBT)
    with pytest.raises(ValueError, match="differ in shape"):
        pack(GREEN[..., :1], TRUTH, PREDICTED, DOUBT)


def test_real_images_take_less_than_25_kB() -> None:
    generator = np.random.default_rng(0)
    for file in sorted((PETS_MINI / "images").iterdir())[:5]:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB").resize((128, 128)))
        # Noise of half the range: rougher than any model's uncertainty.
        doubt = generator.random((16, 16)).repeat(8, 0).repeat(8, 1)
        ids = generator.integers(0, 3, (32, 32), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
        picture = pack(pixels, ids, ids.T, doubt)
        assert len(picture.image) + len(picture.maps) < 25_000


def test_the_page_fetches_nothing_and_says_what_it_holds() -> None:
    text = browser(entry("a", 0.2), entry("b", None), total=3669, chosen="the worst <2>")
    page = Page(text)
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"https?:|url\(|@import|fetch\(|XMLHttp|import\(", text)
    assert "default-src 'none'" in text
    assert "This page holds 2 of 3,669 images: the worst <2>." in page.text
    assert "128 x 128" in page.text
    for name in CLASSES:
        assert name in page.text
    first, second = data_of(text)["images"]
    assert (first["name"], first["mean_iou"], first["values"]) == ("a", 0.2, ["beagle", "dog"])
    assert second["mean_iou"] is None
    assert "This page holds 1 image." in Page(browser(entry("a"))).text


@pytest.mark.parametrize(("scored", "shown"), [(30, 20), (15, 15)])
def test_of_many_images_those_with_pixels_are_shown(scored: int, shown: int) -> None:
    """The worst and the best; where fewer have pixels that count, all of them."""
    picture = pack(GREEN, TRUTH, PREDICTED, DOUBT)
    scores = [n / 100 if n < scored else None for n in range(40)]
    kept = [Kept(f"i{n:02}", picture, score, None) for n, score in enumerate(scores)]
    protocol = {"classes": list(CLASSES), "stage": "test"}
    page = error_page(kept, {"protocol": protocol}, title=Path("run"), most=20)
    names = [entry["name"] for entry in data_of(page)["images"]]
    assert len(names) == shown and len(set(names)) == shown
    assert {"i00", f"i{scored - 1}"} <= set(names)
    assert ("10 worst and the 10 best" in page) == (scored == 30)
    assert ("all 15 of which pixels count" in page) == (scored == 15)


def test_whatever_names_hold_is_text() -> None:
    odd = "half \ud800 letter"
    text = browser(
        entry(HOSTILE, attributes={HOSTILE: HOSTILE, "__proto__": odd}, iou={HOSTILE: 0.1}),
        entry(odd, float("nan"), attributes={}),
        classes=(HOSTILE, odd, "border"),
        title=HOSTILE,
        facts={HOSTILE: HOSTILE, odd: odd},
        total=5,
        chosen=HOSTILE,
    )
    text.encode("utf-8")
    page = Page(text)
    assert "img" not in page.tags
    assert page.tags.count("script") == 2 + 2, "the data, the two pictures, and the program"
    assert not {key for key in page.attributes if key.startswith("on")}
    assert page.text.count(HOSTILE) == 6
    data = data_of(text)
    assert data["images"][0]["name"] == HOSTILE
    assert data["images"][1]["name"] == "half ? letter"
    assert data["images"][1]["mean_iou"] is None
    assert data["keys"] == [HOSTILE, "__proto__"]
    assert data["images"][1]["values"] == ["", ""]


# In a browser

TOOLS = """
const wait = (time = 30) => new Promise(resolve => setTimeout(resolve, time));
const until = async test => { for (let i = 0; i < 300 && !test(); i++) await wait(); };
const painted = () => until(() => canvases(cards[0]).length === kinds().length);
const saved = () => until(() => location.hash.slice(1) === String(state()));
const press = async (key, at = document.activeElement) => {
  at.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  await wait();
};
const set = async (id, value) => {
  const field = typeof id === "string" ? $(id) : id;
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await wait();
};
const order = () => [...list.children].map(card => card.querySelector("strong").textContent);
const picked = () => list.querySelector("[aria-selected=true] strong")?.textContent;
const colour = (canvas, x, y) => {
  const copy = element("canvas", { width: 1, height: 1 });
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(canvas, -x, -y);
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const canvases = card => [...card.querySelectorAll("canvas")];
await until(() => !images.length || canvases(document).length);
"""


def asked(page: str, script: str, folder: Path, *, fragment: str = "") -> dict[str, Any]:
    with opened(page, folder, fragment=fragment) as tab:
        return tab.ask(TOOLS + script) | {"failures": tab.failures}


@pytest.fixture(scope="module")
def four() -> str:
    sure = pack(GREEN, TRUTH, TRUTH, np.zeros(TRUTH.shape))
    cat = {"breed": "Bombay", "species": "cat"}
    no_border = np.where(TRUTH == 2, 0, TRUTH).astype(np.uint8)
    return browser(
        entry("middle", 0.5, iou={"pet": 0.9, "background": 0.5}),
        entry("best", 0.9, picture=sure, attributes=cat, iou={"pet": 0.95, "border": 0.7}),
        entry("none", None, iou={}),
        entry("Worst", 0.2, attributes=cat, picture=pack(GREEN, no_border, PREDICTED, DOUBT)),
    )


@pytest.mark.slow
@pytest.mark.browser
def test_images_are_sorted_and_filtered(four: str, tmp_path: Path) -> None:
    script = """
    seen.first = order(); seen.picked = picked();
    await press("b"); seen.best = order();
    await press("b");
    await set("sort", "iou0"); seen.pet = order();
    await set("sort", "uncertainty"); seen.uncertain = order();
    await set("sort", "name"); seen.name = order();
    await set("sort", "mean_iou");
    const species = form.elements["by.species"];
    seen.species = [...species.options].map(option => option.textContent);
    await set(species, "cat"); seen.cats = order(); seen.summary = $("summary").textContent;
    seen.others = [...species.options].map(option => option.textContent);
    seen.breeds = [...form.elements["by.breed"].options].map(option => option.textContent);
    await set(species, "");
    seen.classes = [...$("class").options].map(option => option.textContent);
    await set("class", "2"); seen.with_border = order();
    await set("class", "!2"); seen.invented = order();
    await set("class", "0"); await set("below", "0.92"); seen.below = order();
    await set("class", ""); seen.mean_below = order();
    await set("below", ""); await set("q", "WO"); seen.searched = order();
    await saved(); seen.hash = location.hash;
    await set("q", "nothing"); seen.nothing = [order(), $("summary").textContent];
    $("clear").click(); await wait(); seen.reset = order();
    """
    assert asked(four, script, tmp_path) == {
        "first": ["Worst", "middle", "best", "none"],
        "picked": "Worst",
        "best": ["best", "middle", "Worst", "none"],
        "pet": ["Worst", "middle", "best", "none"],  # 0.5, 0.9, 0.95
        "uncertain": ["middle", "none", "Worst", "best"],  # three are equal
        "name": ["best", "middle", "none", "Worst"],
        "species": ["any species", "cat (2)", "dog (2)"],
        "others": ["any species", "cat (2)", "dog (2)"],
        "cats": ["Worst", "best"],
        "summary": "2 of 4 images. Their means: mean IoU 0.550, pixel accuracy 0.800, "
        "uncertainty 0.225",
        "breeds": ["any breed", "Bombay (2)", "beagle (0)"],
        "classes": [
            "any class",
            *("with pet (4)", "with background (4)", "with border (3)", "wrongly border (1)"),
        ],
        "with_border": ["middle", "best", "none"],
        "invented": ["Worst"],
        "below": ["Worst", "middle"],
        "mean_below": ["Worst", "middle", "best"],
        "searched": ["Worst"],
        "hash": "#q=WO",
        "nothing": [[], "No image matches: Reset shows all"],
        "reset": ["Worst", "middle", "best", "none"],
        "failures": [],
    }


@pytest.mark.slow
@pytest.mark.browser
def test_pictures_show_the_colours_of_classes_and_errors(four: str, tmp_path: Path) -> None:
    script = """
    await painted();
    const [image, truth, prediction, errors, doubt] = canvases(cards[0]);
    seen.truth = [colour(truth, 0, 0), colour(truth, 1, 1), colour(truth, 3, 0)];
    seen.prediction = [colour(prediction, 1, 0), colour(prediction, 3, 0)];
    seen.errors = [colour(errors, 1, 1), colour(errors, 3, 0)];
    seen.pale = colour(errors, 0, 0);
    seen.doubt = [colour(doubt, 0, 0), colour(doubt, 3, 1)];
    seen.image = colour(image, 0, 0);
    $("red").click(); await wait();
    seen.red = colour(canvases(cards[0])[3], 1, 1);
    const box = canvases(cards[0])[1].getBoundingClientRect();
    const at = { clientX: box.left + box.width * 0.3, clientY: box.top + box.height * 0.75 };
    canvases(cards[0])[1].dispatchEvent(new PointerEvent("pointermove", { ...at, bubbles: true }));
    await wait(); seen.tip = tip.textContent;
    seen.marked = cards[0].matches(".pointed");
    document.body.dispatchEvent(new PointerEvent("pointermove", { bubbles: true }));
    await wait(); seen.hidden = tip.hidden;
    """
    seen = asked(four, script, tmp_path)
    pet, border, grey = [230, 159, 0], [86, 180, 233], [128, 128, 128]
    assert seen["failures"] == [], seen
    assert seen["truth"] == [pet, border, grey]
    assert seen["prediction"] == [[0, 0, 0], border]
    assert seen["doubt"] == [[0, 0, 4], [252, 255, 164]]
    assert seen["errors"] == [pet, grey]
    pale = 255 - 0.25 * (255 - GREEN[0, 0].astype(float))
    assert np.abs(np.subtract(seen["pale"], pale)).max() < 4
    assert np.abs(np.subtract(seen["image"], GREEN[0, 0])).max() < 6
    assert seen["red"] == [230, 0, 38]
    assert (seen["marked"], seen["hidden"]) == (True, True)
    assert seen["tip"] == "truth border, prediction pet, uncertainty 0.74"


@pytest.mark.slow
@pytest.mark.browser
def test_the_keyboard_does_it_all(four: str, tmp_path: Path) -> None:
    script = """
    await press("j"); seen.j = picked(); seen.focus = document.activeElement === cards[0];
    await press("ArrowDown"); await press("ArrowRight"); seen.down = picked();
    await press("Home"); seen.home = picked();
    await press("End"); await press("k"); seen.end_k = picked();
    const seen_kinds = () => canvases(cards[0]).map(canvas => canvas.ariaLabel);
    await press("2"); await press("5"); await painted(); seen.panels = seen_kinds();
    await press("2"); await press("5"); await painted(); seen.all = seen_kinds().length;
    await press("/"); seen.search = document.activeElement.id;
    await press("j"); await press("1"); seen.typed = [picked(), seen_kinds().length];
    await press("Escape"); seen.left = document.activeElement.id;
    await press("?"); seen.help = help.open; help.close();
    await press("Home"); await press("Enter");
    const stage = () => $("stage").querySelector("canvas");
    await until(stage);
    seen.large = [large.open, $("name").textContent, $("place").textContent];
    seen.pixelated = getComputedStyle(stage()).imageRendering;
    seen.magnified = stage().getBoundingClientRect().width > 400;
    await press("]"); await press("]"); await press("]"); await press("]"); await press("]");
    seen.prediction = colour(stage(), 3, 0);
    await press("2"); seen.truth = [$("over").textContent, colour(stage(), 1, 1)];
    $("blend").value = 0; $("blend").dispatchEvent(new Event("input")); await wait();
    seen.image_only = colour(stage(), 1, 1)[1] > 190;
    await press("j"); seen.next = [$("name").textContent, $("place").textContent];
    await saved(); seen.hash = location.hash;
    """
    closed = """
    await until(() => document.activeElement === cards[0]);
    seen.closed = [large.open, picked(), document.activeElement.id];
    """
    with opened(four, tmp_path) as tab:
        seen = tab.ask(TOOLS + script)
        tab.escape()
        seen |= tab.ask(TOOLS + closed) | {"failures": tab.failures}
    assert seen == {
        "j": "middle",
        "focus": True,
        "down": "none",
        "home": "Worst",
        "end_k": "best",
        "panels": ["image", "prediction", "errors"],
        "all": 5,
        "search": "q",
        "typed": ["best", 5],
        "left": "entry1",
        "help": True,
        "large": [True, "Worst", "1 of 4"],
        "pixelated": "pixelated",
        "magnified": True,
        "prediction": [86, 180, 233],
        "truth": ["truth", [230, 159, 0]],
        "image_only": True,
        "next": ["middle", "2 of 4"],
        "hash": "#image=0&large=truth",
        "closed": [False, "middle", "entry0"],
        "failures": [],
    }


@pytest.mark.slow
@pytest.mark.browser
def test_the_address_brings_back_what_was_chosen(four: str, tmp_path: Path) -> None:
    script = """
    seen.order = order(); seen.picked = picked(); seen.large = large.open;
    await until(() => canvases(cards[1]).length); seen.panels = canvases(cards[1]).length;
    await saved(); seen.same = location.hash;
    location.hash = "#sort=nonsense&class=77&by.breed=wolf&image=99&large=x&panels=%00&q=%";
    await wait(100);
    seen.nonsense = [form.elements.sort.value, $("class").value, large.open, order()];
    location.hash = ""; await until(() => order().length === 4); seen.plain = order();
    """
    fragment = "sort=name&by.species=cat&order=best&red=1&panels=134&image=1&large=errors"
    seen = asked(four, script, tmp_path, fragment=fragment)
    same = dict(word.split("=") for word in seen.pop("same").lstrip("#").split("&"))
    assert same == dict(word.split("=") for word in fragment.split("&"))
    assert seen == {
        "order": ["Worst", "best"],
        "picked": "best",
        "large": True,
        "panels": 3,
        "nonsense": ["mean_iou", "", False, []],
        "plain": ["Worst", "middle", "best", "none"],
        "failures": [],
    }


@pytest.mark.slow
@pytest.mark.browser
def test_hostile_names_run_nothing_and_odd_pages_open(tmp_path: Path) -> None:
    many = [f"class {index}" for index in range(254)] + [HOSTILE]
    wide = np.full((1, 300, 3), 7, np.uint8)
    one = pack(wide, np.full((1, 300), 254, np.uint8), np.full((1, 300), 3, np.uint8), wide[..., 0])
    page = browser(
        entry(HOSTILE, picture=one, attributes={HOSTILE: HOSTILE, "q": "x"}, iou={HOSTILE: 0.1}),
        entry("\ud800", attributes={"order": "\udfff", "__proto__": "y"}, iou={}),
        classes=many,
    )
    script = """
    seen.names = order();
    for (const field of form.querySelectorAll("select[name^='by.']"))
      await set(field, field.options[1].value);
    await saved(); seen.hash = location.hash.length > 10;
    await set("q", "%"); await press("Enter", list);
    $("clear").click(); await wait();
    await press("Enter", document.body); seen.name = $("name").textContent;
    seen.images = document.querySelectorAll("img").length;
    await painted(); seen.panels = canvases(cards[0]).length;
    """
    seen = asked(page, script, tmp_path)
    assert seen == {
        "names": [HOSTILE, "?"],
        "hash": True,
        "name": HOSTILE,
        "images": 0,
        "panels": 5,
        "failures": [],
    }
    (tmp_path / "empty").mkdir()
    empty = asked(browser(), "await press('j'); await press('Enter');", tmp_path / "empty")
    assert empty == {"failures": []}
