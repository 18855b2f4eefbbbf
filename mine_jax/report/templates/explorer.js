// ---- the explorer: what each voxel, area and word stands for, on a map
(function () {
  if (!$("explorer-data")) return;
  const data = JSON.parse($("explorer-data").textContent);
  const kinds = { i1: Int8Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
  for (const [name, value] of Object.entries(data)) {
    if (!value || !value.base64) continue;
    const bytes = Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0));
    data[name] = new kinds[value.type](bytes.buffer);
  }
  const n = data.ids.length;
  // numbers as the other parts of the page write them
  const plain = (x) => (Number.isFinite(x) ? x.toFixed(2).replace(/^-(0\.00)$/, "$1") : "not known");
  const signed = (x) => (Number.isFinite(x) && !plain(x).startsWith("-") ? "+" : "") + plain(x);
  const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
  const canvas = $("explorer-map"), pen = canvas.getContext("2d");
  const words = data.claims.indexOf("words");
  const holds = (v) => data.claim[v] >= words;
  const inArea = (v, area) => data.area_sets[data.area[v]].includes(area);
  const state = { layer: "r2", word: "", area: "", voxel: -1, page: 0, heat: true };
  const NONE = "#c9c9c9";
  const RAMP = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
  const PALETTE = ["#332288", "#DDCC77", "#117733", "#CC6677", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#E08214"];
  const CLAIMS = ["#d9d9d9", "#bcd4e6", "#7fb2d6", "#0072b2", "#0a4f8a", "#d55e00"];

  function ramp(share) {
    const at = Math.min(0.9999, Math.max(0, share)) * (RAMP.length - 1), low = Math.floor(at);
    return `rgb(${RAMP[low].map((c, i) => Math.round(c + (at - low) * (RAMP[low + 1][i] - c))).join(",")})`;
  }
  function weightOf(v, word) {
    for (let i = data.first[v]; i < data.first[v + 1]; i++) if (data.words[data.word[i]] === word) return data.weight[i];
    return 0;
  }
  function quantile(values, share) {
    const known = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
    return known.length ? known[Math.floor(share * (known.length - 1))] : 1;
  }
  const layers = {
    r2: { title: "R² on held-out images", values: data.r2 },
    ceiling: { title: "Noise ceiling", values: data.ceiling },
    claim: { title: "Claim", codes: data.claim, names: data.claims, colors: CLAIMS },
  };
  if (!data.ceiling.some(Number.isFinite)) delete layers.ceiling;
  if (data.category) layers.category = { title: "Leading category", codes: data.category, names: data.categories };
  layers.word = { title: "Answer to a word" };
  for (const layer of [layers.r2, layers.ceiling]) if (layer) layer.high = Math.max(quantile(layer.values, 0.99), 1e-3);

  function wordLayer() {
    const values = new Float32Array(n).fill(NaN);
    for (let v = 0; v < n; v++) if (holds(v)) values[v] = weightOf(v, state.word);
    const answering = values.filter((x) => x > 0).length;
    return { title: `Weight of “${state.word}” in the profile`, values, high: quantile(values.filter((x) => x > 0), 0.99),
      note: `${answering} explained ${answering === 1 ? data.unit : data.units} with it; grey: no words are claimed.` };
  }
  function legend(layer) {
    const box = $("explorer-legend");
    box.replaceChildren(make("strong", { textContent: layer.title }));
    if (layer.codes) {
      const counts = new Map();
      for (const code of layer.codes) counts.set(code, (counts.get(code) || 0) + 1);
      const list = make("ul", { className: "chips" });
      layer.names.forEach((name, code) => {
        if (!counts.get(code)) return;
        const chip = make("span", { className: "chip" });
        chip.style.background = layer.color(code);
        list.append(make("li", {}, chip, `${name} `, make("span", { className: "soft", textContent: counts.get(code) })));
      });
      box.append(list);
    } else {
      const bar = make("span", { className: "ramp" });
      bar.style.background = `linear-gradient(90deg, ${RAMP.map((c) => `rgb(${c.join(",")})`).join(",")})`;
      box.append(make("span", { className: "rampbox" }, "0", bar, `${plain(layer.high)} or more`));
    }
    if (borders.length) box.append(make("p", { className: "soft", textContent: "Lines: borders of areas." }));
    if (layer.note) box.append(make("p", { className: "soft", textContent: layer.note }));
  }
  function chosenLayer() {
    const layer = state.layer === "word" ? wordLayer() : layers[state.layer];
    if (layer.codes) {
      const colors = layer.colors || layer.names.map((name, i) => (i === 0 ? NONE : i <= PALETTE.length ? PALETTE[i - 1] : "#8c8c8c"));
      layer.color = (code) => colors[code];
      layer.at = (v) => colors[layer.codes[v]];
    } else layer.at = (v) => (Number.isFinite(layer.values[v]) ? ramp(layer.values[v] / layer.high) : NONE);
    return layer;
  }

  // where each voxel lies on the canvas: x, y, size; NaN where it is on another page
  const spots = new Float32Array(3 * n);
  const slices = data.places ? [...new Set(Array.from({ length: n }, (_, v) => data.places[3 * v + 2]))].sort((a, b) => a - b) : [];
  const range = [0, 1].map((axis) => {
    let low = Infinity, high = 0;
    for (let v = 0; data.places && v < n; v++) {
      low = Math.min(low, data.places[3 * v + axis]);
      high = Math.max(high, data.places[3 * v + axis]);
    }
    return { low, size: high - low + 1 };
  });
  // sides of voxels where an area ends: 0 left, 1 right, 2 back, 3 front
  const borders = [];
  if (data.places && data.area_sets.length > 1) {
    const key = (i, j, k) => (k * 65536 + j) * 65536 + i, area = new Map();
    for (let v = 0; v < n; v++) area.set(key(...data.places.subarray(3 * v, 3 * v + 3)), data.area[v]);
    for (let v = 0; v < n; v++) {
      const [i, j, k] = data.places.subarray(3 * v, 3 * v + 3);
      [[i - 1, j], [i + 1, j], [i, j - 1], [i, j + 1]].forEach(([a, b], side) => {
        if (area.get(key(a, b, k)) !== data.area[v]) borders.push([v, side]);
      });
    }
  }
  let perPage = 1;
  function layOut(width) {
    spots.fill(NaN);
    if (data.flat) {
      const [across, up] = data.flat.extent, top = 22, scale = Math.min((width - 16) / (across || 1), 560 / (up || 1));
      const size = Math.max(3, scale * data.flat.spacing);
      for (let v = 0; v < n; v++) spots.set([8 + scale * data.xy[2 * v], top + scale * (up - data.xy[2 * v + 1]), size], 3 * v);
      return { height: top + scale * up + 34, cells: [], scale, bottom: top + scale * up };
    }
    if (!data.places) {
      const [left, top, side] = [44, 10, Math.min(width - 56, 520)];
      for (let v = 0; v < n; v++) spots.set([left + data.xy[2 * v] * (width - 60), top + (1 - data.xy[2 * v + 1]) * side, 5], 3 * v);
      return { height: side + 50, cells: [], left, top, side };
    }
    const columns = Math.max(2, Math.min(6, Math.floor(width / 165)));
    const across = Math.floor(width / columns), size = Math.max(1, (across - 22) / Math.max(range[0].size, range[1].size * 0.8));
    const down = Math.ceil(size * range[1].size + 34);
    perPage = columns * Math.max(2, Math.min(4, Math.floor(640 / down)));
    state.page = Math.min(state.page, Math.ceil(slices.length / perPage) - 1);
    const shown = slices.slice(state.page * perPage, (state.page + 1) * perPage);
    const corner = new Map(shown.map((k, i) => [k, [(i % columns) * across + 16, Math.floor(i / columns) * down + 18]]));
    for (let v = 0; v < n; v++) {
      const at = corner.get(data.places[3 * v + 2]);
      if (!at) continue;
      const y = range[1].size - 1 - (data.places[3 * v + 1] - range[1].low);
      spots.set([at[0] + size * (data.places[3 * v] - range[0].low + 0.5), at[1] + size * (y + 0.5), size], 3 * v);
    }
    return { height: Math.ceil(shown.length / columns) * down, cells: shown.map((k) => [k, ...corner.get(k)]), size };
  }
  function draw() {
    const width = canvas.parentElement.clientWidth, layout = layOut(width), dense = window.devicePixelRatio || 1;
    canvas.width = width * dense;
    canvas.height = layout.height * dense;
    canvas.style.height = `${layout.height}px`;
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, layout.height);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = pen.strokeStyle = "#4d4d4d";
    const [x, y] = data.letters || [];
    for (const [k, left, top] of layout.cells) {
      const right = left + layout.size * range[0].size, bottom = top + layout.size * range[1].size;
      pen.fillText(`${data.names[2]} = ${(data.origin[2] + data.step[2] * k).toFixed(1)} mm`, left, top - 6);
      pen.fillText(x[0], left, bottom + 12);
      pen.fillText(x[1], right - 7, bottom + 12);
      pen.fillText(y[1], left - 13, top + 9);
      pen.fillText(y[0], left - 13, bottom);
    }
    if (data.flat) {
      for (const [name, start] of data.flat.parts) pen.fillText(name, 8 + layout.scale * start, 12);
      const bar = [50, 20, 10, 5, 2, 1].find((mm) => layout.scale * mm < width / 3) || 1;
      pen.fillRect(8, layout.bottom + 16, layout.scale * bar, 3);
      pen.fillText(`${bar} mm on the sphere`, 14 + layout.scale * bar, layout.bottom + 21);
    } else if (!data.places) {
      pen.strokeRect(layout.left - 4, layout.top - 4, width - 52, layout.side + 8);
      pen.fillText(data.axes[0], layout.left, layout.top + layout.side + 30);
      data.ticks.forEach(([low, high], axis) => {
        const [a, b] = [low, high].map((value) => Math.abs(value) < 100 ? plain(value) : Math.round(value));
        if (axis === 0) pen.fillText(a, layout.left, layout.top + layout.side + 14), pen.fillText(b, width - 44, layout.top + layout.side + 14);
        else pen.fillText(a, 2, layout.top + layout.side), pen.fillText(b, 2, layout.top + 10), pen.fillText(data.axes[1], 2, layout.top + 26);
      });
    }
    const layer = chosenLayer();
    for (let v = 0; v < n; v++) {
      const size = spots[3 * v + 2];
      if (!(size > 0)) continue;
      pen.globalAlpha = state.area && !inArea(v, state.area) ? 0.18 : 1;
      pen.fillStyle = layer.at(v);
      pen.fillRect(spots[3 * v] - size / 2, spots[3 * v + 1] - size / 2, Math.max(size - 0.4, 1), Math.max(size - 0.4, 1));
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = "#1a1a1a";
    pen.lineWidth = 0.8;
    pen.beginPath();
    for (const [v, side] of borders) {
      const half = spots[3 * v + 2] / 2;
      if (!(half > 0)) continue;
      const [x, y] = [spots[3 * v], spots[3 * v + 1]], along = side < 2;
      const sign = side === 0 || side === 3 ? -half : half;
      pen.moveTo(along ? x + sign : x - half, along ? y - half : y + sign);
      pen.lineTo(along ? x + sign : x + half, along ? y + half : y + sign);
    }
    pen.stroke();
    if (state.voxel >= 0 && spots[3 * state.voxel + 2] > 0) {
      const half = Math.max(spots[3 * state.voxel + 2] / 2, 3) + 2;
      for (const [color, line] of [["#fff", 5], ["#d55e00", 2.5]]) {
        pen.strokeStyle = color;
        pen.lineWidth = line;
        pen.strokeRect(spots[3 * state.voxel] - half, spots[3 * state.voxel + 1] - half, 2 * half, 2 * half);
      }
      pen.lineWidth = 1;
    }
    legend(layer);
    const pages = data.places ? Math.ceil(slices.length / perPage) : 1;
    $("explorer-pager").hidden = pages < 2;
    $("explorer-page").textContent = `Slices ${state.page * perPage + 1} to ${Math.min(slices.length, (state.page + 1) * perPage)} of ${slices.length}`;
  }

  // orange raises the prediction, violet lowers it, on a grey copy: as in the other heat maps of the page
  function heatOver(over, example) {
    const [rows, columns] = data.grid, at = (data.example_heat[example] - 1) * rows * columns;
    const small = make("canvas", { width: columns, height: rows }), on = small.getContext("2d"), field = on.createImageData(columns, rows);
    for (let token = 0; token < rows * columns; token++) {
      const share = data.heat[at + token] / 127;
      field.data.set([...(share > 0 ? [201, 98, 0] : [84, 39, 136]), 255 * 0.85 * Math.abs(share) ** 0.7], 4 * token);
    }
    on.putImageData(field, 0, 0);
    for (const [mode, color] of [["saturation", "#808080"], ["source-over", "rgba(255,255,255,.45)"]]) {
      over.globalCompositeOperation = mode;
      over.fillStyle = color;
      over.fillRect(0, 0, over.canvas.width, over.canvas.height);
    }
    over.imageSmoothingQuality = "high";
    over.drawImage(small, 0, 0, over.canvas.width, over.canvas.height);
  }
  const hasHeat = (e) => Boolean(data.heat && data.example_heat[e]);
  function tokensOver(picture, example) {
    const shown = make("canvas", { width: 240, height: Math.round((240 * data.grid[0]) / data.grid[1]) });
    shown.setAttribute("role", "img");
    const isHeat = state.heat && hasHeat(example);
    shown.setAttribute("aria-label", `Image ${picture.id}${isHeat ? ", as a heat map," : ""} with its critical tokens outlined`);
    const over = shown.getContext("2d"), image = new Image();
    image.onload = () => {
      over.drawImage(image, 0, 0, shown.width, shown.height);
      if (isHeat) heatOver(over, example);
      const cell = shown.width / data.grid[1], tokens = new Set();
      const cells = data.grid[0] * data.grid[1], bytes = Math.ceil(cells / 8);
      for (let token = 0; token < cells; token++) if ((data.example_critical[example * bytes + (token >> 3)] >> (token & 7)) & 1) tokens.add(token);
      for (const [color, line] of [["#fff", 5], [isHeat ? "#1a1a1a" : "#d55e00", 2.5]]) {
        over.strokeStyle = color;
        over.lineWidth = line;
        over.beginPath();
        for (const token of tokens) {
          const column = token % data.grid[1], row = Math.floor(token / data.grid[1]), [a, b] = [column * cell, row * cell];
          const edge = (x0, y0, x1, y1) => (over.moveTo(x0, y0), over.lineTo(x1, y1));
          if (!tokens.has(token - data.grid[1])) edge(a, b, a + cell, b);
          if (!tokens.has(token + data.grid[1])) edge(a, b + cell, a + cell, b + cell);
          if (column === 0 || !tokens.has(token - 1)) edge(a, b, a, b + cell);
          if (column === data.grid[1] - 1 || !tokens.has(token + 1)) edge(a + cell, b, a + cell, b + cell);
        }
        over.stroke();
      }
    };
    image.src = picture.uri;
    return shown;
  }
  function bars(v) {
    const list = make("ul", { className: "bars" });
    let top = 1e-6;
    for (let i = data.first[v]; i < data.first[v + 1]; i++) top = Math.max(top, data.high[i] || 0, data.weight[i]);
    for (let i = data.first[v]; i < data.first[v + 1]; i++) {
      const fill = make("span", { className: "fill" }), track = make("span", { className: "track" }, fill);
      fill.style.width = `${(100 * data.weight[i]) / top}%`;
      let note = `#${data.rank[i]} · ${plain(data.weight[i])}`;
      if (Number.isFinite(data.low[i])) {
        const line = make("span", { className: "interval" });
        line.style.left = `${(100 * Math.max(0, data.low[i])) / top}%`;
        line.style.width = `${(100 * (data.high[i] - Math.max(0, data.low[i]))) / top}%`;
        track.append(line);
        note += ` (${plain(data.low[i])} to ${plain(data.high[i])})`;
      }
      const name = make("button", { type: "button", className: "plain", textContent: data.words[data.word[i]], title: "Show this word on the map" });
      name.addEventListener("click", () => ask(data.words[data.word[i]]));
      list.append(make("li", {}, make("span", {}, name), track, make("span", { className: "note", textContent: note })));
    }
    return list;
  }
  const picture = (uri, text) => make("figure", {}, make("img", { src: uri, alt: text }), make("figcaption", { textContent: text }));
  function photos(v) {
    const cards = make("div", { className: "examples" });
    for (let e = data.example_first[v]; e < data.example_first[v + 1]; e++) {
      const image = data.images[data.example_image[e]];
      const text = `Image ${image.id} (${image.split}): predicted ${signed(data.example_predicted[e])}, measured ${signed(data.example_measured[e])}.`;
      cards.append(make("figure", {}, tokensOver(image, e), make("figcaption", { textContent: text })));
    }
    if (!cards.children.length) return [];
    const parts = [make("h4", { textContent: "Images, with critical tokens outlined" })];
    if (hasHeat(data.example_first[v])) {
      const toggle = make("button", { type: "button", textContent: state.heat ? "Show the photos" : "Show the heat maps" });
      toggle.addEventListener("click", () => { state.heat = !state.heat; show(v); $("explorer-heat").focus(); });
      toggle.id = "explorer-heat";
      const scale = `Orange raises the prediction, violet lowers it; full color at ±${plain(data.heat_limit[v])} per token.`;
      parts.push(make("p", {}, toggle, state.heat ? make("span", { className: "soft", textContent: ` ${scale}` }) : ""));
    }
    return [...parts, cards];
  }
  function curves(v) {
    const ks = data.curve_ks, most = ks[ks.length - 1], each = 4 * ks.length * v;
    if (!ks.length || data.curves[each] === 255) return [];
    // the page holds no address, not even this one of a namespace
    const space = make("div", { innerHTML: "<svg></svg>" }).firstChild.namespaceURI;
    const svg = (tag, attributes, text) => {
      const element = document.createElementNS(space, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const value = (c, i) => data.curves[each + c * ks.length + i] / 120 - 0.5;
    const cards = make("div", { className: "curves" });
    ["Necessity: tokens patched", "Sufficiency: tokens kept"].forEach((title, kind) => {
      const y = (share) => 10 + 80 * (1 - (share + 0.1) / 1.2), x = (k) => 30 + (162 * k) / most;
      const text = `${title}. Share of the response at ${ks.join(", ")} tokens: ${ks.map((_, i) => plain(value(2 * kind, i))).join(", ")}.`;
      const chart = svg("svg", { viewBox: "0 0 200 120", role: "img", "aria-label": text });
      for (const share of [0, 0.5, 1]) {
        chart.append(svg("line", { x1: 30, x2: 192, y1: y(share), y2: y(share), class: "grid" }), svg("text", { x: 26, y: y(share) + 3.5, "text-anchor": "end" }, share));
      }
      for (const k of [0, most]) chart.append(svg("text", { x: x(k), y: 104, "text-anchor": "middle" }, k));
      chart.append(svg("text", { x: 111, y: 116, "text-anchor": "middle" }, title));
      for (const [order, name] of [[1, "random"], [0, "ig"]]) {
        const points = ks.map((k, i) => `${x(k)},${y(Math.max(-0.1, Math.min(1.1, value(2 * kind + order, i))))}`);
        chart.append(svg("polyline", { points: points.join(" "), class: name }));
      }
      cards.append(chart);
    });
    const text = "Share of the response to the whole image, mean over its images. Solid: tokens of the highest attribution first; dashed: in random order.";
    return [make("h4", { textContent: "Do its critical tokens drive it?" }), cards, make("p", { className: "soft", textContent: text })];
  }
  function edits(v) {
    const own = data.edits.filter((edit) => edit.voxel === v);
    if (!own.length) return [];
    const parts = [make("h4", { textContent: "Edited images" })];
    for (const edit of own) {
      const cards = make("div", { className: "examples pairs" }, picture(edit.old, `Before: predicted ${signed(edit.before)}`), picture(edit.new, `After, ${edit.text}: predicted ${signed(edit.after)}`));
      parts.push(cards, make("p", {}, `Shift ${signed(edit.after - edit.before)}`, edit.judge ? `, predicted by ${edit.judge}.` : "."));
    }
    return parts;
  }
  function panel(...children) {
    $("explorer-panel").replaceChildren(...children);
  }
  function show(v) {
    state.voxel = v;
    if (data.places) state.page = Math.floor(slices.indexOf(data.places[3 * v + 2]) / perPage);
    const sets = data.area_sets[data.area[v]], reason = data.reasons[data.reason[v]];
    const facts = `R² ${plain(data.r2[v])}, noise ceiling ${plain(data.ceiling[v])}.`;
    const parts = [make("h3", { textContent: `${capital(data.unit)} ${data.ids[v]}, ${sets.join(", ")}` })];
    parts.push(make("p", {}, make("strong", { textContent: `Claim: ${data.claims[data.claim[v]]}. ` }), reason ? `Not more: ${reason}. ` : "", facts));
    if (data.first[v + 1] > data.first[v]) {
      parts.push(make("h4", { textContent: holds(v) ? "Profile" : "Profile (no words are claimed)" }), bars(v));
      if (!holds(v)) parts[parts.length - 1].classList.add("unsure");
    } else parts.push(make("p", { className: "soft", textContent: "It has no profile." }));
    parts.push(...photos(v), ...curves(v), ...edits(v));
    if ($(`voxel-${data.ids[v]}`)) parts.push(make("p", {}, make("a", { href: `#voxel-${data.ids[v]}`, textContent: "Its words, image by image" })));
    panel(...parts);
    remember("voxel", data.ids[v]);
    draw();
    // on a narrow screen the panel is below the map
    if ($("explorer-panel").getBoundingClientRect().top > innerHeight - 60) $("explorer-panel").scrollIntoView({ block: "nearest" });
  }
  function enrichments(bars) {
    if (!bars.length) return [];
    const list = make("ul", { className: "bars" }), ends = bars.flatMap((bar) => [bar.value, bar.low, bar.high]).filter(Number.isFinite);
    const low = Math.min(0, ...ends), span = Math.max(0, ...ends) - low || 1, at = (value) => (100 * (value - low)) / span;
    const part = (className, from, to) => {
      const span = make("span", { className });
      span.style.left = `${at(Math.min(from, to))}%`;
      span.style.width = `${Math.abs(at(to) - at(from))}%`;
      return span;
    };
    for (const bar of bars) {
      const track = make("span", { className: "track" }, part(bar.value < 0 ? "fill negative" : "fill", 0, bar.value));
      if (bar.low !== null) track.append(part("interval", bar.low, bar.high));
      list.append(make("li", {}, make("span", { textContent: bar.label }), track, make("span", { className: "note", textContent: bar.note })));
    }
    return [make("h4", { textContent: "Enrichment: share of its profiles, less that of other areas" }), list];
  }
  function showArea(name) {
    state.area = name;
    const area = data.areas.find((a) => a.name === name), members = [];
    for (let v = 0; v < n; v++) if (inArea(v, name)) members.push(v);
    members.sort((a, b) => holds(b) - holds(a) || (data.r2[b] || 0) - (data.r2[a] || 0));
    const list = make("ul", { className: "found" });
    for (const v of members.slice(0, 12)) {
      const first = holds(v) && data.first[v + 1] > data.first[v] ? data.words[data.word[data.first[v]]] : data.claims[data.claim[v]];
      const button = make("button", { type: "button", textContent: `${data.ids[v]}: ${first}, R² ${plain(data.r2[v])}` });
      button.addEventListener("click", () => show(v));
      list.append(make("li", {}, button));
    }
    const all = make("button", { type: "button", textContent: "Show all areas" });
    all.addEventListener("click", () => { state.area = ""; $("explorer-find").value = ""; panel(); remember(""); draw(); });
    const inside = area.structure ? [make("h4", { textContent: `How its ${data.units} differ` }), make("p", { className: "soft", textContent: area.structure })] : [];
    panel(make("h3", { textContent: name }), make("p", { textContent: area.text }), all, ...enrichments(area.bars), ...inside,
      make("h4", { textContent: `Best predicted ${data.units}` }), list);
    remember("area", name);
    draw();
  }
  function ask(word) {
    if (!data.words.includes(word)) {
      $("explorer-legend").replaceChildren(make("p", { className: "missing", textContent: `“${word}” is in no profile of this run.` }));
      return;
    }
    Object.assign(state, { word, layer: "word" });
    $("explorer-layer").value = "word";
    $("explorer-word").value = word;
    draw();
  }
  function find(text) {
    const v = /^\d+$/.test(text) ? data.ids.indexOf(Number(text)) : -1;
    const area = data.areas.find((a) => a.name.toLowerCase() === text.toLowerCase());
    if (v >= 0) show(v);
    else if (area) showArea(area.name);
    else if (text) panel(make("p", { className: "missing", textContent: `No ${data.unit} and no area here is named “${text}”.` }));
  }
  function remember(kind, value) {
    try { history.replaceState(null, "", kind ? `#${kind}=${encodeURIComponent(value)}` : location.pathname); } catch (error) { /* a page without an address keeps none */ }
  }
  function nearest(x, y, reach, accept) {
    let best = -1, least = reach;
    for (let v = 0; v < n; v++) {
      if (!(spots[3 * v + 2] > 0) || (accept && !accept(v))) continue;
      const distance = Math.hypot(spots[3 * v] - x, spots[3 * v + 1] - y);
      if (distance < least) [best, least] = [v, distance];
    }
    return best;
  }
  function step(key) {
    if (state.voxel < 0) return show(0);
    const at = state.voxel, [x, y] = [spots[3 * at], spots[3 * at + 1]];
    const turn = { PageDown: 1, PageUp: -1 }[key];
    if (turn && data.places) {
      const k = slices[slices.indexOf(data.places[3 * at + 2]) + turn];
      let best = -1, least = Infinity;
      for (let v = 0; v < n; v++) {
        const distance = Math.hypot(data.places[3 * v] - data.places[3 * at], data.places[3 * v + 1] - data.places[3 * at + 1]);
        if (data.places[3 * v + 2] === k && distance < least) [best, least] = [v, distance];
      }
      return best >= 0 && show(best);
    }
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
    const ahead = (v) => {
      const [a, b] = [spots[3 * v] - x, spots[3 * v + 1] - y], along = a * dx + b * dy;
      return along > 0.5 && Math.abs(a * dy) + Math.abs(b * dx) <= along && (!data.places || data.places[3 * v + 2] === data.places[3 * at + 2]);
    };
    const next = nearest(x, y, Infinity, ahead);
    if (next >= 0) show(next);
  }

  for (const [name, layer] of Object.entries(layers)) $("explorer-layer").append(make("option", { value: name, textContent: layer.title }));
  const used = new Set();
  for (let v = 0; v < n; v++) if (holds(v)) for (let i = data.first[v]; i < data.first[v + 1]; i++) used.add(data.words[data.word[i]]);
  $("explorer-words").append(...[...used].sort().map((word) => make("option", { value: word })));
  $("explorer-areas").append(...data.areas.map((area) => make("option", { value: area.name })));
  $("explorer-layer").addEventListener("change", (event) => {
    state.layer = event.target.value;
    if (state.layer === "word" && !state.word) state.word = [...used][0] || "";
    $("explorer-word").value = state.layer === "word" ? state.word : "";
    draw();
  });
  $("explorer-word").addEventListener("change", (event) => event.target.value.trim() && ask(event.target.value.trim()));
  $("explorer-find").addEventListener("change", (event) => find(event.target.value.trim()));
  $("explorer-before").addEventListener("click", () => { state.page = Math.max(0, state.page - 1); draw(); });
  $("explorer-after").addEventListener("click", () => { state.page += 1; draw(); });
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), v = nearest(event.clientX - box.left, event.clientY - box.top, 16);
    if (v >= 0) show(v);
  });
  canvas.addEventListener("keydown", (event) => {
    if (!/^(Arrow|Page)/.test(event.key)) return;
    event.preventDefault();
    step(event.key);
  });
  addEventListener("resize", draw);
  $("explorer-off").hidden = true;
  $("explorer-app").hidden = false;
  const follow = () => {
    const [, kind, value] = address().match(/^(voxel|area|word)=(.*)$/) || [];
    if (kind === "word") ask(value);
    else if (kind) find(value);
  };
  addEventListener("hashchange", follow);
  state.layer = layers.category ? "category" : "claim";
  $("explorer-layer").value = state.layer;
  draw();
  follow();
})();
