"use strict";

const at = (id) => document.getElementById(id);
let asked = 0; // answers to photos that came before the latest are not shown
let limit = Infinity; // bytes of a photo

function element(tag, text, name) {
  const made = document.createElement(tag);
  made.textContent = text; // names come from anybody: text, never markup
  if (name) made.className = name;
  return made;
}

function landmarkText(landmark, name) {
  if (!landmark) return element("span", "no landmark");
  if (/^https?:\/\//.test(name)) {
    const title = decodeTitle(name.replace(/^.*\/(Category:)?/, ""));
    const link = element("a", title || landmark);
    link.href = name;
    link.rel = "noopener noreferrer";
    link.target = "_blank";
    return link;
  }
  return element("span", name || `landmark ${landmark}`);
}

function decodeTitle(text) {
  try {
    return decodeURIComponent(text).replaceAll("_", " ");
  } catch {
    return text;
  }
}

function say(text, wrong) {
  at("state").textContent = text;
  at("state").className = wrong ? "wrong" : "";
}

async function post(address, file) {
  if (file.size > limit) throw new Error(`a photo may have at most ${limit.toLocaleString("en")} bytes`);
  const response = await fetch(address, { method: "POST", body: file }).catch(() => {
    throw new Error("the file cannot be read, or the server has stopped");
  });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

async function ask(files) { // each has its own answer, in turn; one that fails does not keep the others
  const number = ++asked;
  const places = files.map(place);
  at("answers").replaceChildren(...places);
  for (const [i, file] of files.entries()) {
    say(files.length > 1 ? `Looking at photo ${i + 1} of ${files.length} …` : "");
    try {
      const answer = await (await post("answer", file)).json();
      show(places[i], answer, file);
    } catch (error) {
      verdict(places[i], `Not answered: ${error.message}`, "wrong");
    }
    if (number !== asked) return;
  }
  const failed = places.filter((made) => made.querySelector(".verdict.wrong")).length;
  say(files.length > 1 ? `${files.length - failed} of ${files.length} photos answered` : "");
}

function place(file) { // where the answer to a photo will stand
  const made = at("answer").content.cloneNode(true).firstElementChild, photo = made.querySelector(".photo");
  photo.alt = `The photo ${file.name}`;
  photo.addEventListener("load", () => URL.revokeObjectURL(photo.src), { once: true });
  photo.addEventListener("error", () => photo.replaceWith(element("p", "no preview", "photo quiet")), { once: true });
  photo.src = URL.createObjectURL(file);
  made.querySelector(".file").textContent = file.name;
  return made;
}

function verdict(made, text, name) {
  made.querySelector(".verdict").textContent = text;
  made.querySelector(".verdict").classList.add(name);
}

function show(made, answer, file) {
  made.querySelector(".candidates").replaceChildren(...answer.candidates.map(candidate));
  made.querySelector(".neighbors").replaceChildren(...answer.neighbors.map((found, i) => neighbor(found, i, file)));
  made.querySelector(".found").hidden = !answer.neighbors.length;
  const best = answer.candidates[0];
  const name = best && landmarkText(best.landmark, best.name).textContent;
  if (!best?.landmark) verdict(made, "No landmark of the gallery fits.", "none");
  else if (answer.probably_no_landmark) {
    verdict(made, `Probably no landmark of the gallery; the least unlikely: ${name}`, "none");
  } else verdict(made, `Answered: ${name}`, "landmark");
}

function candidate(found) {
  const item = element("li", "");
  item.append(landmarkText(found.landmark, found.name), element("span", found.score.toFixed(4), "score"));
  if (found.name) item.append(element("small", `landmark ${found.landmark}`));
  return item;
}

function neighbor(found, i, file) {
  const item = element("li", ""), button = element("button", ""), image = element("img", "");
  image.src = `gallery/${found.row}.jpg`;
  image.alt = `Neighbor ${i + 1}: ${found.id}`;
  button.type = "button";
  button.title = "Show what both have in common";
  button.setAttribute("aria-label", `Compare with neighbor ${i + 1}, ${found.id}`);
  button.append(image);
  button.addEventListener("click", () => compare(found, file));
  const caption = element("p", "");
  caption.append(element("span", found.similarity.toFixed(3), "score"), " · ",
    landmarkText(found.landmark, found.name), " · ", photoLink(found));
  item.append(button, caption);
  return item;
}

function photoLink(found) {
  const link = element("a", "photo");
  link.href = `gallery/${found.row}.jpg`;
  link.target = "_blank";
  link.setAttribute("aria-label", `Photo ${found.id}`);
  return link;
}

async function compare(found, file) {
  at("match-title").textContent = "Comparing …";
  at("match-picture").hidden = true;
  at("match").showModal();
  try {
    const response = await post(`match/${found.row}`, file);
    const inliers = response.headers.get("Inliers");
    at("match-title").textContent = `${inliers} points in common with ${found.id}`;
    at("match-picture").src = URL.createObjectURL(await response.blob());
    at("match-picture").alt = `Your photo on the left, ${found.id} on the right, ${inliers} lines between them`;
    at("match-picture").hidden = false;
  } catch (error) {
    at("match-title").textContent = `Not compared: ${error.message}`;
  }
}

at("drop").addEventListener("click", () => at("file").click()); // a button: Enter and Space press it
at("file").addEventListener("change", () => {
  if (at("file").files.length) ask([...at("file").files]);
  at("file").value = ""; // the same files may be chosen again
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  take(event.dataTransfer, "What was dropped is no file; save the photo first, then drop it here.");
});
document.addEventListener("paste", (event) => take(event.clipboardData, "The clipboard holds no photo."));

function take(transfer, otherwise) {
  if (transfer.files.length) ask([...transfer.files]);
  else say(otherwise, true);
}

fetch("about").then((response) => response.json()).then((about) => {
  at("title").textContent = about.title;
  limit = about.max_bytes;
});
