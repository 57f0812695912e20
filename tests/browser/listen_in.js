// Notes what a page hears of its peer connections: when sound first came, and the sound itself.
{
  const context = new AudioContext();
  const blocks = [];
  const listenIn = {
    rate: context.sampleRate,
    clickedAt: null,
    firstSoundAt: null,
    connections: [],
    samples: (from) => blocks.filter((block) => block.at >= from).flatMap((block) => [...block.samples]),
  };
  const AUDIBLE = 0.01;

  const listen = (stream) => {
    context.resume();
    const source = context.createMediaStreamSource(stream);
    // An audio worklet would need a script of its own, which the page's policy forbids.
    const tap = context.createScriptProcessor(512, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) => {
      const samples = inputBuffer.getChannelData(0).slice();
      const at = performance.now();
      blocks.push({ at, samples });
      if (listenIn.firstSoundAt === null && samples.some((sample) => Math.abs(sample) > AUDIBLE)) {
        listenIn.firstSoundAt = at;
      }
    };
    source.connect(tap);
    tap.connect(context.destination);
    listenIn.keep = [...(listenIn.keep ?? []), source, tap];
  };

  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...options) {
      super(...options);
      listenIn.connections.push(this);
      this.addEventListener("track", ({ track, streams }) => {
        if (track.kind === "audio") listen(streams[0] ?? new MediaStream([track]));
      });
    }
  };
  addEventListener("click", () => (listenIn.clickedAt ??= performance.now()), { capture: true });
  window.listenIn = listenIn;
}
