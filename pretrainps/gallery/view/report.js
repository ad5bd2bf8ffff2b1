// Enlarge: the whole scene with the person's box, over the page. Arrows move within one search, Escape closes.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  const [stage, scene, box] = [".stage", ".stage img", ".stage .box"].map((part) => viewer.querySelector(part));
  const [what, where] = [".what", ".where"].map((part) => viewer.querySelector(part));
  const [back, on] = [".back", ".on"].map((part) => viewer.querySelector(part));
  const scenes = document.getElementById("scenes").content;
  let row = []; // the people of the search that is shown
  let place = 0;

  const show = (to) => {
    if (to < 0 || to >= row.length) return;
    place = to;
    const data = row[place].dataset;
    const stored = scenes.querySelector(`[data-scene="${data.scene}"]`);
    const [width, height] = ["width", "height"].map((side) => stored.getAttribute(side));
    stage.style.setProperty("--shape", width / height);
    stage.style.setProperty("--pixels", width);
    scene.src = stored.src;
    scene.alt = row[place].querySelector("img").alt;
    ["left", "top", "width", "height"].forEach((side, index) => {
      box.style[side] = `${data.box.split(" ")[index]}%`;
    });
    what.textContent = data.what;
    where.textContent = data.where;
    back.disabled = place === 0;
    on.disabled = place === row.length - 1;
  };

  document.querySelectorAll("section").forEach((section) => {
    const sights = [...section.querySelectorAll("button.sight")];
    sights.forEach((sight, index) => {
      sight.addEventListener("click", () => {
        row = sights;
        show(index);
        viewer.showModal();
      });
    });
  });
  back.addEventListener("click", () => show(place - 1));
  on.addEventListener("click", () => show(place + 1));
  viewer.querySelector(".close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  // on the document: a button that is disabled while it has the focus gets no keys
  document.addEventListener("keydown", (event) => {
    if (!viewer.open) return;
    if (event.key === "ArrowLeft") show(place - 1);
    if (event.key === "ArrowRight") show(place + 1);
  });
  let start = 0; // a swipe sideways moves, too
  stage.addEventListener("touchstart", (event) => (start = event.changedTouches[0].clientX), { passive: true });
  stage.addEventListener("touchend", (event) => {
    const moved = event.changedTouches[0].clientX - start;
    if (Math.abs(moved) > 60 && window.visualViewport.scale === 1) show(place - Math.sign(moved));
  });
  viewer.addEventListener("close", () => row[place].focus());
})();
