// The canvas of BoxPrompt: draws the image, takes boxes and points from pointer and keyboard, shows the masks that the
// kernel sends back. One pane a model; all panes share boxes, points and zoom. Coordinates are pixels of the original
// image; `view` alone converts them to pixels of the screen.

const COLORS = { truth: "#009E73", mask: "#F0E442", prompt: "#56B4E9", background: "#D55E00" };
const GRAB = 8; // pixels of the screen within which an edge is caught; fingers get twice that
const CLICK = 3; // a shorter way than this is a click, not a drag
const MAX_HEIGHT = 560;
const MAX_UPLOAD = 200e6; // bytes
const PART = 2e6; // the server closes the connection on a message of 10 MB
const HELP =
  "Drag to draw a box; drag its inside to move it, its edges to resize it; hold Ctrl to draw inside another. " +
  "Keys: arrows move, Shift+arrows resize, Ctrl+arrows make big steps, Enter adds a box, F and B add a foreground or " +
  "background point, N selects the next, Delete removes, Ctrl+Z takes back, Escape cancels, + and - zoom, 0 shows all.";

let widgets = 0;

const counted = (list, one, ending) => `${list.length} ${one}${list.length === 1 ? "" : ending}`;
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

function make(tag, properties = {}, ...children) {
  const { dataset, aria, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, dataset);
  for (const [name, value] of Object.entries(aria ?? {})) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

// Pictures

const decode = (bytes) => createImageBitmap(new Blob([bytes], { type: "image/png" }));

// A mask as a picture in its colour and as the path of its outline, along the edges of the pixels shown.
async function decodeLayer(layer, color) {
  if (!layer) return null;
  const bitmap = await decode(layer.bytes);
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const words = new Uint32Array(pixels.data.buffer);
  const inside = new Uint8Array((width + 2) * (height + 2)); // with a rim of background
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const tint = (255 << 24) | (blue << 16) | (green << 8) | red;
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      const on = (words[at] & 255) > 127;
      words[at] = on ? tint : 0;
      if (on) inside[(y + 1) * (width + 2) + x + 1] = 1;
    }
  }
  context.putImageData(pixels, 0, 0);
  return { x: layer.x, y: layer.y, picture: canvas, path: outline(inside, width, height) };
}

function outline(inside, width, height) {
  const path = new Path2D();
  const row = width + 2;
  const trace = (along, across, step, jump, line) => {
    for (let j = 0; j <= across; j++) {
      for (let i = 0, start = -1; i <= along; i++) {
        const at = (i + 1) * step + (j + 1) * jump;
        const edge = i < along && inside[at] !== inside[at - jump];
        if (edge && start < 0) start = i;
        if (!edge && start >= 0) line(start, i, j), (start = -1);
      }
    }
  };
  trace(width, height, 1, row, (from, to, y) => (path.moveTo(from, y), path.lineTo(to, y)));
  trace(height, width, row, 1, (from, to, x) => (path.moveTo(x, from), path.lineTo(x, to)));
  return path;
}

// Boxes

// Which edges of a box a place catches: "n", "se", ...; "in" for its inside, "" for none.
function catches([x0, y0, x1, y1], x, y, reach) {
  if (x < x0 - reach || x > x1 + reach || y < y0 - reach || y > y1 + reach) return "";
  const [left, right, top, bottom] = [x - x0, x - x1, y - y0, y - y1].map(Math.abs);
  const vertical = Math.min(top, bottom) > reach ? "" : top <= bottom ? "n" : "s";
  const horizontal = Math.min(left, right) > reach ? "" : left <= right ? "w" : "e";
  return vertical + horizontal || "in";
}

// The box with some of its edges, or all of it, moved; whole pixels, inside the image, never empty.
function moved([x0, y0, x1, y1], edges, dx, dy, width, height) {
  if (edges === "in") {
    [dx, dy] = [clamp(Math.round(dx), -x0, width - x1), clamp(Math.round(dy), -y0, height - y1)];
    return [x0 + dx, y0 + dy, x1 + dx, y1 + dy];
  }
  if (edges.includes("w")) x0 += dx;
  if (edges.includes("e")) x1 += dx;
  if (edges.includes("n")) y0 += dy;
  if (edges.includes("s")) y1 += dy;
  return spanned(x0, y0, x1, y1, width, height);
}

