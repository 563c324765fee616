// The page comes from Python, escaped there; here are only its events. No state, no data, no markup of our own.
const TYPED = ["INPUT", "TEXTAREA", "SELECT"];
const KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Escape", "/", "j", "k", "h", "l"];

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "sglib-inspector";
  root.tabIndex = 0;
  root.setAttribute("aria-label", "trajectory inspector");
  el.appendChild(root);
  let timer = null;

  const tell = (target, value) => model.send({ do: target.dataset.do, value });
  const draw = () => {
    const old = document.activeElement;
    const kept = root.contains(old) && old.id ? { id: old.id, at: old.selectionStart, text: old.value } : null;
    const inside = root.contains(old);
    root.innerHTML = model.get("page");
    const again = kept && root.querySelector("#" + CSS.escape(kept.id));
    if (again) {
      again.focus({ preventScroll: true });
      if (again.type === "text" || again.type === "search") {
        again.value = kept.text; // what was typed since the page was asked for
        again.setSelectionRange(kept.at, kept.at);
      }
    } else if (inside) {
      root.focus({ preventScroll: true });
    }
    const marked = root.querySelector("[data-scroll]");
    if (marked) {
      const box = marked.closest(".sglib-scroll");
      if (box) box.scrollTop = marked.offsetTop - box.offsetTop - box.clientHeight / 2;
    }
  };
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
    clearTimeout(timer);
    const value = target.type === "checkbox" ? target.checked : target.value;
    timer = setTimeout(() => tell(target, value), target.type === "search" ? 150 : 0);
  });
  root.addEventListener("keydown", (event) => {
    const typing = TYPED.includes(event.target.tagName);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing && event.key !== "Escape") {
      event.stopPropagation(); // a letter typed here is no command of the notebook
      return;
    }
    if (!KEYS.includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const search = event.key === "/" && root.querySelector("input[type=search]");
    if (search) search.focus();
    else if (typing) root.focus();
    else model.send({ do: "key", value: event.key });
  });
  model.on("change:page", draw);
  draw();
  return () => model.off("change:page", draw);
}
export default { render };
