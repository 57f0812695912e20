//! The events of the media engine as Python objects.

use ::media::activity::ActivityChange;
use ::media::playout::{Flushed as FlushedReport, PlayoutEvent};
use ::media::speech::SpeechEvent;
use ::media::stream::StreamEvent;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{PyClass, PyClassInitializer};

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
    /// Nothing audible for a moment within speech.
    SpeechPaused { media_ms: u64, at_us: u64, last_speech_at_us: u64, pcm: Py<PyBytes> }
);
event!(
    /// Speech goes on after a pause.
    SpeechResumed { media_ms: u64, at_us: u64 }
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
    /// The engine has lost the stream.
    StreamFailed { reason: String }
);
event!(
    /// The stream became audible or silent.
    Activity { active: bool, at_us: u64 }
);
event!(
    /// The recording has stopped.
    RecordingFailed { reason: String }
);

event!(
    /// A browser is there, and media begin.
    WebRtcConnected { at_us: u64 }
);
event!(
    /// A browser has opened its data channel.
    ChannelOpened {}
);
event!(
    /// A browser has sent a text.
    ChannelMessage { text: String }
);
event!(
    /// A browser has gone, or never came.
    WebRtcEnded { reason: String }
);

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

pub(super) fn to_python(py: Python<'_>, stream: u64, event: StreamEvent) -> PyResult<Py<PyAny>> {
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
        StreamEvent::Failed => object(
            py,
            StreamFailed {
                stream,
                reason: "engine failed".to_owned(),
            },
        ),
        StreamEvent::Activity(ActivityChange { active, at_us }) => object(
            py,
            Activity {
                stream,
                active,
                at_us,
            },
        ),
        StreamEvent::RecordingFailed(reason) => object(py, RecordingFailed { stream, reason }),
        StreamEvent::WebConnected { at_us } => object(py, WebRtcConnected { stream, at_us }),
        StreamEvent::ChannelOpened => object(py, ChannelOpened { stream }),
        StreamEvent::ChannelMessage(text) => object(py, ChannelMessage { stream, text }),
        StreamEvent::WebEnded(reason) => object(py, WebRtcEnded { stream, reason }),
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
        SpeechEvent::Paused {
            media_ms,
            at_us,
            last_speech_at_us,
            pcm,
        } => {
            let pcm = bytes(py, &pcm)?;
            object(
                py,
                SpeechPaused {
                    stream,
                    media_ms,
                    at_us,
                    last_speech_at_us,
                    pcm,
                },
            )
        }
        SpeechEvent::Resumed { media_ms, at_us } => object(
            py,
            SpeechResumed {
                stream,
                media_ms,
                at_us,
            },
        ),
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

/// Add the classes of all events to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SpeechStarted>()?;
    module.add_class::<SpeechAudio>()?;
    module.add_class::<SpeechPaused>()?;
    module.add_class::<SpeechResumed>()?;
    module.add_class::<SpeechStopped>()?;
    module.add_class::<PlayoutStarted>()?;
    module.add_class::<Played>()?;
    module.add_class::<MarkReached>()?;
    module.add_class::<BackgroundEnded>()?;
    module.add_class::<Flushed>()?;
    module.add_class::<DtmfDigit>()?;
    module.add_class::<MediaTimeout>()?;
    module.add_class::<StreamFailed>()?;
    module.add_class::<Activity>()?;
    module.add_class::<RecordingFailed>()?;
    module.add_class::<WebRtcConnected>()?;
    module.add_class::<ChannelOpened>()?;
    module.add_class::<ChannelMessage>()?;
    module.add_class::<WebRtcEnded>()?;
    Ok(())
}
