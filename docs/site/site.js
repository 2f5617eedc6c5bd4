// What the theme leaves out for keyboards and screen readers: what scrolls can be focused, and parts have names.
function name() {
  document.querySelector('.md-search')?.setAttribute('aria-label', 'Search');
  document.querySelectorAll('.md-code__nav:not([aria-label])').forEach((nav, i) => nav.setAttribute('aria-label', `Code block ${i + 1}`));
  document.querySelectorAll(':is(pre > code, .md-typeset__scrollwrap):not([tabindex])').forEach(part => { part.tabIndex = 0; });
}
new MutationObserver(name).observe(document.documentElement, {childList: true, subtree: true});
name();
