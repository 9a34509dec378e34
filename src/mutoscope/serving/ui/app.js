"use strict";
// The page of a Mutoscope server. Everything it shows and does goes through the public API under /v1.

const $ = (id) => document.getElementById(id);
const videos = new Map(); // id -> what the API says of it, newest first once sorted
const pictures = new Map(); // id -> blob URL of its thumbnail
const cards = new Map(); // id -> its element in the gallery
const rows = new Map(); // id -> its element in the queue
const state = { model: null, remix: null, open: null, hasMore: false, oldest: null };
const stars = new Set(stored("stars", []));

function stored(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function make(tag, properties = {}, ...children) {
  const { aria = {}, ...rest } = properties;
  const node = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(aria)) node.setAttribute(`aria-${name}`, value);
  node.append(...children);
  return node;
}

// --- the API ---------------------------------------------------------------------------------------

async function call(path, options = {}) {
  const key = stored("key", "");
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askForKey();
    return call(path, options);
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Error(said?.error?.message ?? `The server answered ${answer.status}.`);
  }
  return answer;
}

const get = async (path) => (await call(path)).json();

function post(path, body) {
  const isForm = body instanceof FormData;
  const headers = { "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) };
  if (!isForm) headers["content-type"] = "application/json";
  return call(path, { method: "POST", headers, body: isForm ? body : JSON.stringify(body) }).then((answer) => answer.json());
}

let asking = null;
function askForKey() {
  asking ??= new Promise((resolve) => {
    $("key").showModal();
    $("key").addEventListener("close", () => {
      localStorage.setItem("key", JSON.stringify($("key-text").value.trim()));
      $("key-text").value = "";
      asking = null;
      resolve();
    }, { once: true });
  });
  return asking;
}

async function blob(path) {
  return URL.createObjectURL(await (await call(path)).blob());
}

// --- looking again and again -----------------------------------------------------------------------

async function look() {
  let wait = 4000;
  try {
    const page = await get("/v1/videos?limit=50");
    if (state.oldest === null) {
      state.oldest = page.last_id;
      state.hasMore = page.has_more;
    }
    const seen = new Set(page.data.map((video) => video.id));
    const oldestSeen = page.data.at(-1)?.created_at ?? 0;
    for (const video of videos.values())
      if (!seen.has(video.id) && (!page.has_more || video.created_at > oldestSeen)) forget(video.id);
    page.data.forEach(learn);
    await tellHealth();
    if ([...videos.values()].some(isActive)) wait = 1000;
  } catch (error) {
    $("health").className = "bad";
    $("health").textContent = "no answer from the server";
  }
  render();
  setTimeout(look, document.hidden ? 5000 : wait);
}

const isActive = (video) => video.status === "queued" || video.status === "in_progress";

function learn(video) {
  const before = videos.get(video.id);
  videos.set(video.id, video);
  if (before && isActive(before) && !isActive(video)) {
    const word = video.status === "completed" ? "Video ready" : "Video failed";
    $("news").textContent = `${word}: ${video.prompt.slice(0, 80)}`;
  }
}

function forget(id) {
  videos.delete(id);
  for (const shown of [cards, rows]) {
    shown.get(id)?.remove();
    shown.delete(id);
  }
  if (pictures.has(id)) URL.revokeObjectURL(pictures.get(id));
  pictures.delete(id);
}

async function tellHealth() {
  const health = await (await fetch("/health")).json();
  const words = { ok: "ready", starting: "loading the model", degraded: "no worker answers", draining: "stopping" };
  $("health").className = health.status === "ok" ? "ok" : health.status === "starting" ? "" : "bad";
  const waiting = health.queued ? `, ${health.queued} waiting` : "";
  $("health").textContent = `${state.model?.id ?? ""} ${words[health.status] ?? health.status}${waiting}`.trim();
}

// --- showing ---------------------------------------------------------------------------------------

function render() {
  const sorted = [...videos.values()].sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1));
  const active = sorted.filter((video) => video.status !== "completed").reverse();
  $("queue").hidden = active.length === 0;
  for (const [id, row] of rows) if (!active.some((video) => video.id === id)) (row.remove(), rows.delete(id));
  active.forEach(showRow);
  const word = $("search").value.trim().toLowerCase();
  const fits = (video) => video.prompt.toLowerCase().includes(word) && (!$("starred").checked || stars.has(video.id));
  const done = sorted.filter((video) => video.status === "completed");
  const shown = done.filter(fits);
  done.forEach((video) => (card(video).hidden = !fits(video)));
  shown.forEach((video, index) => {
    if ($("clips").children[index] !== card(video)) $("clips").insertBefore(card(video), $("clips").children[index] ?? null);
  });
  $("empty").hidden = shown.length > 0;
  $("empty").textContent = done.length
    ? "No video fits the search."
    : "Nothing here yet. Describe a video above; it appears here when it is done.";
  $("older").hidden = !state.hasMore;
}

