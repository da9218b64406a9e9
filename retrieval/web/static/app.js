"use strict";

const at = (id) => document.getElementById(id);
let photo = null; // the file that was answered last; a match is asked for with it again
let asked = 0; // an answer to an earlier photo is not shown

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
  const response = await fetch(address, { method: "POST", body: file });
  if (!response.ok) throw new Error((await response.json()).error);
  return response;
}

async function ask(file) {
  const number = ++asked;
  photo = file;
  at("photo").src = URL.createObjectURL(file);
  at("photo").alt = `The photo ${file.name}`;
  at("photo").hidden = false;
  at("answer").hidden = true;
  say("Looking …");
  try {
    const answer = await (await post("answer", file)).json();
    if (number === asked) show(answer);
  } catch (error) {
    if (number === asked) say(`Not answered: ${error.message}`, true);
  }
}

function show(answer) {
  at("candidates").replaceChildren(...answer.candidates.map(candidate));
  at("neighbors").replaceChildren(...answer.neighbors.map(neighbor));
  at("answer").hidden = false;
  const best = answer.candidates[0];
  const name = best && landmarkText(best.landmark, best.name).textContent;
  if (!best) say("No landmark of the gallery fits.");
  else say(answer.probably_no_landmark ? `Probably no landmark of the gallery; the least unlikely: ${name}` : `Answered: ${name}`);
}

function candidate(found) {
  const item = element("li", "");
  item.append(landmarkText(found.landmark, found.name), element("span", found.score.toFixed(4), "score"));
  if (found.name) item.append(element("small", `landmark ${found.landmark}`));
  return item;
}

function neighbor(found, i) {
  const item = element("li", ""), button = element("button", ""), image = element("img", "");
  image.src = `gallery/${found.row}.jpg`;
  image.alt = `Neighbor ${i + 1}: ${found.id}`;
  button.type = "button";
  button.title = "Show what both have in common";
  button.append(image);
  button.addEventListener("click", () => compare(found));
  const caption = element("p", "");
  caption.append(element("span", found.similarity.toFixed(3), "score"), " · ", landmarkText(found.landmark, found.name));
  item.append(button, caption);
  return item;
}

async function compare(found) {
  at("match-title").textContent = "Comparing …";
  at("match-picture").hidden = true;
  at("match").showModal();
  try {
    const response = await post(`match/${found.row}`, photo);
    const inliers = response.headers.get("Inliers");
    at("match-title").textContent = `${inliers} points in common with ${found.id}`;
    at("match-picture").src = URL.createObjectURL(await response.blob());
    at("match-picture").alt = `Your photo on the left, ${found.id} on the right, ${inliers} lines between them`;
    at("match-picture").hidden = false;
  } catch (error) {
    at("match-title").textContent = `Not compared: ${error.message}`;
  }
}

at("file").addEventListener("change", () => at("file").files[0] && ask(at("file").files[0]));
for (const kind of ["dragenter", "dragover"]) {
  at("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.add("over");
  });
}
at("drop").addEventListener("dragleave", () => at("drop").classList.remove("over"));
at("drop").addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  if (event.dataTransfer.files[0]) ask(event.dataTransfer.files[0]);
});
fetch("about").then((response) => response.json()).then((about) => { at("title").textContent = about.title; });
