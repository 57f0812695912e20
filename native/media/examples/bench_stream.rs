//! What a call costs the media thread, stage by stage, without sockets: CPU time per second of call.
//!
//! `cargo run --release -p media --example bench_stream -- silero_vad.onnx [streams] [seconds]`

use std::sync::Arc;

use codec::Codec;
use codec::g711::{Law, encode_into};
use codec::resample::Resampler;
use media::playout::{FRAME, PlayoutBudget};
use media::speech::{Listening, SpeechParams};
use media::stream::{
    Coding, CodingError, FRAME_US, Format, PACKET_MAX, Stream, StreamEvent, StreamParams, TelephoneEvent,
};
use rtp::packet::{RtpHeader, RtpPacket};
use rustix::time::{ClockId, clock_gettime};
use silero::{DetectorParams, Model};

const FORMAT: Format = Format {
    codec: Codec::Pcmu,
    payload_type: 0,
    telephone_event: Some(TelephoneEvent {
        payload_type: 101,
        clock_hz: 8000,
    }),
    comfort_noise: None,
    send: true,
    receive: true,
};

/// Two seconds of voice-like sound (a falling pitch with harmonics, four syllables a second), then one of faint noise.
fn caller(seconds: usize) -> Vec<i16> {
    let mut noise = 1_u32;
    let mut phase = 0.0_f64;
    let samples = (0..seconds * 8000).map(|n| {
        let time_s = n as f64 / 8000.0;
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let hiss = f64::from(noise >> 16) / 32_768.0 - 1.0;
        if time_s % 3.0 >= 2.0 {
            return (40.0 * hiss) as i16;
        }
        phase += (140.0 - 20.0 * (time_s % 2.0)) / 8000.0;
        let voice: f64 = (1..=20)
            .map(|k| (std::f64::consts::TAU * phase * f64::from(k)).sin() / f64::from(k))
            .sum();
        let syllable = (std::f64::consts::TAU * 2.0 * time_s).sin().abs();
        (6000.0 * syllable * voice + 100.0 * hiss) as i16
    });
    samples.collect()
}

/// CPU-us.
#[derive(Default)]
struct Stages {
    receive: f64,
    resample: f64,
    vad: f64,
    send: f64,
}

/// CPU time of this thread in microseconds: a busy neighbour does not count.
fn cpu_us() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: bench_stream MODEL [STREAMS] [SECONDS]")?;
    let count: usize = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let seconds: usize = arguments.next().map_or(Ok(30), |text| text.parse())?;
    let mut listening = Listening::new(Arc::new(Model::from_onnx(&std::fs::read(path)?)?));
    let detector = DetectorParams {
        threshold: 0.5,
        start_ms: 96,
        stop_ms: 200,
    };
    let speech = SpeechParams {
        detector,
        preroll_ms: 300,
        chunk_ms: 200,
        pause_ms: 0,
    };
    let mut streams: Vec<(Stream, Arc<PlayoutBudget>)> = (0..count)
        .map(|index| {
            let mut stream = Stream::new(&StreamParams {
                speech: Some(speech),
                media_timeout_ms: 10_000,
                report_activity: false,
                ssrc: index as u32,
                first_sequence: 0,
                first_timestamp: 0,
            });
            stream.connect(0, FORMAT, Coding::new(FORMAT.codec)?);
            Ok((stream, PlayoutBudget::new(120_000)))
        })
        .collect::<Result<_, CodingError>>()?;
    let audio = caller(seconds);
    let mut codes = vec![0; audio.len()];
    encode_into(Law::Mu, &audio, &mut codes);
    let (stages, events) = run(&mut streams, &mut listening, &audio, &codes)?;
    report(&stages, count, seconds, events, &streams);
    Ok(())
}

fn run(
    streams: &mut [(Stream, Arc<PlayoutBudget>)],
    listening: &mut Listening,
    audio: &[i16],
    codes: &[u8],
) -> Result<(Stages, usize), Box<dyn std::error::Error>> {
    let mut stages = Stages::default();
    let mut resamplers = vec![Resampler::new(8000, 16_000)?; streams.len()];
    let (mut events, mut total_events, mut wide) = (Vec::new(), 0, Vec::new());
    let frames = audio.len() / FRAME;
    for tick in 0..frames {
        let now_us = tick as u64 * FRAME_US;
        if tick % 100 == 0 {
            // Half of the time the receptionist speaks: a second of 24 kHz every two.
            for (stream, budget) in streams.iter_mut() {
                stream.play(budget.chunk(vec![3000; 24_000], 24_000, tick as u64)?);
            }
        }
        let began = cpu_us();
        for (index, (stream, _)) in streams.iter_mut().enumerate() {
            // Each call is at another place of the conversation.
            let at = (tick + index * 7) % frames * FRAME;
            let header = RtpHeader {
                marker: false,
                payload_type: 0,
                sequence: tick as u16,
                timestamp: (tick * FRAME) as u32,
                ssrc: 1,
            };
            let packet = RtpPacket {
                header,
                payload: &codes[at..at + FRAME],
            };
            stream.handle_packet(now_us, &packet, &mut events);
        }
        let received = cpu_us();
        for (index, resampler) in resamplers.iter_mut().enumerate() {
            let at = (tick + index * 7) % frames * FRAME;
            wide.clear();
            resampler.process(&audio[at..at + FRAME], &mut wide);
        }
        let resampled = cpu_us();
        judge(streams, listening, &mut events);
        let judged = cpu_us();
        let mut packet = [0; PACKET_MAX];
        for (stream, _) in streams.iter_mut() {
            stream.tick(now_us, None, &mut packet, &mut events);
            std::hint::black_box(&packet);
        }
        stages.send += cpu_us() - judged;
        stages.vad += judged - resampled;
        stages.resample += resampled - received;
        stages.receive += received - began;
        total_events += events.len();
        events.clear();
    }
    Ok((stages, total_events))
}

fn judge(
    streams: &mut [(Stream, Arc<PlayoutBudget>)],
    listening: &mut Listening,
    events: &mut Vec<StreamEvent>,
) {
    let mut lent: Vec<_> = streams
        .iter_mut()
        .filter_map(|(stream, _)| stream.lend_speech())
        .collect();
    listening.judge(lent.iter_mut().map(|speech| &mut **speech));
    for ((stream, _), speech) in streams.iter_mut().zip(lent) {
        stream.take_back_speech(speech, events);
    }
}

fn report(
    stages: &Stages,
    count: usize,
    seconds: usize,
    events: usize,
    streams: &[(Stream, Arc<PlayoutBudget>)],
) {
    let call_seconds = (count * seconds) as f64;
    let per_second = |spent_us: f64| spent_us / call_seconds;
    let windows: Vec<_> = streams.iter().map(|(stream, _)| stream.stats().windows).collect();
    let total: u64 = windows.iter().map(|(all, _)| all).sum();
    let quiet: u64 = windows.iter().map(|(_, quiet)| quiet).sum();
    let received = per_second(stages.receive).max(per_second(stages.resample));
    println!("{count} streams of {seconds} s; {events} events; CPU-us per call-second:");
    println!(
        "  jitter buffer, decode    {:8.1}",
        received - per_second(stages.resample)
    );
    println!("  resample 8 to 16 kHz     {:8.1}", per_second(stages.resample));
    println!("  VAD, cutting             {:8.1}", per_second(stages.vad));
    println!("  playout, encode          {:8.1}", per_second(stages.send));
    println!(
        "  together                 {:8.1}",
        received + per_second(stages.vad) + per_second(stages.send)
    );
    println!("  {total} windows, of which {quiet} were too quiet for the model");
}
