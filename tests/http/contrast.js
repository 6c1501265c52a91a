// The contrast ratio of each element that holds text itself (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio).
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const rgba = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const luminance = ([r, g, b]) => {
  const linear = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = rgba(getComputedStyle(element).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255];
};
const holdsText = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
return [...document.querySelectorAll(arguments[0])]
  .filter((element) => element.checkVisibility() && !element.closest("svg") && holdsText(element))
  .map((element) => {
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= getComputedStyle(at).opacity;
    const under = ground(element);
    const text = [...rgba(getComputedStyle(element).color)].map((c, i) => c * opacity + under[i] * (1 - opacity));
    const [light, dark] = [luminance(text), luminance(under)].sort((a, b) => b - a);
    return (light + 0.05) / (dark + 0.05);
  });