function showRow(video) {
  let row = rows.get(video.id);
  if (!row) {
    const end = make("button", { type: "button", className: "quiet", onclick: () => finish(video.id) });
    row = make("li", {},
      make("img", { alt: "", hidden: true }), make("div", { className: "blank" }),
      make("p", { textContent: video.prompt }), end,
      make("div", { className: "state" }, make("progress", { max: 100 }), make("p", { className: "hint" })));
    rows.set(video.id, row);
    $("jobs").append(row);
  }
  const [bar, words] = row.querySelector(".state").children;
  bar.setAttribute("aria-label", `Progress of: ${video.prompt.slice(0, 80)}`);
  bar.hidden = video.status === "failed";
  bar.value = video.progress;
  words.className = video.status === "failed" ? "failed" : "hint";
  words.textContent = video.status === "queued" ? "waiting"
    : video.status === "failed" ? video.error?.message ?? "failed" : `${video.progress} %`;
  const end = row.querySelector("button");
  end.textContent = isActive(video) ? "Cancel" : "Dismiss";
  end.setAttribute("aria-label", `${end.textContent}: ${video.prompt.slice(0, 80)}`);
  if (video.status === "in_progress") watch(video.id);
}

// Server-sent events by fetch, since the EventSource of browsers cannot send a key.
const watched = new Set(); // ids whose events are being read

async function watch(id) {
  if (watched.has(id)) return;
  watched.add(id);
  try {
    const answer = await call(`/v1/videos/${id}/events`);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      blocks.forEach((block) => hear(id, block));
    }
  } catch {
    // looking again and again goes on without it
  } finally {
    watched.delete(id);
  }
}

function hear(id, block) {
  const lines = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  if (!lines.data) return;
  const data = JSON.parse(lines.data);
  const row = rows.get(id);
  if (lines.event === "preview" && row) {
    const picture = row.querySelector("img");
    picture.src = data.image_url;
    picture.hidden = false;
    row.querySelector(".blank").hidden = true;
  } else if (lines.event === "video" && videos.has(id)) {
    learn(data);
    render();
  }
}

async function finish(id) {
  const wasActive = isActive(videos.get(id));
  await attempt(async () => {
    await call(`/v1/videos/${id}`, { method: "DELETE" });
    forget(id);
    render();
    $("news").textContent = wasActive ? "Cancelled" : "Dismissed";
    $("prompt").focus();
  });
}

function card(video) {
  let item = cards.get(video.id);
  if (item) return item;
  const picture = make("img", { alt: "", loading: "lazy" });
  const open = make("button", { type: "button", className: "clip", onclick: () => show(video.id) },
    picture, make("span", { textContent: video.prompt }));
  const star = make("button", { type: "button", className: "star", textContent: "★" });
  const mark = () => {
    star.setAttribute("aria-pressed", stars.has(video.id));
    star.setAttribute("aria-label", `Star: ${video.prompt.slice(0, 80)}`);
  };
  star.onclick = () => {
    stars.delete(video.id) || stars.add(video.id);
    localStorage.setItem("stars", JSON.stringify([...stars]));
    mark();
    render();
  };
  mark();
  item = make("li", {}, open, star);
  cards.set(video.id, item);
  blob(`/v1/videos/${video.id}/content?variant=thumbnail`).then((url) => {
    pictures.set(video.id, url);
    picture.src = url;
  }, () => {});
  return item;
}