function spanned(x0, y0, x1, y1, width, height) {
  const side = (a, b, size) => {
    const low = clamp(Math.round(Math.min(a, b)), 0, size - 1);
    return [low, clamp(Math.round(Math.max(a, b)), low + 1, size)];
  };
  const [[left, right], [top, bottom]] = [side(x0, x1, width), side(y0, y1, height)];
  return [left, top, right, bottom];
}

function render({ model, el }) {
  let boxes = structuredClone(model.get("boxes"));
  let points = structuredClone(model.get("points"));
  let selected = boxes.length ? { kind: "box", index: boxes.length - 1 } : null;
  let tool = "box";
  let drag = null;
  let image = null;
  let truth = null;
  let panes = [];
  let layers = [];
  let view = { scale: 1, x: 0, y: 0 };
  let fitted = true;
  let waiting = 0;
  let frame = 0;
  let version = 0; // of image and masks
  const fingers = new Map();
  const listeners = [];
  const listen = (name, act) => (model.on(name, act), listeners.push([name, act]));
  const root = make("div", { className: "box-prompt" });
  const stage = make("div", { className: "box-prompt-stage" });
  const status = make("div", { className: "box-prompt-status", role: "status", aria: { live: "polite" } });
  const help = make("div", { id: `box-prompt-help-${++widgets}`, textContent: HELP });
  const bar = make("progress", { className: "box-prompt-progress", aria: { label: "encoding the image" } });

  // Screen and image

  const size = () => [model.get("_image").width, model.get("_image").height];
  const toImage = (pane, event) => {
    const frame = pane.canvas.getBoundingClientRect();
    return [(event.clientX - frame.left - view.x) / view.scale, (event.clientY - frame.top - view.y) / view.scale];
  };

  function fit() {
    if (!panes.length) return;
    const [width, height] = size();
    const { clientWidth, clientHeight } = panes[0].canvas;
    const scale = Math.min(clientWidth / width, clientHeight / height);
    view = { scale, x: (clientWidth - scale * width) / 2, y: (clientHeight - scale * height) / 2 };
    fitted = true;
  }

  function zoom(factor, x, y) {
    const { clientWidth, clientHeight } = panes[0].canvas;
    [x, y] = [x ?? clientWidth / 2, y ?? clientHeight / 2];
    const [width, height] = size();
    const whole = Math.min(clientWidth / width, clientHeight / height);
    const scale = clamp(view.scale * factor, whole, Math.max(16, whole));
    if (scale === whole) return fit(), draw();
    const ratio = scale / view.scale;
    view = { scale, x: x - ratio * (x - view.x), y: y - ratio * (y - view.y) };
    fitted = false;
    pan(0, 0);
  }

  function pan(dx, dy) {
    const [width, height] = size();
    const { clientWidth, clientHeight } = panes[0].canvas;
    const hold = (at, room, length) => (length < room ? (room - length) / 2 : clamp(at, room - length, 0));
    view.x = hold(view.x + dx, clientWidth, width * view.scale);
    view.y = hold(view.y + dy, clientHeight, height * view.scale);
    draw();
  }

  function layOut() {
    const [width, height] = size();
    for (const { canvas } of panes) {
      const ratio = window.devicePixelRatio || 1;
      const across = Math.min(canvas.parentElement.clientWidth, (MAX_HEIGHT * width) / height);
      if (!across) return; // not shown yet
      const down = (across * height) / width;
      canvas.style.width = `${across}px`;
      canvas.style.height = `${down}px`;
      canvas.width = Math.round(across * ratio);
      canvas.height = Math.round(down * ratio);
    }
    if (fitted) fit();
    else pan(0, 0);
    draw();
  }

  // Drawing

  const draw = () => (frame ||= requestAnimationFrame(paint));

  function paint() {
    frame = 0;
    panes.forEach((pane, index) => paintPane(pane, layers[index]));
    if (root.dataset.decoded) root.dataset.drawn = root.dataset.decoded;
  }

  // Image, mask and outlines stay the same while a box is dragged: they are drawn once, on a canvas of their own.
  function paintPane(pane, layer) {
    const { canvas, base } = pane;
    const shown = [view, canvas.width, canvas.height, version, ...["opacity", "outline", "show_truth"].map((name) => model.get(name))];
    const key = JSON.stringify(shown);
    if (pane.key !== key) {
      pane.key = key;
      [base.width, base.height] = [canvas.width, canvas.height];
      paintBase(base.getContext("2d"), layer);
    }
    const context = canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalCompositeOperation = "copy";
    context.drawImage(base, 0, 0);
    context.globalCompositeOperation = "source-over";
    toScreen(context);
    boxes.forEach((box, index) => paintBox(context, box, index));
    points.forEach((point, index) => paintPoint(context, point, index));
  }

  function toScreen(context) {
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
  }

  function paintBase(context, layer) {
    if (!image) return;
    toScreen(context);
    const [width, height] = size();
    context.imageSmoothingEnabled = view.scale < 3; // further in, the pixels are what one wants to see
    context.drawImage(image, 0, 0, width, height);
    context.scale(width / image.width, height / image.height); // a large image is sent smaller
    const thin = image.width / (width * view.scale);
    if (layer) {
      if (!model.get("outline")) {
        context.globalAlpha = model.get("opacity");
        context.drawImage(layer.picture, layer.x, layer.y);
        context.globalAlpha = 1;
      }
      strokeOutline(context, layer, COLORS.mask, thin);
    }
    if (truth && model.get("show_truth")) strokeOutline(context, truth, COLORS.truth, thin);
  }

  function strokeOutline(context, { x, y, path }, color, thin) {
    context.save();
    context.translate(x, y);
    for (const [width, style] of [[3.5, "#0009"], [1.8, color]]) {
      context.lineWidth = width * thin;
      context.strokeStyle = style;
      context.lineCap = "square"; // closes the corners; round caps take many times as long
      context.stroke(path);
    }
    context.restore();
  }

  const isSelected = (kind, index) => selected?.kind === kind && selected.index === index;

  function paintBox(context, [x0, y0, x1, y1], index) {
    const unit = 1 / view.scale;
    context.setLineDash([]);
    context.lineWidth = 4 * unit;
    context.strokeStyle = "#000a";
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.lineWidth = 2 * unit;
    context.strokeStyle = COLORS.prompt;
    if (!isSelected("box", index)) context.setLineDash([6 * unit, 4 * unit]);
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    context.setLineDash([]);
    context.fillStyle = COLORS.prompt;
    if (isSelected("box", index)) {
      const half = 4 * unit;
      for (const x of [x0, (x0 + x1) / 2, x1])
        for (const y of [y0, (y0 + y1) / 2, y1])
          if (x !== (x0 + x1) / 2 || y !== (y0 + y1) / 2) context.fillRect(x - half, y - half, 2 * half, 2 * half);
    }
    if (boxes.length > 1) {
      context.font = `bold ${15 * unit}px sans-serif`;
      context.lineWidth = 3 * unit;
      context.fillStyle = "white";
      context.strokeStyle = "#000a";
      context.strokeText(index + 1, x0 + 7 * unit, y0 + 18 * unit);
      context.fillText(index + 1, x0 + 7 * unit, y0 + 18 * unit);
    }
  }

  function paintPoint(context, [x, y, label], index) {
    const unit = 1 / view.scale;
    const radius = (isSelected("point", index) ? 9 : 7) * unit;
    context.beginPath();
    context.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    context.fillStyle = label ? COLORS.truth : COLORS.background;
    context.fill();
    context.lineWidth = 2 * unit;
    context.strokeStyle = "white";
    context.stroke();
    context.beginPath(); // a plus or a minus: colour alone tells too few people which it is
    context.moveTo(x + 0.5 - radius / 2, y + 0.5);
    context.lineTo(x + 0.5 + radius / 2, y + 0.5);
    if (label) {
      context.moveTo(x + 0.5, y + 0.5 - radius / 2);
      context.lineTo(x + 0.5, y + 0.5 + radius / 2);
    }
    context.stroke();
  }

  // To and from the kernel

  function commit() {
    const request = model.get("_request") + 1;
    model.set({ boxes: structuredClone(boxes), points: structuredClone(points), _request: request });
    model.save_changes();
    root.dataset.request = request;
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      say("waiting for the kernel...", "busy");
      waiting = setTimeout(() => say("no answer from the kernel: is it running? If not, run the cell again", "error"), 10000);
    }, 600);
    describe();
  }

  function say(text, state) {
    if (status.textContent !== text) status.textContent = text;
    root.dataset.state = state;
  }

  function sayStatus() {
    clearTimeout(waiting);
    say(model.get("status"), model.get("state"));
    bar.hidden = model.get("state") !== "busy";
  }

  // A newer picture or answer may arrive while one is being decoded: the last to arrive stays.
  function latest(decodeIt, use) {
    let turn = 0;
    return async () => {
      const mine = ++turn;
      const decoded = await decodeIt();
      if (mine === turn) use(decoded);
    };
  }

  const showImage = latest(
    async () => {
      const sent = model.get("_image");
      return Promise.all([decode(sent.bytes), decodeLayer(sent.truth, COLORS.truth), sent.name]);
    },
    ([picture, known, name]) => {
      [image, truth] = [picture, known];
      version++;
      truthSwitch.disabled = !known;
      fitted = true;
      drag = null; // a box begun on the image before
      takeOver();
      layOut();
      describe();
      root.dataset.image = name;
    },
  );

  const showAnswer = latest(
    async () => {
      const answer = model.get("_answer");
      const decoded = await Promise.all((answer.layers ?? []).map((layer) => decodeLayer(layer, COLORS.mask)));
      return { answer, decoded };
    },
    ({ answer, decoded }) => {
      layers = decoded;
      version++;
      panes.forEach((pane, index) => (pane.caption.textContent = answer.captions?.[index] ?? ""));
      root.dataset.decoded = answer.request ?? 0;
      root.dataset.ms = answer.ms ?? 0;
      draw();
    },
  );

  function takeOver() {
    if (drag) return; // the hand on the canvas goes before
    const sent = JSON.stringify([model.get("boxes"), model.get("points")]);
    if (sent === JSON.stringify([boxes, points])) return; // what was sent from here
    [boxes, points] = [structuredClone(model.get("boxes")), structuredClone(model.get("points"))];
    if (selected && selected.index >= (selected.kind === "box" ? boxes : points).length) selected = null;
    describe();
    draw();
  }

  // Selecting and changing

  function describe() {
    const [width, height] = size();
    const counts = `${counted(boxes, "box", "es")}, ${counted(points, "point", "s")}`;
    const chosen = selected ? `; selected ${selected.kind} ${selected.index + 1}: ${items()[selected.index].join(" ")}` : "";
    panes.forEach(({ canvas, name }) => {
      canvas.setAttribute("aria-label", `${model.get("_image").name}, ${width} by ${height} pixels, ${name}: ${counts}${chosen}`);
    });
    root.dataset.boxes = JSON.stringify(boxes);
    root.dataset.points = JSON.stringify(points);
  }

  const items = () => (selected.kind === "box" ? boxes : points);
  const select = (kind, index) => ((selected = kind && { kind, index }), describe(), draw());

  function addBox(box) {
    boxes.push(box);
    select("box", boxes.length - 1);
  }

  function addPoint(x, y, label) {
    const [width, height] = size();
    points.push([clamp(Math.floor(x), 0, width - 1), clamp(Math.floor(y), 0, height - 1), label]);
    select("point", points.length - 1);
    commit();
  }

  function removeSelected() {
    if (!selected) return;
    items().splice(selected.index, 1);
    select(null);
    commit();
  }

  function step(dx, dy, resize) {
    const [width, height] = size();
    if (!selected) return pan(-20 * Math.sign(dx), -20 * Math.sign(dy));
    const { kind, index } = selected;
    if (kind === "box") boxes[index] = moved(boxes[index], resize ? "se" : "in", dx, dy, width, height);
    else {
      const [x, y, label] = points[index];
      points[index] = [clamp(x + dx, 0, width - 1), clamp(y + dy, 0, height - 1), label];
    }
    draw();
    commit();
  }

  function middle() {
    const [width, height] = size();
    const { clientWidth, clientHeight } = panes[0].canvas;
    const [x, y] = [(clientWidth / 2 - view.x) / view.scale, (clientHeight / 2 - view.y) / view.scale];
    return [clamp(x, 0, width), clamp(y, 0, height)];
  }

  function centre() {
    const box = selected?.kind === "box" ? boxes[selected.index] : boxes.at(-1);
    return box ? [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] : middle();
  }

  const keys = {
    ArrowLeft: (far, shift) => step(-far, 0, shift),
    ArrowRight: (far, shift) => step(far, 0, shift),
    ArrowUp: (far, shift) => step(0, -far, shift),
    ArrowDown: (far, shift) => step(0, far, shift),
    Enter: () => {
      const [width, height] = size();
      const [x, y] = middle();
      const reach = Math.min(width, height) / 6;
      addBox(spanned(x - reach, y - reach, x + reach, y + reach, width, height));
      commit();
    },
    f: () => addPoint(...centre(), 1),
    b: () => addPoint(...centre(), 0),
    n: () => {
      const all = [...boxes.map((_, index) => ["box", index]), ...points.map((_, index) => ["point", index])];
      const at = all.findIndex(([kind, index]) => isSelected(kind, index));
      if (all.length) select(...all[(at + 1) % all.length]);
    },
    Delete: removeSelected,
    Backspace: removeSelected,
    Escape: () => (drag ? cancel() : select(null)),
    "+": () => zoom(1.25),
    "=": () => zoom(1.25),
    "-": () => zoom(0.8),
    0: () => (fit(), draw()),
  };

  function onKey(event) {
    const command = event.ctrlKey || event.metaKey;
    if (command && event.key.toLowerCase() === "z") model.send({ do: "undo" });
    else {
      const act = keys[event.key] ?? keys[event.key.toLowerCase()];
      if (!act || event.altKey || (command && !event.key.startsWith("Arrow"))) return;
      act(command ? 10 : 1, event.shiftKey);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  // Pointer

  function target(pane, event) {
    const [x, y] = toImage(pane, event);
    const reach = (event.pointerType === "touch" ? 2 * GRAB : GRAB) / view.scale;
    const near = points.findIndex(([px, py]) => Math.hypot(px + 0.5 - x, py + 0.5 - y) < reach + 2 / view.scale);
    if (near >= 0 && tool !== "pan") return { kind: "point", index: near };
    if (tool !== "box" || event.ctrlKey || event.metaKey) return null;
    const order = boxes.map((_, index) => index).sort((a, b) => isSelected("box", b) - isSelected("box", a) || b - a);
    const hits = order.map((index) => ({ kind: "box", index, edges: catches(boxes[index], x, y, reach) })).filter((hit) => hit.edges);
    return hits.find((hit) => hit.edges !== "in") ?? hits[0] ?? null; // an edge before another box's inside
  }

  function onDown(pane, event) {
    if (event.button > 1 || !image) return;
    event.preventDefault();
    pane.canvas.focus({ preventScroll: true });
    pane.canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size > 1) return cancel();
    const hit = event.button === 1 ? null : target(pane, event);
    const kind = event.button === 1 || tool === "pan" ? "pan" : hit ? "move" : tool === "box" ? "new" : "click";
    drag = { kind, hit, from: toImage(pane, event), screen: [event.clientX, event.clientY], far: false };
    drag.before = { boxes: structuredClone(boxes), points: structuredClone(points), selected };
    if (hit) select(hit.kind, hit.index);
  }

  function onMove(pane, event) {
    if (fingers.size > 1 && fingers.has(event.pointerId)) return pinch(pane, event);
    if (!drag) return showCursor(pane, event);
    const [dx, dy] = [event.clientX - drag.screen[0], event.clientY - drag.screen[1]];
    drag.far ||= Math.hypot(dx, dy) > CLICK;
    if (!drag.far) return;
    const [width, height] = size();
    const [x, y] = toImage(pane, event);
    const [mx, my] = [x - drag.from[0], y - drag.from[1]];
    if (drag.kind === "pan") {
      drag.screen = [event.clientX, event.clientY];
      pan(dx, dy);
    } else if (drag.kind === "new") {
      boxes = [...drag.before.boxes, spanned(...drag.from, x, y, width, height)];
      selected = { kind: "box", index: boxes.length - 1 };
    } else if (drag.kind === "move") {
      const { kind, index, edges } = drag.hit;
      if (kind === "box") boxes[index] = moved(drag.before.boxes[index], edges, mx, my, width, height);
      else {
        const [px, py, label] = drag.before.points[index];
        points[index] = [clamp(Math.round(px + mx), 0, width - 1), clamp(Math.round(py + my), 0, height - 1), label];
      }
    }
    draw();
  }

  function onUp(pane, event) {
    fingers.delete(event.pointerId);
    if (!drag) return;
    const { kind, hit, far, from } = drag;
    drag = null;
    if (kind === "pan") return;
    const [width, height] = size();
    const within = from[0] >= 0 && from[1] >= 0 && from[0] < width && from[1] < height;
    if (kind === "click" && within) return addPoint(...from, tool === "foreground" ? 1 : 0);
    if (kind === "click") return;
    if (far) return commit();
    if (hit?.kind === "point" && tool !== "box") return removeSelected(); // a click on a point takes it away
    if (!hit) select(null);
  }

  function cancel() {
    if (drag && drag.kind !== "pan") ({ boxes, points, selected } = drag.before);
    drag = null;
    describe();
    draw();
  }

  function pinch(pane, event) {
    const spread = () => {
      const [[ax, ay], [bx, by]] = [...fingers.values()];
      return { gap: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 };
    };
    const before = spread();
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = spread();
    const corner = pane.canvas.getBoundingClientRect();
    pan(after.x - before.x, after.y - before.y);
    zoom(after.gap / Math.max(before.gap, 1), after.x - corner.left, after.y - corner.top);
  }

  function showCursor(pane, event) {
    const hit = target(pane, event);
    const resize = { n: "ns", s: "ns", w: "ew", e: "ew", nw: "nwse", se: "nwse", ne: "nesw", sw: "nesw" }[hit?.edges];
    const idle = tool === "pan" ? "grab" : "crosshair";
    pane.canvas.style.cursor = resize ? `${resize}-resize` : hit?.edges === "in" ? "move" : hit ? "pointer" : idle;
  }

  function onWheel(pane, event) {
    if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the notebook
    event.preventDefault();
    const corner = pane.canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY / 400), event.clientX - corner.left, event.clientY - corner.top);
  }

  // Panes and tools

  function makePanes() {
    panes = model.get("_models").map((name) => {
      const canvas = make("canvas", { className: "box-prompt-canvas", tabIndex: 0, role: "application" });
      canvas.setAttribute("aria-roledescription", "image to draw boxes on");
      canvas.setAttribute("aria-describedby", help.id);
      canvas.dataset.lmSuppressShortcuts = "true"; // or JupyterLab's own keys delete the cell
      const caption = make("span", { className: "box-prompt-caption" });
      const pane = { name, canvas, caption, base: new OffscreenCanvas(1, 1), key: null };
      canvas.addEventListener("pointerdown", (event) => onDown(pane, event));
      canvas.addEventListener("pointermove", (event) => onMove(pane, event));
      canvas.addEventListener("pointerup", (event) => onUp(pane, event));
      canvas.addEventListener("pointercancel", (event) => (fingers.delete(event.pointerId), cancel()));
      canvas.addEventListener("wheel", (event) => onWheel(pane, event), { passive: false });
      canvas.addEventListener("keydown", onKey);
      canvas.addEventListener("contextmenu", (event) => event.preventDefault());
      return pane;
    });
    stage.replaceChildren(
      ...panes.map(({ name, canvas, caption }) => {
        const head = make("figcaption", {}, make("strong", { textContent: name }), " ", caption);
        return make("figure", { className: "box-prompt-pane" }, head, canvas);
      }),
    );
    layOut();
    describe();
  }

  const tools = [
    ["box", "▭ Box", "draw, move and resize boxes"],
    ["foreground", "⊕ Foreground", "click on what belongs to the mask; click on a point to take it away"],
    ["background", "⊖ Background", "click on what does not belong to the mask"],
    ["pan", "✥ Move", "move the zoomed image"],
  ].map(([name, textContent, title]) => {
    const button = make("button", { type: "button", textContent, title, dataset: { tool: name }, aria: { pressed: name === tool } });
    button.addEventListener("click", () => {
      tool = name;
      tools.forEach((each) => each.setAttribute("aria-pressed", each === button));
    });
    return button;
  });

  const zoomButton = (textContent, label, act) => {
    const button = make("button", { type: "button", textContent, title: label, aria: { label } });
    button.addEventListener("click", act);
    return button;
  };

  // A display setting is drawn at once, kernel or not, and told to the kernel for whoever opens the widget next.
  const setting = (name, input, read, write) => {
    const show = () => (write(model.get(name)), draw());
    input.addEventListener("input", () => (model.set(name, read()), model.save_changes(), draw()));
    listen(`change:${name}`, show);
    show();
    return input;
  };
  const opacity = make("input", { type: "range", min: 0, max: 1, step: 0.05 });
  const outlineSwitch = make("input", { type: "checkbox" });
  const truthSwitch = make("input", { type: "checkbox" });
  setting("opacity", opacity, () => Number(opacity.value), (value) => (opacity.value = value));
  for (const [name, input] of [["outline", outlineSwitch], ["show_truth", truthSwitch]])
    setting(name, input, () => input.checked, (value) => (input.checked = value));

  const tray = make("span", { hidden: !model.get("_uploads") });
  listen("change:_uploads", () => (tray.hidden = !model.get("_uploads")));
  root.append(
    make(
      "div",
      { className: "box-prompt-tools", role: "toolbar", aria: { label: "tools" } },
      make("span", { role: "group", aria: { label: "what the pointer does" } }, ...tools),
      make(
        "span",
        { role: "group", aria: { label: "zoom" } },
        zoomButton("−", "zoom out", () => zoom(0.8)),
        zoomButton("+", "zoom in", () => zoom(1.25)),
        zoomButton("Fit", "show the whole image", () => (fit(), draw())),
      ),
      make("label", {}, "Opacity ", opacity),
      make("label", {}, outlineSwitch, " Outline only"),
      make("label", {}, truthSwitch, " Truth"),
      tray,
    ),
    stage,
    bar,
    status,
    make("details", { className: "box-prompt-help" }, make("summary", { textContent: "Mouse and keys" }), help),
  );

  async function upload(file) {
    if (!file) return;
    if (file.size > MAX_UPLOAD) return say(`${file.name} has ${Math.round(file.size / 1e6)} MB: at most 200 MB go through`, "error");
    say(`sending ${file.name}...`, "busy");
    const content = await file.arrayBuffer();
    const parts = Math.max(1, Math.ceil(content.byteLength / PART));
    for (let part = 0; part < parts; part++) {
      const message = { do: "upload", name: file.name, part, parts };
      model.send(message, undefined, [content.slice(part * PART, (part + 1) * PART)]);
    }
  }

  const chooser = make("input", { type: "file", hidden: true, accept: "image/*,.tif,.tiff" });
  const choose = make("button", { type: "button", textContent: "Your own file", title: "or drop it on the image" });
  choose.addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => (upload(chooser.files[0]), (chooser.value = "")));
  root.addEventListener("dragover", (event) => model.get("_uploads") && event.preventDefault());
  root.addEventListener("drop", (event) => {
    if (!model.get("_uploads") || !event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation();
    upload(event.dataTransfer.files[0]);
  });

  async function copy() {
    const { text } = model.get("_clipboard");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      say("the browser did not let me copy: select the text below and copy it yourself", "error");
    }
  }

  tray.append(choose, chooser);
  el.append(root);
  listen("change:boxes", takeOver);
  listen("change:points", takeOver);
  listen("change:_image", showImage);
  listen("change:_models", () => (makePanes(), showAnswer()));
  listen("change:_answer", showAnswer);
  listen("change:_clipboard", copy);
  for (const name of ["status", "state"]) listen(`change:${name}`, sayStatus);
  const observer = new ResizeObserver(() => layOut());
  observer.observe(stage);
  makePanes();
  showImage();
  showAnswer();
  sayStatus();
  return () => {
    for (const [name, act] of listeners) model.off(name, act);
    observer.disconnect();
    clearTimeout(waiting);
    cancelAnimationFrame(frame);
  };
}

export default { render };
