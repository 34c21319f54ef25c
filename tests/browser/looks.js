// What is wrong with how the page looks, computed from the styles that the browser really uses. Sentences; none is good.
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  function rgba(colour) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }
  const over = (top, ground) => [0, 1, 2].map((i) => top[i] * top[3] + ground[i] * (1 - top[3])).concat(1);
  // https://www.w3.org/TR/WCAG22/#dfn-relative-luminance
  function luminance([r, g, b]) {
    const [x, y, z] = [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  }
  function ratio(one, other) {
    const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (light + 0.05) / (dark + 0.05);
  }
  // Every colour that may lie behind an element: a gradient has several.
  function grounds(element) {
    if (!element) return [over(rgba(getComputedStyle(document.documentElement).colorScheme.startsWith("dark") ? "#121212" : "#fff"), [255, 255, 255, 1])];
    const style = getComputedStyle(element), own = rgba(style.backgroundColor);
    const stops = style.backgroundImage.match(/rgba?\([^)]*\)/g) || [];
    if (own[3] === 1 && !stops.length) return [own];
    const behind = grounds(element.parentElement).map((ground) => over(own, ground));
    return stops.length ? stops.flatMap((stop) => behind.map((ground) => over(rgba(stop), ground))) : behind;
  }
  const worst = (colour, element) => Math.min(...grounds(element).map((ground) => ratio(over(rgba(colour), ground), ground)));
  const named = (element) => {
    const row = element.closest("[data-row]");
    return `${row ? row.dataset.row + " " : ""}${element.tagName.toLowerCase()}.${element.getAttribute("class") || element.id || ""}`;
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !element.closest(".hidden");

  function* texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const element = node.parentElement;
      if (node.data.trim() && shown(element) && !element.closest(".skip:not(:focus), script, noscript")) yield [node, element];
    }
  }

  // https://www.w3.org/TR/WCAG22/#contrast-minimum
  function faintTexts() {
    const found = [];
    let seen = 0;
    for (const [node, element] of texts()) {
      const style = getComputedStyle(element), px = parseFloat(style.fontSize);
      const large = px >= 24 || (px >= 18.66 && Number(style.fontWeight) >= 700);
      const is = worst(style.color, element);
      seen += 1;
      if (is < (large ? 3 : 4.5)) found.push(`${is.toFixed(2)}: ${named(element)} "${node.data.trim()}"`);
    }
    return { seen, found };
  }

  // https://www.w3.org/TR/WCAG22/#non-text-contrast: signs, curves and what can be pressed.
  function faintSigns() {
    const found = [];
    let seen = 0;
    for (const sign of document.querySelectorAll(".shape, .trend polyline, .trend circle, button")) {
      if (!shown(sign)) continue;
      const style = getComputedStyle(sign);
      const grounds = sign.closest(".trend") ? [...sign.closest(".trend").querySelectorAll(".zone")].map((zone) => rgba(getComputedStyle(zone).fill)) : [];
      const colours = (sign.tagName === "BUTTON" ? [style.borderColor] : [style.fill, style.stroke]).filter((colour) => colour !== "none");
      const is = Math.max(...colours.map((colour) => Math.min(worst(colour, sign.parentElement), ...grounds.map((ground) => ratio(rgba(colour), ground)))));
      seen += 1;
      if (is < 3) found.push(`${is.toFixed(2)}: ${named(sign)}`);
    }
    return { seen, found };
  }

  // Text outside its box, outside the window, or on other text.
  function misplaced() {
    const found = [], boxes = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > innerWidth) found.push(`the page is ${wide} px wide in a window of ${innerWidth}`);
    for (const [node, element] of texts()) {
      if (element.closest(".notices")) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      for (const word of node.data.matchAll(/[^\s/-]+/g)) {
        const letters = document.createRange();
        letters.setStart(node, word.index);
        letters.setEnd(node, word.index + word[0].length);
        const lines = new Set([...letters.getClientRects()].map((box) => Math.round(box.top)));
        if (word[0].length <= 9 && lines.size > 1) found.push(`broken: ${named(element)} "${word[0]}"`);
      }
      for (const box of range.getClientRects()) {
        if (box.left < -0.5 || box.right > innerWidth + 0.5) found.push(`outside the window: ${named(element)} "${node.data.trim()}"`);
        for (let around = element; around !== document.body; around = around.parentElement) {
          const style = getComputedStyle(around), edge = around.getBoundingClientRect();
          if (style.overflowX !== "visible" && (box.right > edge.right + 0.5 || box.bottom > edge.bottom + 1)) found.push(`cut off: ${named(element)} "${node.data.trim()}"`);
        }
        boxes.push({ box, element, text: node.data.trim() });
      }
    }
    const inHeader = (each) => Boolean(each.element.closest("header"));
    for (const [i, one] of boxes.entries()) {
      for (const other of boxes.slice(i + 1)) {
        if (inHeader(one) !== inHeader(other)) continue;
        const across = Math.min(one.box.right, other.box.right) - Math.max(one.box.left, other.box.left);
        const down = Math.min(one.box.bottom, other.box.bottom) - Math.max(one.box.top, other.box.top);
        // Line boxes of neighbours touch; letters do not below a third of a line.
        if (across > 1 && down > Math.min(one.box.height, other.box.height) / 3) found.push(`on each other: "${one.text}" and "${other.text}"`);
      }
    }
    return { seen: boxes.length, found };
  }

  return { faintTexts: faintTexts(), faintSigns: faintSigns(), misplaced: misplaced() };
})();
