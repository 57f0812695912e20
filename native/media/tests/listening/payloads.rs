//! Payloads of any length, of no codec, and of none at all.

use super::*;

/// Opus-like: 48 kHz, and the duration is in the payload's first octet, in 10 ms; 0 for nonsense.
fn tens_of_ms(payload: &[u8]) -> u32 {
    payload.first().map_or(0, |&tens| u32::from(tens) * 480)
}

#[test]
fn a_48_khz_clock_and_frames_of_any_length() {
    let mut buffer = ListeningBuffer::new(48_000, tens_of_ms);
    let mut header = Leg::new(0, 0).header(0);
    let mut heard = Vec::new();
    let mut drain = |buffer: &mut ListeningBuffer, now_us| {
        while let Some(release) = buffer.poll(now_us) {
            heard.push(match release {
                Release::Packet {
                    timestamp, payload, ..
                } => ('p', timestamp, tens_of_ms(payload)),
                Release::Lost { timestamp, samples } => ('l', timestamp, samples),
                Release::Silence { timestamp, samples } => ('s', timestamp, samples),
            });
        }
    };
    // 20, 60, (20 lost), 20, then DTX of 400 ms, 20.
    for (sequence, timestamp, tens, at_us) in [
        (0, 0, 2, 0),
        (1, 960, 6, 60_000),
        (3, 4800, 2, 120_000),
        (4, 24_960, 2, 540_000),
    ] {
        (header.sequence, header.timestamp) = (sequence, timestamp);
        buffer.push(at_us, &header, &[tens]);
        drain(&mut buffer, at_us);
        drain(&mut buffer, at_us + REORDER_WINDOW_US);
    }
    assert_eq!(
        heard,
        [
            ('p', 0, 960),
            ('p', 960, 2880),
            ('l', 3840, 960),
            ('p', 4800, 960),
            ('s', 5760, 19_200),
            ('p', 24_960, 960),
        ]
    );
}

#[test]
fn a_payload_that_no_codec_made_is_a_loss_in_its_place() {
    let mut buffer = ListeningBuffer::new(8000, |payload| if payload[0] == 255 { 0 } else { 160 });
    let mut leg = Leg::new(0, 0);
    std::mem::swap(&mut leg.buffer, &mut buffer);
    for index in 0..4 {
        if index == 2 {
            leg.buffer.push(2 * STEP_US, &leg.header(2), &[255; 160]);
            leg.drain(2 * STEP_US);
        } else {
            leg.packet(u64::from(index) * STEP_US, index);
        }
    }
    assert_eq!(leg.heard(), [Packet(0), Packet(1), Lost(160), Packet(3)]);
    let stats = leg.buffer.stats();
    assert_eq!((stats.nonsense, stats.lost, stats.released), (1, 0, 3));
    leg.assert_one_timeline();
}

#[test]
fn comfort_noise_packets_are_neither_audio_nor_loss() {
    let mut leg = Leg::new(0, 0);
    leg.packet(0, 0);
    // RFC 3389: one at the begin of the silence and one as its noise changes.
    for (sequence, at) in [(1, 1), (2, 20)] {
        let mut header = leg.header(at);
        header.sequence = sequence;
        leg.buffer.push_aside(u64::from(at) * STEP_US, &header);
        leg.drain(u64::from(at) * STEP_US);
    }
    let mut header = leg.header(50);
    header.sequence = 3;
    leg.arrive(50 * STEP_US, &header, 50);
    assert_eq!(leg.heard(), [Packet(0), Silence(7840), Packet(50)]);
    let stats = leg.buffer.stats();
    assert_eq!((stats.lost, stats.aside, stats.reset), (0, 2, 0));
}
