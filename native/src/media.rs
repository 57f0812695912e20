//! The media engine for Python: commands in, event objects out. No logic beyond translation.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::media::activity::ActivityChange;
use ::media::engine::{Engine, EngineConfig, EngineError};
use ::media::playout::{Flushed as FlushedReport, PlayoutEvent};
use ::media::recorder::Recorder;
use ::media::speech::{SpeechEvent, SpeechParams};
use ::media::stream::{Format, StreamEvent, StreamParams, TelephoneEvent};
use codec::Codec;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use pyo3::{PyClass, PyClassInitializer};
use silero::{DetectorParams, Model};

create_exception!(
    mediaserver._native,
    MediaError,
    PyException,
    "The media engine refused or cannot do something."
);

/// An event class: frozen, every field readable, and constructible, since a link to another process rebuilds events.
macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[pyclass(frozen, get_all, module = "mediaserver._native")]
        #[allow(clippy::struct_field_names)] // the names of the Python attributes
        pub(crate) struct $name { stream: u64, $($field: $kind),* }

        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = (*, stream, $($field),*))]
            #[allow(clippy::too_many_arguments)] // keyword arguments in Python
            fn new(stream: u64, $($field: $kind),*) -> Self {
                Self { stream, $($field),* }
            }
        }
    };
}

event!(
    /// Speech began.
    SpeechStarted { media_ms: u64, at_us: u64, pcm: Py<PyBytes> }
);
event!(
    /// Speech goes on.
    SpeechAudio { media_ms: u64, pcm: Py<PyBytes> }
);
event!(
    /// Speech ended.
    SpeechStopped { media_ms: u64, at_us: u64, last_speech_at_us: u64, pcm: Py<PyBytes> }
);
event!(
    /// A chunk began to sound after silence.
    PlayoutStarted { mark: u64, at_us: u64 }
);
event!(
    /// A chunk has gone out whole.
    Played { mark: u64, played_ms: u64, at_us: u64 }
);
event!(
    /// A mark within a chunk was reached.
    MarkReached { mark: u64, played_ms: u64, at_us: u64 }
);
event!(
    /// What sounded while nothing was said has ended.
    BackgroundEnded { mark: u64, at_us: u64 }
);
event!(
    /// The playout was emptied.
    Flushed { mark: u64, heard_ms: u64, chunk_ms: u64, played_ms: u64, dropped_ms: u64, at_us: u64 }
);
event!(
    /// A key was pressed.
    DtmfDigit { digit: char, duration_ms: u32 }
);
event!(
    /// Nothing has come for a while.
    MediaTimeout { silent_ms: u64 }
);
event!(
    /// The stream became audible or silent.
    Activity { active: bool, at_us: u64 }
);
event!(
    /// The recording has stopped.
    RecordingFailed { reason: String }
);

fn refused(error: impl std::fmt::Display) -> PyErr {
    MediaError::new_err(error.to_string())
}

impl From<Refusal> for PyErr {
    fn from(Refusal(error): Refusal) -> Self {
        refused(error)
    }
}

/// An engine error on its way to Python.
struct Refusal(EngineError);

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        Self(error)
    }
}

fn host_address(host: &str) -> PyResult<IpAddr> {
    host.parse()
        .map_err(|_| refused(format!("{host:?} is not an IPv4 or IPv6 address")))
}

fn address((host, port): (String, u16)) -> PyResult<SocketAddr> {
    Ok(SocketAddr::new(host_address(&host)?, port))
}

fn codec_named(name: &str) -> PyResult<Codec> {
    Codec::from_name(name).ok_or_else(|| {
        let known = Codec::ALL.map(Codec::name).join(", ");
        refused(format!("codec {name:?} is none of {known}"))
    })
}

