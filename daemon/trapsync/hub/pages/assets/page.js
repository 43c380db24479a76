// Keys, swipes and zoom for a picture. Without this file the links of the page do the same, but for the zoom.
"use strict";

(() => {
  const viewer = document.querySelector(".viewer");
  if (!viewer) return;
  const picture = viewer.querySelector("img");
  const STEP = 1.5;
  const MOST = 8;
  const SWIPE = 60; // CSS pixels
  let zoom = 1;

  const follow = (kind) => {
    const link = document.querySelector(`a[rel="${kind}"]`);
    if (link) location.assign(link.href);
  };

  // The middle of what is seen stays in the middle.
  const zoomTo = (wanted) => {
    const next = Math.min(Math.max(wanted, 1), MOST);
    const across = (viewer.scrollLeft + viewer.clientWidth / 2) / zoom;
    const down = (viewer.scrollTop + viewer.clientHeight / 2) / zoom;
    if (next > 1 && zoom === 1) viewer.style.height = `${viewer.clientHeight}px`;
    if (next === 1) viewer.style.height = "";
    zoom = next;
    viewer.classList.toggle("zoomed", zoom > 1);
    picture.style.width = zoom > 1 ? `${zoom * 100}%` : "";
    viewer.scrollTo(across * zoom - viewer.clientWidth / 2, down * zoom - viewer.clientHeight / 2);
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const does = {
      ArrowLeft: () => follow("prev"),
      ArrowRight: () => follow("next"),
      Escape: () => (zoom > 1 ? zoomTo(1) : follow("up")),
      "+": () => zoomTo(zoom * STEP),
      "-": () => zoomTo(zoom / STEP),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });

  viewer.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab, say
    event.preventDefault();
    zoomTo(zoom > 1 ? 1 : 3);
  });

  // Who has enlarged the page with two fingers moves it with one.
  const isWhole = () => zoom === 1 && !(window.visualViewport && window.visualViewport.scale > 1.05);
  let begin = null;
  viewer.addEventListener("touchstart", (event) => {
    begin = event.touches.length === 1 && isWhole() ? event.touches[0] : null;
  }, { passive: true });
  viewer.addEventListener("touchend", (event) => {
    const end = event.changedTouches[0];
    if (!begin || event.touches.length) return;
    const across = end.clientX - begin.clientX;
    const down = end.clientY - begin.clientY;
    begin = null;
    if (Math.abs(across) > SWIPE && Math.abs(across) > 2 * Math.abs(down)) follow(across > 0 ? "prev" : "next");
  }, { passive: true });

  // The next picture is fetched meanwhile.
  const next = document.querySelector("a[data-picture]");
  if (next) picture.decode().catch(() => undefined).then(() => { new Image().src = next.dataset.picture; });
})();
