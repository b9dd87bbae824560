// A small server for Rekindle in Node: HTTP on 8080, lifecycle hooks on 9000, nothing but Node's own modules.
//
//   GET  /         who this is, and what the hooks have told so far
//   GET  /notes    the notes: in memory alone, and there after every sleep
//   POST /notes    adds the body as one
//   GET  /events   the notes as server-sent events: those that are there, then each as it comes

import { closeSync, openSync, readSync } from "node:fs";
import { createServer } from "node:http";

const { PORT = "8080", HOOKS_PORT = "9000" } = process.env;
const HOOK = /^\/aws\/lambda-microvms\/runtime\/v1\/(ready|validate|run|resume|suspend|terminate)$/;
const MAX_BODY = 1 << 20;
const MAX_NOTES = 1000;

const state = { microvmId: null, runHookPayload: null, key: null, hooks: {} };
const notes = [];
const listeners = new Set();

// Of the kernel, which gives each clone its own. `node:crypto` draws from a state in the process's memory, which all
// clones have from the snapshot until it is stirred again.
function randomHex(bytes) {
  const buffer = Buffer.alloc(bytes);
  const file = openSync("/dev/urandom", "r");
  readSync(file, buffer);
  closeSync(file);
  return buffer.toString("hex");
}

async function bodyOf(request) {
  const pieces = [];
  let length = 0;
  for await (const piece of request) {
    length += piece.length;
    if (length > MAX_BODY) throw Object.assign(new Error(`a body has at most ${MAX_BODY} bytes`), { status: 413 });
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString();
}

function answer(response, status, content) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(content)}\n`);
}

const event = (note) => `data: ${JSON.stringify(note)}\n\n`;

function add(text) {
  const note = { text, at: new Date().toISOString() };
  notes.push(note);
  if (notes.length > MAX_NOTES) notes.shift();
  for (const listener of listeners) listener.write(event(note));
  return note;
}

function stream(response) {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  response.write(notes.map(event).join("") || ": none yet\n\n");
  listeners.add(response);
  response.on("close", () => listeners.delete(response));
}

async function application(request, response) {
  const { pathname } = new URL(request.url, "http://localhost");
  switch (`${request.method} ${pathname}`) {
    case "GET /":
      return answer(response, 200, { message: "Hello from Node", node: process.version, ...state });
    case "GET /notes":
      return answer(response, 200, notes);
    case "POST /notes":
      return answer(response, 201, add(await bodyOf(request)));
    case "GET /events":
      return stream(response);
    default:
      return answer(response, 404, { message: `nothing at ${request.method} ${pathname}` });
  }
}

async function hooks(request, response) {
  const name = request.method === "POST" && HOOK.exec(request.url)?.[1];
  if (!name) return answer(response, 404, { message: `no hook at ${request.url}` });
  const body = await bodyOf(request);
  if (name === "run") {
    const { microvmId, runHookPayload } = JSON.parse(body);
    // A clone's life begins here: what must be its own alone is made now.
    Object.assign(state, { microvmId, runHookPayload, key: randomHex(16) });
  }
  state.hooks[name] = (state.hooks[name] ?? 0) + 1;
  return answer(response, 200, { hook: name });
}

function listen(port, handle) {
  const server = createServer((request, response) => {
    handle(request, response).catch((error) => {
      console.error(`${request.method} ${request.url}: ${error.stack}`);
      if (response.headersSent) response.destroy();
      else answer(response, error.status ?? 400, { message: error.message });
    });
  });
  server.listen(Number(port), "0.0.0.0", () => console.error(`listening on ${port}`));
}

listen(HOOKS_PORT, hooks);
listen(PORT, application);