fn bytes(py: Python<'_>, pcm: &[i16]) -> PyResult<Py<PyBytes>> {
    let filled = PyBytes::new_with(py, pcm.len() * 2, |octets| {
        for (to, sample) in octets.chunks_exact_mut(2).zip(pcm) {
            to.copy_from_slice(&sample.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(filled.unbind())
}

fn object<T: PyClass + Into<PyClassInitializer<T>>>(py: Python<'_>, event: T) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, event)?.into_any())
}

fn to_python(py: Python<'_>, stream: u64, event: StreamEvent) -> PyResult<Py<PyAny>> {
    match event {
        StreamEvent::Speech(event) => speech_to_python(py, stream, event),
        StreamEvent::Playout(event, at_us) => playout_to_python(py, stream, event, at_us),
        StreamEvent::Digit { digit, duration_ms } => object(
            py,
            DtmfDigit {
                stream,
                digit,
                duration_ms,
            },
        ),
        StreamEvent::MediaTimeout { silent_ms } => object(py, MediaTimeout { stream, silent_ms }),
        StreamEvent::Activity(ActivityChange { active, at_us }) => object(
            py,
            Activity {
                stream,
                active,
                at_us,
            },
        ),
        StreamEvent::RecordingFailed(reason) => object(py, RecordingFailed { stream, reason }),
    }
}

fn speech_to_python(py: Python<'_>, stream: u64, event: SpeechEvent) -> PyResult<Py<PyAny>> {
    match event {
        SpeechEvent::Started { media_ms, at_us, pcm } => {
            let pcm = bytes(py, &pcm)?;
            object(
                py,
                SpeechStarted {
                    stream,
                    media_ms,
                    at_us,
                    pcm,
                },
            )
        }
        SpeechEvent::Audio { media_ms, pcm } => {
            let pcm = bytes(py, &pcm)?;
            object(
                py,
                SpeechAudio {
                    stream,
                    media_ms,
                    pcm,
                },
            )
        }
        SpeechEvent::Stopped {
            media_ms,
            at_us,
            last_speech_at_us,
            pcm,
        } => {
            let pcm = bytes(py, &pcm)?;
            object(
                py,
                SpeechStopped {
                    stream,
                    media_ms,
                    at_us,
                    last_speech_at_us,
                    pcm,
                },
            )
        }
    }
}

fn playout_to_python(py: Python<'_>, stream: u64, event: PlayoutEvent, at_us: u64) -> PyResult<Py<PyAny>> {
    match event {
        PlayoutEvent::Started { mark } => object(py, PlayoutStarted { stream, mark, at_us }),
        PlayoutEvent::Played { mark, played_ms } => object(
            py,
            Played {
                stream,
                mark,
                played_ms,
                at_us,
            },
        ),
        PlayoutEvent::Mark { mark, played_ms } => object(
            py,
            MarkReached {
                stream,
                mark,
                played_ms,
                at_us,
            },
        ),
        PlayoutEvent::BackgroundEnded { mark } => object(py, BackgroundEnded { stream, mark, at_us }),
        PlayoutEvent::Flushed(FlushedReport {
            mark,
            heard_ms,
            chunk_ms,
            played_ms,
            dropped_ms,
            ..
        }) => {
            let mark = mark.unwrap_or(0);
            object(
                py,
                Flushed {
                    stream,
                    mark,
                    heard_ms,
                    chunk_ms,
                    played_ms,
                    dropped_ms,
                    at_us,
                },
            )
        }
    }
}

/// A 64-bit number that two calls in a row do not share; RTP wants its beginnings unpredictable (RFC 3550 5.1).
fn unpredictable() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(::media::engine::now_us())
}

/// The handle of the media thread.
#[pyclass(frozen, module = "mediaserver._native")]
struct MediaEngine {
    engine: Engine,
}

#[pymethods]
impl MediaEngine {
    #[new]
    #[pyo3(signature = (host, *, first_port=0, port_count=8, threads=1, realtime=true, public_addresses=None, vad_model=None,
        max_streams=1000, event_capacity=65536))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn new(
        host: &str,
        first_port: u16,
        port_count: usize,
        threads: usize,
        realtime: bool,
        public_addresses: Option<Vec<String>>,
        vad_model: Option<&[u8]>,
        max_streams: usize,
        event_capacity: usize,
    ) -> PyResult<Self> {
        if !(1..=1024).contains(&port_count) || max_streams == 0 || event_capacity == 0 {
            return Err(refused(
                "port_count must be 1 to 1024, max_streams and event_capacity at least 1",
            ));
        }
        let model = vad_model
            .map(Model::from_onnx)
            .transpose()
            .map_err(refused)?
            .map(Arc::new);
        let config = EngineConfig {
            host: host_address(host)?,
            first_port,
            port_count,
            threads,
            realtime,
            public_addresses: public_addresses
                .unwrap_or_default()
                .into_iter()
                .map(|address| host_address(&address))
                .collect::<PyResult<_>>()?,
            max_streams,
            event_capacity,
            model,
        };
        Ok(Self {
            engine: Engine::start(&config).map_err(Refusal)?,
        })
    }

    fn fileno(&self) -> i32 {
        self.engine.event_fd()
    }

    fn ports(&self) -> Vec<u16> {
        self.engine.ports()
    }

    /// Why the media threads have no real-time scheduling; None where they have it, or were not to ask.
    fn realtime_refused(&self) -> Option<String> {
        self.engine.realtime().err().map(str::to_owned)
    }

    #[pyo3(signature = (*, remote, origin=None, vad_threshold=0.5, speech_start_ms=96, speech_stop_ms=200, preroll_ms=300,
        chunk_ms=200, media_timeout_ms=0, max_playout_ms=120_000, report_activity=false))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn open_stream(
        &self,
        remote: Option<(String, u16)>,
        origin: Option<&str>,
        vad_threshold: f32,
        speech_start_ms: u32,
        speech_stop_ms: u32,
        preroll_ms: u32,
        chunk_ms: u32,
        media_timeout_ms: u64,
        max_playout_ms: u64,
        report_activity: bool,
    ) -> PyResult<(u64, u16)> {
        if !(0.0..=1.0).contains(&vad_threshold) {
            return Err(refused(format!(
                "vad_threshold {vad_threshold} is not within 0 to 1"
            )));
        }
        for (name, value, allowed) in [
            ("speech_start_ms", speech_start_ms, 0..=2000),
            ("speech_stop_ms", speech_stop_ms, 0..=5000),
            ("preroll_ms", preroll_ms, 0..=2000),
            ("chunk_ms", chunk_ms, 20..=5000),
        ] {
            if !allowed.contains(&value) {
                return Err(refused(format!(
                    "{name} {value} is not within {} to {}",
                    allowed.start(),
                    allowed.end()
                )));
            }
        }
        let detector = DetectorParams {
            threshold: vad_threshold,
            start_ms: speech_start_ms,
            stop_ms: speech_stop_ms,
        };
        let speech = SpeechParams {
            detector,
            preroll_ms,
            chunk_ms,
        };
        let random = unpredictable();
        let params = StreamParams {
            speech: Some(speech),
            media_timeout_ms,
            report_activity,
            ssrc: (random >> 32) as u32,
            first_sequence: (random & 0x7fff) as u16,
            first_timestamp: (random >> 8) as u32,
        };
        Ok(self
            .engine
            .open(
                remote.map(address).transpose()?,
                origin.map(host_address).transpose()?,
                max_playout_ms,
                params,
            )
            .map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, *, remote, codec, payload_type, telephone_event=None, telephone_event_hz=8000,
        comfort_noise=None, send=true, receive=true))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn connect_stream(
        &self,
        stream: u64,
        remote: (String, u16),
        codec: &str,
        payload_type: u8,
        telephone_event: Option<u8>,
        telephone_event_hz: u32,
        comfort_noise: Option<u8>,
        send: bool,
        receive: bool,
    ) -> PyResult<()> {
        let codec = codec_named(codec)?;
        let kinds = [Some(payload_type), telephone_event, comfort_noise];
        if kinds.iter().flatten().any(|&kind| kind > 127) {
            return Err(refused("payload types are 0 to 127"));
        }
        if ![8000, 16_000, 48_000].contains(&telephone_event_hz) {
            return Err(refused(format!(
                "telephone_event_hz {telephone_event_hz} is none of 8000, 16000, 48000"
            )));
        }
        let format = Format {
            codec,
            payload_type,
            telephone_event: telephone_event.map(|payload_type| TelephoneEvent {
                payload_type,
                clock_hz: telephone_event_hz,
            }),
            comfort_noise,
            send,
            receive,
        };
        Ok(self
            .engine
            .connect(stream, address(remote)?, format)
            .map_err(Refusal)?)
    }

    fn close_stream(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.close_stream(stream).map_err(Refusal)?)
    }

    fn play(&self, stream: u64, pcm: &[u8], rate_hz: u32, mark: u64) -> PyResult<()> {
        let (pairs, rest) = pcm.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(refused(format!(
                "{} bytes are no whole number of 16-bit samples",
                pcm.len()
            )));
        }
        let samples = pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect();
        Ok(self
            .engine
            .play(stream, mark, rate_hz, samples)
            .map_err(Refusal)?)
    }

    fn flush(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.flush(stream).map_err(Refusal)?)
    }

    fn pause(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.pause(stream).map_err(Refusal)?)
    }

    fn resume(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.resume(stream).map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, path, rate_hz=8000))]
    fn record(&self, stream: u64, path: &str, rate_hz: u32) -> PyResult<()> {
        if ![8000, 16_000, 24_000, 48_000].contains(&rate_hz) {
            return Err(refused(format!(
                "rate_hz {rate_hz} is none of 8000, 16000, 24000, 48000"
            )));
        }
        let recorder = Recorder::create(path, rate_hz).map_err(refused)?;
        Ok(self.engine.record(stream, recorder).map_err(Refusal)?)
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let events = self.engine.drain();
        let list = PyList::empty(py);
        for (stream, event) in events {
            list.append(to_python(py, stream, event)?)?;
        }
        Ok(list)
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = PyDict::new(py);
        for (name, value) in self.engine.stats() {
            stats.set_item(name, value)?;
        }
        Ok(stats)
    }

    fn stream_stats<'py>(&self, py: Python<'py>, stream: u64) -> PyResult<Bound<'py, PyDict>> {
        let counters = py.detach(|| self.engine.stream_stats(stream)).map_err(Refusal)?;
        let stats = PyDict::new(py);
        for (name, value) in counters {
            stats.set_item(name, value)?;
        }
        Ok(stats)
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MediaError", module.py().get_type::<MediaError>())?;
    module.add_class::<MediaEngine>()?;
    module.add_class::<SpeechStarted>()?;
    module.add_class::<SpeechAudio>()?;
    module.add_class::<SpeechStopped>()?;
    module.add_class::<PlayoutStarted>()?;
    module.add_class::<Played>()?;
    module.add_class::<MarkReached>()?;
    module.add_class::<BackgroundEnded>()?;
    module.add_class::<Flushed>()?;
    module.add_class::<DtmfDigit>()?;
    module.add_class::<MediaTimeout>()?;
    module.add_class::<Activity>()?;
    module.add_class::<RecordingFailed>()?;
    Ok(())
}