async function show(id) {
  const video = videos.get(id);
  state.open = id;
  $("detail-prompt").textContent = video.prompt;
  $("detail-note").textContent = video.note ?? "";
  const parent = video.remixed_from_video_id ?? video.extended_from_video_id ?? video.edited_from_video_id;
  const facts = {
    Model: video.served_by, Size: video.size, Length: `${video.seconds} s, ${video.frames} frames at ${video.fps} per second`,
    "Told to the model": video.expanded_prompt ?? "", Storyboard: video.storyboard?.cards.map(toldCard).join("; ") ?? "",
    Seed: video.seed, Steps: video.steps || "", Guidance: video.sampler && video.guidance, Sampler: video.sampler,
    "Not to be seen": video.negative_prompt, Strength: video.strength ?? "", Made: new Date(video.created_at * 1000).toLocaleString(),
    "Made from": parent ? videos.get(parent)?.prompt ?? parent : "", Id: video.id,
  };
  $("recipe").replaceChildren(...Object.entries(facts).filter(([, value]) => value !== "")
    .flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  $("actions").replaceChildren(
    make("button", { type: "button", textContent: "Remix", onclick: () => startRemix(video) }),
    make("button", { type: "button", className: "quiet", textContent: "Extend", aria: { expanded: "false", controls: "extend" },
      onclick: (event) => {
        $("extend").hidden = !$("extend").hidden;
        event.target.setAttribute("aria-expanded", !$("extend").hidden);
      } }),
    make("button", { type: "button", className: "quiet", textContent: "Use these settings", onclick: () => reuse(video) }),
    make("button", { type: "button", className: "quiet", textContent: "Download", onclick: () => download(video) }),
    make("button", { type: "button", className: "bad", textContent: "Delete", onclick: () => remove(video) }));
  $("extend").hidden = true;
  $("code").textContent = asCode(video);
  $("player").poster = pictures.get(id) ?? "";
  $("player").setAttribute("aria-label", video.prompt);
  $("detail").showModal();
  await attempt(async () => {
    const url = await blob(`/v1/videos/${id}/content`);
    if (state.open !== id) return URL.revokeObjectURL(url);
    $("player").src = url;
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) $("player").play().catch(() => {});
  });
}

$("detail").addEventListener("close", () => {
  state.open = null;
  $("player").pause();
  if ($("player").src) URL.revokeObjectURL($("player").src);
  $("player").removeAttribute("src");
  $("player").load();
});
$("close").onclick = () => $("detail").close();
$("copy").onclick = () => attempt(async () => {
  await navigator.clipboard.writeText($("code").textContent);
  $("news").textContent = "Copied";
});

function asCode(video) {
  const body = { prompt: video.prompt, size: video.size, seconds: video.seconds };
  const extra = { seed: video.seed };
  if (video.sampler) // else a backend chose them
    Object.assign(extra, { steps: video.steps, guidance: video.guidance, sampler: video.sampler });
  const cards = video.storyboard?.cards.map(({ at, prompt, cut }) => ({ at, prompt, ...(cut !== null && { cut }) }));
  if (cards) extra.storyboard = JSON.stringify({ cards }); // forms, which the client sends, know no lists of cards
  if (video.expanded_prompt || video.storyboard?.cards.some((card) => card.expanded_prompt)) extra.expand = true;
  const text = JSON.stringify({ ...body, ...extra, ...(cards && { storyboard: { cards } }) }).replaceAll("'", "'\\''");
  const python = JSON.stringify(extra).replace(/"(?:[^"\\]|\\.)*"|true|false/g, (word) => ({ true: "True", false: "False" })[word] ?? word);
  return `# curl\ncurl ${location.origin}/v1/videos -H 'content-type: application/json' \\\n  -d '${text}'\n\n` +
    `# Python: pip install openai\nfrom openai import OpenAI\n` +
    `client = OpenAI(base_url="${location.origin}/v1", api_key="local")\n` +
    `video = client.videos.create_and_poll(prompt=${JSON.stringify(video.prompt)}, size="${video.size}", seconds="${video.seconds}",\n` +
    `    extra_body=${python})\n` +
    `client.videos.download_content(video.id).write_to_file("video.mp4")\n`;
}

