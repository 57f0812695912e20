// An application of Pipecat's client: connects, and notes what it is told.
import { PipecatClient } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";

const told = [];
const note = (name) => (data) => told.push({ name, data });
const names = [
  "onConnected",
  "onDisconnected",
  "onBotReady",
  "onBotConnected",
  "onBotDisconnected",
  "onUserTranscript",
  "onBotTranscript",
  "onBotOutput",
  "onUserStartedSpeaking",
  "onUserStoppedSpeaking",
  "onBotStartedSpeaking",
  "onBotStoppedSpeaking",
  "onTransportStateChanged",
  "onMessageError",
  "onError",
];

const client = new PipecatClient({
  // The default media manager loads a part of itself from its vendor's servers.
  transport: new SmallWebRTCTransport({ mediaManager: new WavMediaManager() }),
  enableMic: true,
  enableCam: false,
  callbacks: {
    ...Object.fromEntries(names.map((name) => [name, note(name)])),
    onTrackStarted: (track) => {
      if (track.kind !== "audio") return;
      const audio = new Audio();
      audio.srcObject = new MediaStream([track]);
      audio.play();
      window.bot = audio;
    },
  },
});

window.stock = { client, told, names: () => told.map(({ name }) => name) };
