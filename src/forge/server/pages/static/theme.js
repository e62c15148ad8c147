// Before the first paint, so that nothing flashes.
const kept = localStorage.getItem("forge-theme");
if (kept) document.documentElement.dataset.theme = kept;