// --- doing -----------------------------------------------------------------------------------------

async function attempt(action) {
  $("problem").textContent = "";
  try {
    await action();
  } catch (error) {
    if ($("detail").open) $("detail").close();
    $("problem").textContent = error.message;
  }
}

// --- the storyboard --------------------------------------------------------------------------------

function addCard(at, prompt = "", cut = null) {
  const field = (name, control, className = "") =>
    make("div", { className }, make("label", { htmlFor: control.id, textContent: name }), control);
  const id = `card-${crypto.randomUUID?.() ?? Math.random()}`;
  const begins = make("select", { id: `${id}-cut` },
    make("option", { value: "", textContent: "as the spacing says" }), make("option", { value: "true", textContent: "a cut" }),
    make("option", { value: "false", textContent: "a change of what is there" }));
  begins.value = cut === null ? "" : String(cut);
  const remove = make("button", { type: "button", className: "quiet", textContent: "Remove" });
  const clips = [...videos.values()].filter((video) => video.status === "completed");
  const shows = make("select", { id: `${id}-clip` }, make("option", { value: "", textContent: "what the words say" }),
    ...clips.map((video) => make("option", { value: video.id, textContent: `clip: ${video.prompt.slice(0, 60)}` })));
  const card = make("fieldset", {}, make("legend", {}),
    make("div", { className: "row" },
      field("Second", make("input", { id: `${id}-at`, type: "number", min: 0, max: 120, step: "any", required: true, value: at })),
      field("What is seen", make("input", { id: `${id}-prompt`, type: "text", maxLength: 20000, value: prompt }), "text")),
    make("div", { className: "row" }, field("Begins with", begins), field("Shows", shows), remove));
  remove.onclick = () => {
    card.remove();
    numberCards();
    $("card-add").focus();
  };
  $("cards").append(card);
  numberCards();
}

function numberCards() {
  [...$("cards").children].forEach((card, index) => {
    card.querySelector("legend").textContent = `Card ${index + 1}`;
    card.querySelector("button").setAttribute("aria-label", `Remove card ${index + 1}`);
  });
}

const askedCards = () => [...$("cards").children].map((card) => {
  const [at, prompt] = card.querySelectorAll("input");
  const [cut, clip] = card.querySelectorAll("select");
  return {
    at: Number(at.value), ...(prompt.value.trim() && { prompt: prompt.value }), ...(clip.value && { clip: clip.value }),
    ...(cut.value && { cut: cut.value === "true" }),
  };
});

const toldCard = (card) =>
  `${card.at} s: ${card.expanded_prompt ?? card.prompt}${card.shows ? ` [${card.shows}]` : ""}${card.cut ? " (cut)" : ""}`;

$("card-add").onclick = () => {
  const last = askedCards().at(-1);
  addCard(last ? last.at + 1 : 0);
  $("cards").lastElementChild.querySelector("input").focus();
};

function startRemix(video) {
  state.remix = video.id;
  $("detail").close();
  $("remixing").hidden = false;
  $("remixing-text").textContent = `Remix of “${video.prompt.slice(0, 80)}”: same size and length.`;
  $("shape").hidden = $("pictures").hidden = $("board").hidden = true;
  $("cards").replaceChildren();
  $("remix-how").hidden = false;
  $("strength").value = "";
  $("submit").textContent = "Remix video";
  $("prompt").value = video.prompt;
  for (const id of ["seed", "steps", "guidance", "sampler", "negative"]) $(id).value = "";
  $("prompt").focus();
  $("prompt").select();
}

function endRemix() {
  state.remix = null;
  $("remixing").hidden = true;
  $("shape").hidden = $("pictures").hidden = $("board").hidden = false;
  $("remix-how").hidden = true;
  $("submit").textContent = "Make video";
}
$("remix-stop").onclick = () => (endRemix(), $("prompt").focus());

