// A call from this page: a session from /start, an offer to its address, RTVI messages over the data channel.

const CONNECT_TIMEOUT_MS = 20_000;
const LOST_AFTER_MS = 5_000;
const RTVI_VERSION = "2.1.0";
const KEYS = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"];
const KEY_NAMES = { "*": "star", "#": "hash" };

const element = (id) => document.getElementById(id);
const [dial, number, callButton] = ["dial", "number", "call"].map(element);
const [state, error, controls, keypad] = ["state", "error", "controls", "keypad"].map(element);
const [mute, keypadToggle, hangUp] = ["mute", "keypad-toggle", "hang-up"].map(element);
const [transcript, receptionist] = ["transcript", "receptionist"].map(element);

const address = new URLSearchParams(location.search);
/** A tenant's key in this page's address: `/?site_key=site_…`; null: a number is called. */
const siteKey = address.get("site_key");

/** The call in progress, or null. */
let call = null;

/** What went wrong, in words for the person at the page. */
class Problem extends Error {}

class Transcript {
  #open = null;
  #said = "";

  clear() {
    transcript.replaceChildren();
    this.#open = null;
  }

  /** The receptionist begins a sentence: it joins the turn that is being spoken. */
  sentence(text) {
    this.#said = this.#open ? `${this.#said} ${text}` : text;
    this.#open ??= this.#line("receptionist", "Receptionist");
    this.#open.lastChild.textContent = this.#said;
  }

  /** The receptionist's turn as it was heard; shorter than what was begun when it was interrupted. */
  heard(text) {
    const line = this.#open ?? this.#line("receptionist", "Receptionist");
    const interrupted = this.#open !== null && text.length < this.#said.length;
    line.lastChild.textContent = interrupted ? `${text} — (interrupted)` : text;
    this.#open = null;
  }

  caller(text) {
    this.#line("caller", "You").lastChild.textContent = text;
  }

  #line(speaker, name) {
    const line = document.createElement("li");
    const title = document.createElement("b");
    line.className = speaker;
    title.textContent = name;
    line.append(title, document.createElement("span"));
    transcript.append(line);
    line.scrollIntoView({ block: "nearest" });
    return line;
  }
}

const lines = new Transcript();

class Call {
  #connection = new RTCPeerConnection();
  #channel = this.#connection.createDataChannel("chat", { ordered: true });
  #microphone = null;
  #address = "";
  #id = null;
  #candidates = [];
  #over = false;
  #timer = 0;
  #messages = 0;

  /** called: what `/start` is sent, a number or a site key. */
  constructor(called) {
    this.called = called;
  }

  async place() {
    show("Asking for the microphone…");
    // The session is asked for while the person decides about the microphone.
    const session = post("/start", this.called);
    session.catch(() => {}); // Its failure is taken up below; a refused microphone comes first.
    this.#microphone = await microphone();
    const { sessionId } = await session;
    if (this.#over) return this.#release();
    show("Calling…");
    this.#address = `/sessions/${encodeURIComponent(sessionId)}/api/offer`;
    this.#watch();
    const [track] = this.#microphone.getAudioTracks();
    this.#connection.addTrack(track, this.#microphone);
    await this.#connection.setLocalDescription();
    const { sdp, type } = this.#connection.localDescription;
    const answer = await post(this.#address, { sdp, type });
    if (this.#over) return;
    this.#id = answer.pc_id;
    await this.#connection.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    this.#sendCandidates();
  }

  #watch() {
    const connection = this.#connection;
    this.#timer = setTimeout(() => this.end("The connection could not be made."), CONNECT_TIMEOUT_MS);
    connection.ontrack = ({ track, streams }) => {
      receptionist.srcObject = streams[0] ?? new MediaStream([track]);
      receptionist.play().catch(() => show("Connected. Press play: the browser holds the sound back."));
    };
    connection.onicecandidate = ({ candidate }) => {
      if (candidate) this.#candidates.push(candidate);
      if (this.#id) this.#sendCandidates();
    };
    connection.onconnectionstatechange = () => {
      clearTimeout(this.#timer);
      if (connection.connectionState === "connected") show("Connected. Speak.");
      if (connection.connectionState === "failed") this.end("The connection was lost.");
      if (connection.connectionState === "disconnected") {
        show("The connection is interrupted…");
        this.#timer = setTimeout(() => this.end("The connection was lost."), LOST_AFTER_MS);
      }
    };
    this.#channel.onopen = () => {
      const about = { library: "softphone page" };
      this.#send("client-ready", { version: RTVI_VERSION, about });
    };
    this.#channel.onmessage = ({ data }) => this.#received(data);
    this.#channel.onclose = () => this.end("The call has ended.");
  }

  #sendCandidates() {
    const candidates = this.#candidates.splice(0).map((candidate) => ({
      candidate: candidate.candidate,
      sdp_mid: candidate.sdpMid,
      sdp_mline_index: candidate.sdpMLineIndex,
    }));
    // The server answers from any address that can reach it; a candidate that does not arrive costs nothing.
    if (candidates.length) request("PATCH", this.#address, { pc_id: this.#id, candidates }).catch(() => {});
  }

