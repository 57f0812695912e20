//! The media engine for Python: commands in, event objects out. No logic beyond translation.

use std::sync::Arc;

use ::media::engine::{Engine, EngineConfig, EngineError, RtcpTerms, Utterance};
use ::media::recorder::Recorder;
use ::media::room::Voice;
use ::media::stream::{Format, TelephoneEvent};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use silero::Model;

mod arguments;
mod events;
mod quality;

use arguments::{
    address, codec_named, host_address, ice_seed, samples, speech_params, srtp_keys, stream_params,
};
use quality::StreamQuality;

create_exception!(
    mediaserver._native,
    MediaError,
    PyException,
    "The media engine refused or cannot do something."
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

/// The handle of the media threads.
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

    fn alive(&self) -> bool {
        self.engine.is_alive()
    }

    /// Why the media threads have no real-time scheduling; None where they have it, or were not to ask.
    fn realtime_refused(&self) -> Option<String> {
        self.engine.realtime().err().map(str::to_owned)
    }

    #[pyo3(signature = (*, remote, origin=None, beside=None, vad_threshold=0.5, speech_start_ms=96, speech_stop_ms=200,
        preroll_ms=300, chunk_ms=200, pause_ms=0, media_timeout_ms=0, max_playout_ms=120_000, report_activity=false))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn open_stream(
        &self,
        remote: Option<(String, u16)>,
        origin: Option<&str>,
        beside: Option<u64>,
        vad_threshold: f32,
        speech_start_ms: u32,
        speech_stop_ms: u32,
        preroll_ms: u32,
        chunk_ms: u32,
        pause_ms: u32,
        media_timeout_ms: u64,
        max_playout_ms: u64,
        report_activity: bool,
    ) -> PyResult<(u64, u16)> {
        let speech = speech_params(
            vad_threshold,
            speech_start_ms,
            speech_stop_ms,
            preroll_ms,
            chunk_ms,
            pause_ms,
        )?;
        let params = stream_params(speech, media_timeout_ms, report_activity);
        let remote = remote.map(address).transpose()?;
        let origin = origin.map(host_address).transpose()?;
        let opened = self.engine.open(remote, origin, beside, max_playout_ms, params);
        Ok(opened.map_err(Refusal)?)
    }

    #[pyo3(signature = (*, offer, vad_threshold=0.5, speech_start_ms=96, speech_stop_ms=200, preroll_ms=300, chunk_ms=200, pause_ms=0,
        max_playout_ms=120_000, report_activity=false))]
    #[allow(clippy::too_many_arguments)] // keyword arguments in Python
    fn open_webrtc(
        &self,
        offer: &str,
        vad_threshold: f32,
        speech_start_ms: u32,
        speech_stop_ms: u32,
        preroll_ms: u32,
        chunk_ms: u32,
        pause_ms: u32,
        max_playout_ms: u64,
        report_activity: bool,
    ) -> PyResult<(u64, String)> {
        let speech = speech_params(
            vad_threshold,
            speech_start_ms,
            speech_stop_ms,
            preroll_ms,
            chunk_ms,
            pause_ms,
        )?;
        let params = stream_params(speech, 0, report_activity);
        let opened = self.engine.open_web(offer, ice_seed()?, max_playout_ms, params);
        Ok(opened.map_err(Refusal)?)
    }

    fn reoffer_webrtc(&self, py: Python<'_>, stream: u64, offer: &str) -> PyResult<String> {
        let seed = ice_seed()?;
        let answer = py.detach(|| self.engine.reoffer_web(stream, offer, seed));
        Ok(answer.map_err(Refusal)?)
    }

    fn send_message(&self, stream: u64, text: &str) -> PyResult<()> {
        Ok(self.engine.send_message(stream, text).map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, *, remote, codec, payload_type, telephone_event=None, send=true, receive=true,
        comfort_noise=None, telephone_event_hz=8000, srtp=None, rtcp_remote=None, rtcp_mux=false, rtcp_xr=false,
        rtcp_reduced_size=false, rtcp=true))]
    #[allow(
        clippy::too_many_arguments,
        clippy::fn_params_excessive_bools,
        clippy::needless_pass_by_value
    )]
    // keyword arguments in Python
    fn connect_stream(
        &self,
        stream: u64,
        remote: (String, u16),
        codec: &str,
        payload_type: u8,
        telephone_event: Option<u8>,
        send: bool,
        receive: bool,
        comfort_noise: Option<u8>,
        telephone_event_hz: u32,
        srtp: Option<(String, String, String)>,
        rtcp_remote: Option<(String, u16)>,
        rtcp_mux: bool,
        rtcp_xr: bool,
        rtcp_reduced_size: bool,
        rtcp: bool,
    ) -> PyResult<()> {
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
            codec: codec_named(codec)?,
            payload_type,
            telephone_event: telephone_event.map(|payload_type| TelephoneEvent {
                payload_type,
                clock_hz: telephone_event_hz,
            }),
            comfort_noise,
            send,
            receive,
        };
        let reports = RtcpTerms {
            remote: rtcp_remote.map(address).transpose()?,
            mux: rtcp_mux,
            xr_voip_metrics: rtcp_xr,
            reduced_size: rtcp_reduced_size,
        };
        let keys = srtp.as_ref().map(srtp_keys).transpose()?;
        let reports = rtcp.then_some(reports);
        let connected = self
            .engine
            .connect(stream, address(remote)?, format, keys, reports);
        Ok(connected.map_err(Refusal)?)
    }

    fn close_stream(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.close_stream(stream).map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, pcm, rate_hz, mark, *, marks=None, gain_db=0.0))]
    fn play(
        &self,
        stream: u64,
        pcm: &[u8],
        rate_hz: u32,
        mark: u64,
        marks: Option<Vec<(usize, u64)>>,
        gain_db: f32,
    ) -> PyResult<()> {
        let utterance = Utterance {
            mark,
            rate_hz,
            pcm: samples(pcm)?,
            marks: &marks.unwrap_or_default(),
            gain_db,
        };
        Ok(self.engine.play(stream, utterance).map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, pcm, rate_hz, mark, *, gain_db=0.0))]
    fn play_loop(&self, stream: u64, pcm: &[u8], rate_hz: u32, mark: u64, gain_db: f32) -> PyResult<()> {
        let utterance = Utterance {
            mark,
            rate_hz,
            pcm: samples(pcm)?,
            marks: &[],
            gain_db,
        };
        Ok(self.engine.play_loop(stream, utterance).map_err(Refusal)?)
    }

    fn stop_loop(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.stop_loop(stream).map_err(Refusal)?)
    }

    fn set_gain(&self, stream: u64, gain_db: f32) -> PyResult<()> {
        Ok(self.engine.set_gain_db(stream, gain_db).map_err(Refusal)?)
    }

    #[pyo3(signature = (stream, digit, duration_ms=100))]
    fn press(&self, stream: u64, digit: char, duration_ms: u32) -> PyResult<()> {
        Ok(self.engine.press(stream, digit, duration_ms).map_err(Refusal)?)
    }

    fn open_room(&self, beside: u64) -> PyResult<u64> {
        Ok(self.engine.open_room(beside).map_err(Refusal)?)
    }

    #[pyo3(signature = (room, stream, *, listen_only=false))]
    fn join_room(&self, room: u64, stream: u64, listen_only: bool) -> PyResult<()> {
        let voice = if listen_only {
            Voice::ListenOnly
        } else {
            Voice::Open
        };
        Ok(self.engine.join_room(room, stream, voice).map_err(Refusal)?)
    }

    fn leave_room(&self, stream: u64) -> PyResult<()> {
        Ok(self.engine.leave_room(stream).map_err(Refusal)?)
    }

    fn set_hearing(&self, listener: u64, speaker: u64, factor: f32) -> PyResult<()> {
        Ok(self
            .engine
            .set_hearing(listener, speaker, factor)
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
        let drained = self.engine.drain();
        let list = PyList::empty(py);
        for (stream, event) in drained {
            list.append(events::to_python(py, stream, event)?)?;
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

    fn stream_quality(&self, py: Python<'_>, stream: u64) -> PyResult<Option<StreamQuality>> {
        let quality = py.detach(|| self.engine.quality(stream)).map_err(Refusal)?;
        Ok(quality.map(StreamQuality::from))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.engine.close());
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MediaError", module.py().get_type::<MediaError>())?;
    module.add_class::<MediaEngine>()?;
    module.add_class::<StreamQuality>()?;
    events::register(module)
}
