// The pages come from Python, escaped there; here are only their events. No state, no data, no markup of our own.
const TYPED = ["INPUT", "TEXTAREA", "SELECT"];
const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Escape", "/", "j", "k", "h", "l"];

// One trait shown in one box, which is redrawn when that trait changes and at no other time.
function part(model, root, trait) {
  const box = document.createElement("div");
  root.appendChild(box);
  const draw = () => {
    const old = document.activeElement;
    const inside = box.contains(old);
    const place = inside ? [...box.querySelectorAll("[data-do]")].indexOf(old) : -1;
    const kept = inside && old.id ? { id: old.id, at: old.selectionStart, text: old.value } : null;
    box.innerHTML = model.get(trait);
    const again = kept ? box.querySelector("#" + CSS.escape(kept.id)) : box.querySelectorAll("[data-do]")[place];
    if (again) {
      again.focus({ preventScroll: true });
      if (kept && ["text", "search", "number"].includes(again.type)) {
        again.value = kept.text; // what was typed since the page was asked for
        if (again.type !== "number") again.setSelectionRange(kept.at, kept.at);
      }
    }
    if (inside && !box.contains(document.activeElement)) root.focus({ preventScroll: true });
    const marked = box.querySelector("[data-scroll]");
    const scrolled = marked && marked.closest(".sglib-scroll");
    if (scrolled) scrolled.scrollTop = marked.offsetTop - scrolled.offsetTop - scrolled.clientHeight / 2;
  };
  model.on("change:" + trait, draw);
  draw();
  return () => model.off("change:" + trait, draw);
}

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "sglib-inspector";
  root.tabIndex = 0;
  root.setAttribute("aria-label", "trajectory inspector");
  el.appendChild(root);
  const timers = {}; // of each control: one must not swallow what another one has to tell

  const tell = (target, value) => model.send({ do: target.dataset.do, value });
  root.addEventListener("click", (event) => {
    const target = event.target.closest("[data-do]");
    if (!target || (TYPED.includes(target.tagName) && target.type !== "button")) return;
    event.preventDefault();
    const form = target.closest("[data-form]");
    if (!form) return tell(target, target.dataset.value ?? null);
    const values = {};
    for (const field of form.querySelectorAll("[name]")) values[field.name] = field.value;
    tell(target, values);
  });
  root.addEventListener("input", (event) => {
    const target = event.target;
    if (!target.dataset.do) return;
    clearTimeout(timers[target.dataset.do]);
    const value = target.type === "checkbox" ? target.checked : target.value;
    timers[target.dataset.do] = setTimeout(() => tell(target, value), ["search", "number"].includes(target.type) ? 150 : 0);
  });
  root.addEventListener("keydown", (event) => {
    const typing = TYPED.includes(event.target.tagName) && event.target.type !== "checkbox";
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing && event.key !== "Escape") {
      event.stopPropagation(); // a letter typed here is no command of the notebook
      return;
    }
    const opens = event.key === "Enter" && event.target.closest("[data-do]");
    if (!KEYS.includes(event.key) && !opens) return;
    event.preventDefault();
    event.stopPropagation();
    const search = event.key === "/" && root.querySelector("input[type=search]");
    if (opens) opens.click();
    else if (search) search.focus();
    else if (typing) root.focus();
    else model.send({ do: "key", value: event.key });
  });
  const ends = ["page", "below"].filter((trait) => model.get(trait) !== undefined).map((trait) => part(model, root, trait));
  return () => ends.forEach((end) => end());
}
export default { render };