  #send(type, data) {
    if (this.#channel.readyState !== "open") return;
    this.#messages += 1;
    this.#channel.send(JSON.stringify({ label: "rtvi-ai", type, id: String(this.#messages), data }));
  }

  #received(text) {
    const { label, type, data, message } = JSON.parse(text);
    if (type === "signalling" && message?.type === "peerLeft") {
      this.end("The receptionist has hung up.");
    } else if (label === "rtvi-ai") {
      this.#told(type, data);
    }
  }

  #told(type, data) {
    switch (type) {
      case "bot-output":
        if (data.spoken_status === "new") lines.sentence(data.text);
        break;
      case "bot-transcription":
        lines.heard(data.text);
        break;
      case "user-transcription":
        lines.caller(data.text);
        break;
      case "user-started-speaking":
        show("Connected. You are speaking.");
        break;
      case "user-stopped-speaking":
        show("Connected. One moment…");
        break;
      case "bot-started-speaking":
        show("Connected. The receptionist is speaking.");
        break;
      case "bot-stopped-speaking":
        show("Connected. Speak.");
        break;
      case "error":
      case "error-response":
        complain(data.error);
        break;
    }
  }

  press(key) {
    this.#send("dtmf", { buttons: [key] });
  }

  /** Mutes or unmutes: silence goes out, and the receptionist treats it as on a telephone. */
  mute(muted) {
    for (const track of this.#microphone?.getAudioTracks() ?? []) track.enabled = !muted;
    if (this.#channel.readyState !== "open") return;
    const message = { type: "trackStatus", receiver_index: 0, enabled: !muted };
    this.#channel.send(JSON.stringify({ type: "signalling", message }));
  }

  hangUp() {
    this.#send("disconnect-bot", {});
    this.end("You have hung up.");
  }

  end(words) {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    if (call === this) idle(words);
  }

  #release() {
    clearTimeout(this.#timer);
    for (const track of this.#microphone?.getTracks() ?? []) track.stop();
    receptionist.srcObject = null;
    // What was just sent, and the channel's own goodbye, go out before the connection does.
    this.#channel.close();
    setTimeout(() => this.#connection.close(), 100);
  }
}

async function microphone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Problem(
      "This browser gives no microphone to this page: it must be opened as https://… or on this machine as " +
        `http://localhost:${location.port || 80}/.`,
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (reason) {
    const words = {
      NotAllowedError: "The microphone was not allowed. Allow it for this page in the browser, then call again.",
      NotFoundError: "No microphone was found.",
      NotReadableError: "The microphone is in use by another program.",
    };
    throw new Problem(words[reason.name] ?? `The microphone cannot be used: ${reason.message}`);
  }
}

const post = (path, body) => request("POST", path, body);

async function request(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body && { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Problem("The server cannot be reached.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  const again = response.headers.get("Retry-After");
  const words = answer.detail ?? `The server answered ${response.status}.`;
  throw new Problem(again ? `${words}; try again in ${again} s` : words);
}

function show(words) {
  state.textContent = words;
}

function complain(words) {
  error.textContent = words;
  error.hidden = !words;
}

function idle(words) {
  call = null;
  show(words);
  controls.hidden = keypad.hidden = true;
  keypadToggle.setAttribute("aria-expanded", "false");
  callButton.disabled = number.disabled = false;
}

async function place() {
  complain("");
  lines.clear();
  mute.setAttribute("aria-pressed", "false");
  callButton.disabled = number.disabled = true;
  controls.hidden = false;
  const placed = (call = new Call(siteKey ? { site_key: siteKey } : { number: number.value }));
  try {
    await placed.place();
  } catch (reason) {
    if (call !== placed) return;
    complain(reason instanceof Problem ? reason.message : `The call failed: ${reason.message}`);
    placed.end("No call.");
  }
}

dial.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!call) place();
});
mute.addEventListener("click", () => {
  const muted = mute.getAttribute("aria-pressed") !== "true";
  mute.setAttribute("aria-pressed", String(muted));
  call?.mute(muted);
});
keypadToggle.addEventListener("click", () => {
  keypad.hidden = !keypad.hidden;
  keypadToggle.setAttribute("aria-expanded", String(!keypad.hidden));
});
hangUp.addEventListener("click", () => call?.hangUp());
window.addEventListener("pagehide", () => call?.hangUp());
for (const key of KEYS) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  if (key in KEY_NAMES) button.setAttribute("aria-label", KEY_NAMES[key]);
  button.addEventListener("click", () => call?.press(key));
  keypad.append(button);
}

try {
  const asked = address.get("number");
  const entries = siteKey ? [] : await request("GET", "/api/numbers");
  if (siteKey) number.append(new Option("This site", siteKey));
  // A server that lists no numbers is called at the one that the page's address names.
  if (!siteKey && asked && !entries.some((entry) => entry.number === asked)) number.append(new Option(asked, asked));
  for (const entry of entries) {
    number.append(new Option(`${entry.business_name} (${entry.number})`, entry.number));
  }
  if (asked && !siteKey) number.value = asked;
  idle(number.options.length ? "Ready." : "There is no number to call here.");
  callButton.disabled = number.options.length === 0;
} catch (reason) {
  show("Not ready.");
  complain(reason.message);
}
