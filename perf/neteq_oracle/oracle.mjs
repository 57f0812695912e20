// libwebrtc's NetEQ on the recorded network traces, in real time: a wrtc sender, a relay of ours on loopback that passes
// each RTP packet on when the trace says so, and a wrtc receiver whose statistics are read.
//
//     node oracle.mjs [--seconds 60] [trace ...]        (default: lan wifi lte step ge5, all at once)
//
// A row per trace: mean delay in ms above the network's least (the buffer's own, from getStats, and the network's mean) and
// concealment in percent, as tests/traces_network/README.md has them. The first seconds, in which NetEQ starts, count.
// A run in which the relay was late by more than 20 ms measures a busy machine, and fails.
import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import wrtc from '@roamhq/wrtc';

const { RTCPeerConnection, nonstandard } = wrtc;
const FRAME_MS = 20;
const STALLED_MS = 20;
const LOOPBACK = '127.0.0.1';

/** Arrival times in ms, null where lost, and the network's figures over the packets used. */
function loadTrace(name, seconds) {
  const url = new URL(`../../tests/traces_network/${name}.txt`, import.meta.url);
  const lines = readFileSync(url, 'utf8').trim().split('\n').slice(0, seconds * 1000 / FRAME_MS);
  const delays = lines.map((line, index) => Number(line) - FRAME_MS * index);
  const came = delays.filter((delay) => !Number.isNaN(delay));
  const floor = came.reduce((least, delay) => Math.min(least, delay));
  return {
    delays: delays.map((delay) => (Number.isNaN(delay) ? null : delay - floor)),
    networkMs: came.reduce((sum, delay) => sum + delay - floor, 0) / came.length,
    lostPercent: 100 * (1 - came.length / delays.length),
  };
}

/** Three seconds of speech-like sound at 48 kHz, made once: a gliding voice in syllables, then a second of faint noise. */
const VOICE = Int16Array.from({ length: 3 * 48000 }, (_, n) => {
  const time = n / 48000;
  const hiss = 2 * Math.random() - 1;
  if (time >= 2) return 40 * hiss;
  const phase = 140 * time - 10 * time * time;
  let voice = 0;
  for (let k = 1; k <= 20; k += 1) voice += Math.sin(2 * Math.PI * phase * k) / k;
  return 6000 * Math.abs(Math.sin(4 * Math.PI * time)) * voice + 100 * hiss;
});

const isRtp = (datagram) => datagram.length >= 12 && datagram[0] >> 6 === 2 && !(datagram[1] >= 192 && datagram[1] <= 223);

/** Two sockets between the peers; what is not RTP of the sender passes at once. */
class Relay {
  #toSender = createSocket('udp4');
  #toReceiver = createSocket('udp4');
  #sender = null;
  #receiver = null;
  #delays;
  #first = null;
  #timers = new Set();
  lateMs = 0;
  done;
  #finish;

  constructor(delays) {
    this.#delays = delays;
    this.done = new Promise((resolve) => { this.#finish = resolve; });
    this.#toSender.on('message', (datagram, from) => {
      // The peers try their other addresses too; only this one is the way.
      if (from.port !== this.#sender?.port || from.address !== LOOPBACK) return;
      if (isRtp(datagram)) this.#delay(datagram);
      else this.#pass(datagram);
    });
    this.#toReceiver.on('message', (datagram, from) => {
      if (from.port !== this.#receiver?.port || from.address !== LOOPBACK) return;
      this.#toSender.send(datagram, this.#sender.port, LOOPBACK);
    });
  }

