(() => {
  "use strict";
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const canvases = [...document.querySelectorAll("[data-figure]")];
  const config = { responsive: true, displayModeBar: false, displaylogo: false, doubleClick: false };
  const PRINTED = 660;

  for (const canvas of canvases) {
    const { data, layout } = figures[canvas.dataset.figure];
    Plotly.newPlot(canvas, data, layout, config);
  }

  function select(list, chosen) {
    for (const tab of list.querySelectorAll("[role=tab]")) {
      const panel = document.getElementById(tab.getAttribute("aria-controls"));
      const shown = tab === chosen;
      tab.setAttribute("aria-selected", String(shown));
      tab.tabIndex = shown ? 0 : -1;
      panel.hidden = !shown;
      if (shown) panel.querySelectorAll("[data-figure]").forEach((plot) => Plotly.Plots.resize(plot));
    }
  }

  for (const list of document.querySelectorAll("[role=tablist]")) {
    const all = [...list.querySelectorAll("[role=tab]")];
    all.forEach((tab, index) => {
      tab.addEventListener("click", () => select(list, tab));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = all[(index + step + all.length) % all.length];
        next.focus();
        select(list, next);
      });
    });
    select(list, all[0]);
  }

  for (const block of document.querySelectorAll("pre.command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      const code = block.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch {
        getSelection().selectAllChildren(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.append(button);
  }

  const links = new Map(
    [...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]),
  );
  const sections = [...document.querySelectorAll("main > section")];
  function follow() {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < 160);
    const current = passed.length ? passed[passed.length - 1].id : sections[0].id;
    for (const [id, link] of links) {
      if (id === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }
  addEventListener("scroll", follow, { passive: true });
  follow();

  addEventListener("beforeprint", () => {
    for (const canvas of canvases) {
      const width = canvas.closest(".slices") ? PRINTED / 2 : PRINTED;
      Plotly.relayout(canvas, { autosize: false, width });
    }
  });
  addEventListener("afterprint", () => {
    for (const canvas of canvases) Plotly.relayout(canvas, { autosize: true, width: null });
  });
  document.documentElement.dataset.drawn = "true";
})();
