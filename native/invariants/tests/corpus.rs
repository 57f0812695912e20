//! What fuzzing found worth keeping, with the stable compiler.

use std::fs;
use std::path::Path;

use invariants::Target;

fn corpus(target: Target) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target.name());
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.display().to_string(), fs::read(path).unwrap()))
        .collect()
}

fn replay(target: Target) {
    let inputs = corpus(target);
    assert!(inputs.len() >= 5, "the corpus of {} is missing", target.name());
    for (name, input) in inputs {
        let outcome = std::panic::catch_unwind(|| target.run(&input));
        assert!(outcome.is_ok(), "{name}");
    }
}

/// A test for each target, so that they run side by side and a failure is named.
macro_rules! replayed {
    ($($name:ident: $target:ident),* $(,)?) => {
        $(#[test] fn $name() { replay(Target::$target); })*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!([$(Target::$target),*], Target::ALL);
        }
    };
}

replayed! {
    rtp_packet: RtpPacket,
    rtcp_compound: RtcpCompound,
    rtcp_session: RtcpSession,
    srtp_receiver: SrtpReceiver,
    srtp_session: SrtpSession,
    event_receiver: EventReceiver,
    event_round_trip: EventRoundTrip,
    listening_buffer: ListeningBuffer,
    bridging_buffer: BridgingBuffer,
    stream: Stream,
    decoding: Decoding,
    demultiplexing: Demultiplexing,
    webrtc_offer: WebRtcOffer,
    webrtc_leg: WebRtcLeg,
}