  async open() {
    const bind = (socket) => new Promise((resolve) => { socket.bind(0, LOOPBACK, resolve); });
    await Promise.all([bind(this.#toSender), bind(this.#toReceiver)]);
    return { forSender: this.#toSender.address().port, forReceiver: this.#toReceiver.address().port };
  }

  /** Where the peers listen, known from their candidates. */
  connect(senderPort, receiverPort) {
    this.#sender = { port: senderPort };
    this.#receiver = { port: receiverPort };
  }

  #pass(datagram) {
    this.#toReceiver.send(datagram, this.#receiver.port, LOOPBACK);
  }

  /** The packet's place in the trace is its sequence number's; its time is that of an ideal sender, not of ours. */
  #delay(datagram) {
    const now = performance.now();
    const sequence = datagram.readUInt16BE(2);
    this.#first ??= { sequence, at: now + 5 };
    const index = (sequence - this.#first.sequence) & 0xffff;
    if (index >= this.#delays.length) {
      if (index < 0x8000) this.#finish();
      return;
    }
    const delay = this.#delays[index];
    if (delay === null) return;
    const due = this.#first.at + FRAME_MS * index + delay;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      this.lateMs = Math.max(this.lateMs, performance.now() - due);
      this.#pass(datagram);
    }, Math.max(0, due - now));
    this.#timers.add(timer);
  }

  close() {
    this.#timers.forEach(clearTimeout);
    this.#toSender.close();
    this.#toReceiver.close();
  }
}

const gathered = (peer) => new Promise((resolve) => {
  if (peer.iceGatheringState === 'complete') resolve();
  peer.addEventListener('icegatheringstatechange', () => peer.iceGatheringState === 'complete' && resolve());
});

/** The description without candidates but one, the relay's; and the port of the peer's own on loopback. */
function rewire(description, relayPort) {
  const lines = description.sdp.split('\r\n');
  const own = lines.find((line) => line.startsWith('a=candidate') && line.includes(` ${LOOPBACK} `) && / udp /i.test(line));
  const candidate = `a=candidate:1 1 udp 2122260223 ${LOOPBACK} ${relayPort} typ host generation 0`;
  const kept = lines.filter((line) => !line.startsWith('a=candidate') && line !== 'a=end-of-candidates' && line !== '');
  kept.splice(kept.findIndex((line) => line.startsWith('m=')) + 2, 0, candidate);
  return { port: Number(own.split(' ')[5]), description: { type: description.type, sdp: `${kept.join('\r\n')}\r\n` } };
}

/** PCMU alone, so that every 20 ms are a packet. */
function onlyPcmu(description) {
  const sdp = description.sdp
    .replace(/^(m=audio \S+ \S+) .*$/m, '$1 0')
    .split('\r\n')
    .filter((line) => !/^a=(rtpmap|fmtp|rtcp-fb):(?!0 )/.test(line))
    .join('\r\n');
  return { type: description.type, sdp };
}

async function play(name, seconds) {
  const trace = loadTrace(name, seconds);
  const relay = new Relay(trace.delays);
  const ports = await relay.open();
  const sender = new RTCPeerConnection();
  const receiver = new RTCPeerConnection();
  const source = new nonstandard.RTCAudioSource();
  sender.addTrack(source.createTrack());
  let sink = null;
  receiver.ontrack = ({ track }) => {
    // Somebody must listen, or nothing is decoded.
    sink = new nonstandard.RTCAudioSink(track);
    sink.ondata = () => {};
  };

  await sender.setLocalDescription(onlyPcmu(await sender.createOffer()));
  await gathered(sender);
  const offer = rewire(sender.localDescription, ports.forReceiver);
  await receiver.setRemoteDescription(offer.description);
  await receiver.setLocalDescription(await receiver.createAnswer());
  await gathered(receiver);
  const answer = rewire(receiver.localDescription, ports.forSender);
  relay.connect(offer.port, answer.port);
  await sender.setRemoteDescription(answer.description);
  await new Promise((resolve, reject) => {
    const check = () => {
      if (sender.connectionState === 'connected') resolve();
      if (sender.connectionState === 'failed') reject(new Error(`${name}: no connection`));
    };
    sender.addEventListener('connectionstatechange', check);
    check();
  });

  let frames = 0;
  const began = performance.now();
  const feed = setInterval(() => {
    while (frames * 10 < performance.now() - began) {
      const at = (480 * frames) % VOICE.length;
      source.onData({ samples: VOICE.slice(at, at + 480), sampleRate: 48000, bitsPerSample: 16, channelCount: 1, numberOfFrames: 480 });
      frames += 1;
    }
  }, 5);
  const limit = setTimeout(() => { throw new Error(`${name}: took too long`); }, (seconds + 20) * 1000);
  await relay.done;
  clearTimeout(limit);
  clearInterval(feed);
  const reports = [...(await receiver.getStats()).values()];
  const stats = reports.find((report) => report.type === 'inbound-rtp' && report.kind === 'audio');
  sink?.stop();
  sender.close();
  receiver.close();
  relay.close();
  const bufferMs = 1000 * stats.jitterBufferDelay / stats.jitterBufferEmittedCount;
  return {
    trace: name,
    'delay ms': (bufferMs + trace.networkMs).toFixed(1),
    'concealed %': (100 * stats.concealedSamples / stats.totalSamplesReceived).toFixed(2),
    'lost %': trace.lostPercent.toFixed(2),
    'accelerated %': (100 * stats.removedSamplesForAcceleration / stats.totalSamplesReceived).toFixed(2),
    'decelerated %': (100 * stats.insertedSamplesForDeceleration / stats.totalSamplesReceived).toFixed(2),
    'relay late ms': relay.lateMs.toFixed(1),
  };
}

const args = process.argv.slice(2);
const at = args.indexOf('--seconds');
const seconds = Math.min(60, at < 0 ? 60 : Number(args.splice(at, 2)[1]));
const names = args.length > 0 ? args : ['lan', 'wifi', 'lte', 'step', 'ge5'];
const rows = await Promise.all(names.map((name) => play(name, seconds)));
console.table(rows);
const stalled = rows.some((row) => Number(row['relay late ms']) > STALLED_MS);
if (stalled) console.error(`the relay stalled for more than ${STALLED_MS} ms: a busy machine was measured, not NetEQ`);
process.exit(stalled ? 1 : 0);