function reuse(video) {
  $("detail").close();
  endRemix();
  $("prompt").value = video.prompt;
  offerSize(video.size);
  $("size").value = video.size;
  $("seconds").value = video.seconds;
  $("seed").value = video.seed;
  $("steps").value = video.steps || "";
  $("guidance").value = video.sampler ? video.guidance : "";
  $("sampler").value = video.sampler;
  $("negative").value = video.negative_prompt;
  $("expand").checked = Boolean(video.expanded_prompt ?? video.storyboard?.cards.some((card) => card.expanded_prompt));
  $("cards").replaceChildren();
  for (const card of video.storyboard?.cards ?? []) addCard(card.at, card.prompt, card.cut);
  $("board").open = Boolean(video.storyboard);
  $("more").open = true;
  $("prompt").focus();
}

function download(video) {
  return attempt(async () => {
    const url = await blob(`/v1/videos/${video.id}/content`);
    make("a", { href: url, download: `${video.id}.mp4` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  });
}

function remove(video) {
  if (!confirm("Delete this video for good?")) return;
  attempt(async () => {
    await call(`/v1/videos/${video.id}`, { method: "DELETE" });
    $("detail").close();
    forget(video.id);
    render();
    $("gallery").focus();
  });
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  $("submit").disabled = true;
  attempt(async () => {
    const asked = { prompt: $("prompt").value };
    for (const [name, id] of [["seed", "seed"], ["steps", "steps"], ["guidance", "guidance"]])
      if ($(id).value !== "") asked[name] = Number($(id).value);
    if ($("sampler").value) asked.sampler = $("sampler").value;
    if ($("negative").value.trim()) asked.negative_prompt = $("negative").value;
    if ($("expand").checked) asked.expand = true;
    if (state.remix && $("strength").value) asked.strength = $("strength").value;
    learn(state.remix ? await post(`/v1/videos/${state.remix}/remix`, asked) : await create(asked));
    endRemix();
    $("prompt").value = "";
    $("first").value = $("last").value = "";
    $("cards").replaceChildren();
    $("news").textContent = "The video is in the queue";
    render();
  }).finally(() => ($("submit").disabled = false));
};

function create(asked) {
  asked.model = state.model.id;
  asked.size = $("size").value;
  if ($("seconds").value) asked.seconds = $("seconds").value;
  const cards = askedCards();
  if (cards.length) asked.storyboard = { cards };
  const [first, last] = [$("first").files[0], $("last").files[0]];
  if (!first && !last) return post("/v1/videos", asked);
  const form = new FormData();
  for (const [name, value] of Object.entries(asked)) form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  if (first) form.append("input_reference", first, "first");
  if (last) form.append("last_frame", last, "last");
  return post("/v1/videos", form);
}

$("extend").onsubmit = (event) => {
  event.preventDefault();
  const video = videos.get(state.open);
  attempt(async () => {
    learn(await post("/v1/videos/extensions", {
      prompt: video.prompt, seconds: $("extend-seconds").value, video: { id: video.id }, ...($("extend-how").value && { [$("extend-how").value]: true }),
      ...($("extend-expand").checked && { expand: true }),
    }));
    $("detail").close();
    $("news").textContent = "The extension is in the queue";
    render();
  });
};

$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("search").oninput = $("starred").onchange = render;
$("older").onclick = () => attempt(async () => {
  const page = await get(`/v1/videos?limit=50&after=${state.oldest}`);
  page.data.forEach(learn);
  state.oldest = page.last_id ?? state.oldest;
  state.hasMore = page.has_more;
  render();
});

function offerSize(size) {
  if (![...$("size").options].some((option) => option.value === size))
    $("size").append(make("option", { value: size, textContent: size.replace("x", " × ") }));
}

async function start() {
  try {
    state.model = (await get("/v1/models")).data[0];
    const [width, height] = state.model.size.split("x").map(Number);
    const sizes = [[width, height], [width * 1.5, height], [width, height * 1.5], [1280, 720], [720, 1280]];
    sizes.forEach((sides) => offerSize(sides.map((side) => Math.round(side / 16) * 16).join("x")));
    $("seconds").value = state.model.seconds;
    $("steps").placeholder = state.model.steps || "";
    $("guidance").placeholder = state.model.sampler && state.model.guidance;
  } catch (error) {
    $("problem").textContent = error.message;
  }
  look();
}
start();
