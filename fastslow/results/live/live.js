"use strict";
// Fetches each part of a page again and again, and replaces what has changed.

const lost = document.getElementById("lost");
const unreachable = new Set();

function kept(part) {
  const open = [...part.querySelectorAll("details")].map((each) => each.open);
  const chosen = new Set([...part.querySelectorAll("input:checked")].map((each) => each.value));
  return () => {
    part.querySelectorAll("details").forEach((each, index) => { each.open = open[index] || false; });
    part.querySelectorAll("input").forEach((each) => { each.checked = chosen.has(each.value); });
  };
}

async function look(part) {
  try {
    const answer = await fetch(part.dataset.live, { cache: "no-store" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(String(answer.status));
    unreachable.delete(part);
    if (part.latest !== text) {
      part.latest = text;
      const restore = kept(part);
      const fresh = new DOMParser().parseFromString(text, "text/html").body;
      part.replaceChildren(...fresh.childNodes);
      restore();
    }
  } catch (error) {
    unreachable.add(part);
  }
  lost.textContent = unreachable.size ? "The server does not answer; what is shown may be old." : "";
}

async function follow(part) {
  for (;;) {
    if (!document.hidden) await look(part);
    await new Promise((resolve) => setTimeout(resolve, Number(part.dataset.every)));
  }
}

document.querySelectorAll("[data-live]").forEach(follow);
