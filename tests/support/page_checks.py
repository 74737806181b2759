"""What every page of ours promises in a browser: nothing is cut off, nothing sticks out."""

from tests.support.browser import Browser

WIDTHS = (375, 768, 1440)
"""A phone, a tablet, a laptop, in CSS pixels."""
CUT_OFF = """
(() => {
  const hidden = e => e.closest('.skip, thead, svg') || getComputedStyle(e).display === 'inline';
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const bar = e => e.offsetHeight - e.clientHeight - e.clientTop
    - parseFloat(getComputedStyle(e).borderBottomWidth);
  const name = e => `${e.tagName.toLowerCase()}.${e.className}: `
    + (e.getAttribute('aria-label') || e.textContent).trim().slice(0, 60);
  const problems = [];
  for (const e of document.querySelectorAll('body, body *')) {
    if (hidden(e)) continue;
    const scroller = e.parentElement && e.parentElement.closest('body *') ?
      [...function* () { for (let p = e.parentElement; p; p = p.parentElement) yield p; }()]
        .find(scrolls) : null;
    if (!scroller && e.getBoundingClientRect().right > innerWidth + 1)
      problems.push(`past the window: ${name(e)}`);
    if (e.scrollWidth <= e.clientWidth + 1 || !e.clientWidth) continue;
    if (!scrolls(e) && !scroller) problems.push(`wider than its container: ${name(e)}`);
    if (scrolls(e) && bar(e) < 6) problems.push(`scrolls without a visible bar: ${name(e)}`);
  }
  return problems;
})()
"""
IN_SIGHT = """
(() => {
  const all = [...document.querySelectorAll(%r)];
  const within = (e, box) => e.left >= box.left - 1 && e.right <= box.right + 1;
  return all.length > 0 && all.every(e => {
    const place = e.getBoundingClientRect(), scroll = e.closest('.scroll');
    return place.width > 0 && place.bottom <= innerHeight
      && within(place, {left: 0, right: innerWidth})
      && (!scroll || within(place, scroll.getBoundingClientRect()));
  });
})()
"""


def cut_off(browser: Browser) -> list[str]:
    """Each element of the open page that is wider than its place and has no visible scroll bar."""
    problems: list[str] = browser.value(CUT_OFF)
    return problems


def is_in_sight(browser: Browser, selector: str) -> bool:
    """Whether all that match are there and seen without scrolling, down or sideways."""
    seen: bool = browser.value(IN_SIGHT % selector)
    return seen
