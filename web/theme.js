// Before the first paint, so that a dark page never flashes.
try {
  const kept = localStorage.getItem('kvasir.theme');
  const dark = kept === 'dark' || (kept !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
} catch (error) {
  // No storage: the page follows the light theme until main.js knows better.
}
